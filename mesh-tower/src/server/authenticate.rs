//! Turns what the handshake, a pinned gateway and the token say into one caller.

use std::sync::Arc;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use mesh_core::Mesh;
use mesh_core::identity::Principal as Caller;
use mesh_core::token::{TokenError, bearer};
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use crate::principal::Principal;
use crate::reject::{Kind, Reject};

/// Verifies the bearer token, if there is one, and makes the request's one principal.
///
/// No token passes as the certificate's identity alone. Any bad token, also one of an issuer that nobody configured,
/// is 401 / UNAUTHENTICATED: a token that is ignored is a hole (ISTIO-SECURITY-2021-001). A good token is removed from
/// the request, so that no handler forwards it by accident. `Authorization` with another scheme is the handler's.
///
/// A request over plaintext is 403 / PERMISSION_DENIED once its listener is strict, whatever its connection does.
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

impl AuthenticateLayer {
    /// Whether the request came in plaintext, and its listener is strict by now. Its connection is asked to go then, and may
    /// take its time.
    fn too_late_for_plaintext(&self, exchange: &Exchange) -> bool {
        let connection = &exchange.connection;
        let listener = exchange.revision.config.listeners.get(connection.listener());
        connection.peer().svid.is_none()
            && listener.is_none_or(|listener| listener.mtls.plaintext_until(self.mesh.clock().now()).is_none())
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
        if self.too_late_for_plaintext(exchange) {
            return Err(Reject::new(Kind::Forbidden, "permissive_ended"));
        }
        let refuse = |error: TokenError| Reject::new(Kind::Unauthenticated, error.reason());
        let values = request.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let token = match bearer(values).map_err(refuse)? {
            Some(token) => {
                let verified = exchange.revision.tokens.verify(token, self.mesh.clock().now());
                let verified = verified.map_err(refuse)?;
                request.headers_mut().remove(AUTHORIZATION);
                Some(verified)
            }
            None => None,
        };
        let svid = exchange.connection.peer().svid.clone();
        exchange.set_principal(Principal::new(Caller::new(svid, exchange.forwarded().cloned(), token)))
    }
}
