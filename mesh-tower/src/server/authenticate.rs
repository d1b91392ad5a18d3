//! Turns what the handshake and the token proved into one caller.

use std::sync::Arc;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};
use mesh_core::Mesh;
use mesh_core::identity::Principal as Caller;
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use crate::axum::Principal;
use crate::reject::{Kind, Reject};

/// Verifies the bearer token, if there is one, and makes the request's one principal.
///
/// No token passes as the certificate's identity alone. Any bad token, also one of an issuer that nobody configured,
/// is 401 / UNAUTHENTICATED: a token that is ignored is a hole (ISTIO-SECURITY-2021-001). A good token is removed from
/// the request, so that no handler forwards it by accident. `Authorization` with another scheme is the handler's.
///
/// # Position
/// Below admission and deadline, because signatures are expensive; above authorization, which judges what it makes.
#[derive(Debug, Clone)]
pub struct AuthenticateLayer {
    mesh: Mesh,
}

impl AuthenticateLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

/// What [`AuthenticateLayer`] makes of a service.
pub type Authenticate<S> = Gated<S, AuthenticateLayer>;

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for AuthenticateLayer {
    const NAME: &'static str = "authenticate";

    fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    fn pass(&self, exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Reject> {
        if exchange.canonical().is_none() {
            return Err(Reject::WIRING);
        }
        let refuse = |reason| Reject::new(Kind::Unauthenticated, reason);
        let token = match bearer(request.headers()).map_err(refuse)? {
            Some(token) => {
                let verified = exchange.revision.tokens.verify(token, self.mesh.clock().now());
                let verified = verified.map_err(|error| refuse(error.reason()))?;
                request.headers_mut().remove(AUTHORIZATION);
                Some(verified)
            }
            None => None,
        };
        let svid = exchange.connection.peer().svid.clone();
        exchange.set_principal(Principal::new(Caller { svid, token }))
    }
}

/// The one bearer token of a request. (RFC 6750 2.1; the scheme is case-insensitive, RFC 9110 11.1)
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("token_ambiguous");
    }
    let value = value.to_str().map_err(|_| "token_malformed")?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        // A proxy that joined two headers leaves `Basic x, Bearer y`: two credentials, of which we cannot choose.
        let hidden = value
            .split(',')
            .skip(1)
            .any(|part| part.trim_start().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer")));
        return if hidden { Err("token_ambiguous") } else { Ok(None) };
    }
    if token.is_empty() || token.contains([' ', ',', '\t']) { Err("token_malformed") } else { Ok(Some(token)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_in_one_form() {
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["Bearer a.b.c"], Ok(Some("a.b.c"))),
            (&["bEARER a.b.c"], Ok(Some("a.b.c"))),
            (&["Basic dTpw"], Ok(None)),
            (&["Bearer"], Err("token_malformed")),
            (&["Bearer "], Err("token_malformed")),
            (&["Bearer  a"], Err("token_malformed")),
            (&["Bearer a, Bearer b"], Err("token_malformed")),
            (&["Basic dTpw, Bearer b"], Err("token_ambiguous")),
            (&["Bearer a", "Bearer b"], Err("token_ambiguous")),
            (&["Basic a", "Bearer b"], Err("token_ambiguous")),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(bearer(&headers), expected, "{values:?}");
        }
    }
}
