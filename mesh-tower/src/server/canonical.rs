//! Gives each request one reading or refuses it, and takes from the others what a caller may not say.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request};
use mesh_core::Mesh;
use mesh_core::deadline::Deadline;
use tower_layer::Layer;

use super::exchange::Exchange;
use super::forwarded;
use super::gate::{Gate, Gated};
use crate::canonical::{Canonical, strip};
use crate::connection::Unreadable;
use crate::context::RequestContext;
use crate::grpc;
use crate::reject::{Kind, Reject};

/// How long the caller of an HTTP request waits, in milliseconds. (Envoy, `config_http_filters_router`)
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Gives a request one reading, or answers 400 (gRPC: UNIMPLEMENTED). Fails closed.
///
/// Which reading, `authorization.canonical` says: [`Canonicalization`](mesh_core::policy::canonical::Canonicalization). In
/// Istio's modes the request goes on with its path rewritten.
///
/// A request that declares a longer body than `max_body_bytes` is answered with 413 before anybody reads of it, one whose
/// headers are beyond `max_headers` or `max_header_bytes` with 431.
///
/// Also reads the caller's deadline, which can only shorten what holds anyway, and whom a gateway of the listener's
/// `forwarded_identity` names, and removes every header that claims an identity or steers the mesh.
///
/// # Position
/// Below telemetry and audit, so that refusals are counted and recorded; above everything else, because all later
/// decisions, labels and logs use what it read.
#[derive(Debug, Clone)]
pub struct CanonicalLayer {
    mesh: Mesh,
}

impl CanonicalLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

/// What [`CanonicalLayer`] makes of a service.
pub type CanonicalService<S> = Gated<S, CanonicalLayer>;

impl<S> Layer<S> for CanonicalLayer {
    type Service = CanonicalService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for CanonicalLayer {
    const NAME: &'static str = "canonical";

    fn mesh(&self) -> Option<&Mesh> {
        Some(&self.mesh)
    }

    fn pass(&self, exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Reject> {
        if let Some(Unreadable(reason)) = request.extensions().get() {
            return Err(exchange.unfit().map_or(Reject::new(Kind::Unreadable, reason), Reject::unfit));
        }
        let malformed = |reason| Reject::new(Kind::Malformed, reason);
        let mode = exchange.revision.config.canonical;
        let read = Canonical::of(request, exchange.grpc, mode);
        let read = read.and_then(|canonical| Ok((canonical, timeout(request.headers())?)));
        let named = forwarded::client(exchange, request.headers());
        strip(request.headers_mut());
        let (canonical, timeout) = read.map_err(malformed)?;
        let named = named?;
        if request.uri() != canonical.uri() {
            request.uri_mut().clone_from(canonical.uri());
        }
        let deadline = timeout.map(|timeout| Deadline::after(exchange.started, timeout));
        let peer = exchange.connection.peer().svid.as_ref().map(|svid| svid.id.clone());
        if let Some(client) = &named {
            tracing::Span::current().record("mesh.forwarded", client.as_str());
            exchange.set_forwarded(client.clone())?;
        }
        let caller = named.or(peer);
        let context = RequestContext::of_request(exchange.trace.clone(), deadline, caller);
        tracing::Span::current().record("url.path", canonical.path());
        exchange.set_canonical(canonical, context)?;
        exchange.unfit().map_or(Ok(()), |unfit| Err(Reject::unfit(unfit)))
    }
}

/// The nearer of the two ways to say how long the caller waits.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, &'static str> {
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err("timeout"),
        }
    };
    let grpc = one(&grpc::GRPC_TIMEOUT)?.map(|value| grpc::parse_timeout(value).ok_or("timeout")).transpose()?;
    let millis = |value: &http::HeaderValue| {
        let digits = value.to_str().ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok().map(Duration::from_millis)
    };
    let http = one(&EXPECTED_TIMEOUT)?.map(|value| millis(value).ok_or("timeout")).transpose()?;
    Ok(match (grpc, http) {
        (Some(grpc), Some(http)) => Some(grpc.min(http)),
        (grpc, http) => grpc.or(http),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_says_how_long_it_waits_once_and_plainly() {
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&[("grpc-timeout", "250m")], Ok(Some(250))),
            (&[("x-envoy-expected-rq-timeout-ms", "100")], Ok(Some(100))),
            (&[("x-envoy-expected-rq-timeout-ms", "100"), ("grpc-timeout", "1S")], Ok(Some(100))),
            (&[("grpc-timeout", "1S"), ("grpc-timeout", "2S")], Err("timeout")),
            (&[("grpc-timeout", "soon")], Err("timeout")),
            (&[("x-envoy-expected-rq-timeout-ms", "-1")], Err("timeout")),
            (&[("x-envoy-expected-rq-timeout-ms", "")], Err("timeout")),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(timeout(&headers), expected.map(|millis| millis.map(Duration::from_millis)), "{lines:?}");
        }
    }
}
