//! Asks policy. What it lets in keeps a permit, which may be taken back: see `permit`.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Request};
use mesh_core::Mesh;
use mesh_core::policy::{self, Decision, Headers, PolicyEngine, Protocol, Verdict};
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use crate::reject::{Kind, Reject};

/// Lets a request on if policy allows it; else 403 / PERMISSION_DENIED, or 401 / UNAUTHENTICATED where only a token
/// was missing. Fails closed: no policy denies unless the configuration says otherwise.
///
/// A denial names policy, rule and reason in log, metric and audit record, and tells the caller nothing.
///
/// # Position
/// Below authentication, whose principal it judges; above the rate limit, so that only callers who may call spend quota.
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    mesh: Mesh,
}

impl AuthorizeLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

/// What [`AuthorizeLayer`] makes of a service.
pub type Authorize<S> = Gated<S, AuthorizeLayer>;

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for AuthorizeLayer {
    const NAME: &'static str = "authorize";

    fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    fn pass(&self, exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Reject> {
        let headers = HeaderView(request.headers());
        let decision = decide(exchange, &exchange.revision.policy, &headers).ok_or(Reject::WIRING)?;
        let denied = (decision.verdict == Verdict::Deny).then(|| {
            let kind = if decision.token_would_help { Kind::Unauthenticated } else { Kind::Forbidden };
            Reject::new(kind, decision.reason.as_str())
        });
        exchange.set_decision(decision)?;
        if let Some(reject) = denied {
            return Err(reject);
        }
        if let Some(principal) = exchange.principal().filter(|principal| !principal.is_anonymous()) {
            request.extensions_mut().insert(principal.clone());
        }
        Ok(())
    }
}

/// What `engine` says of the request; `None` if a layer above did not do its part.
pub(super) fn decide(exchange: &Exchange, engine: &PolicyEngine, headers: &dyn Headers) -> Option<Decision> {
    let canonical = exchange.canonical()?;
    let principal = exchange.principal()?;
    let connection = &exchange.connection;
    let (path, resolved_path) = canonical.readings();
    let source_ip = Some(connection.peer().address.ip().to_canonical());
    Some(engine.decide(&policy::Request {
        peer: principal.spiffe_id(),
        token: principal.token.as_deref(),
        method: canonical.method(),
        path,
        resolved_path,
        host: canonical.host(),
        port: connection.local_addr().port(),
        route: exchange.route().map(AsRef::as_ref),
        protocol: if exchange.grpc { Protocol::Grpc } else { Protocol::Http },
        source_ip,
        // No proxy is trusted to name another: who connects is the client.
        remote_ip: source_ip,
        destination_ip: Some(connection.local_addr().ip().to_canonical()),
        // Clients of the mesh send none, and what others send decides nothing here.
        sni: None,
        headers,
    }))
}

/// Headers as policy asks for them.
pub(crate) struct HeaderView<'a>(pub(crate) &'a HeaderMap);

impl Headers for HeaderView<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name) {
            each(value.as_bytes());
        }
    }
}
