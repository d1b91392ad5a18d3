//! Asks policy, and keeps the answer as a permit that outlives the response head.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{HeaderMap, Request};
use mesh_core::Mesh;
use mesh_core::policy::{self, Decision, Headers, PolicyEngine, Verdict};
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
fn decide(exchange: &Exchange, engine: &PolicyEngine, headers: &dyn Headers) -> Option<Decision> {
    let canonical = exchange.canonical()?;
    let principal = exchange.principal()?;
    let connection = &exchange.connection;
    Some(engine.decide(&policy::Request {
        peer: principal.spiffe_id(),
        token: principal.token.as_deref(),
        method: canonical.method(),
        path: canonical.path(),
        host: canonical.host(),
        port: connection.local_addr().port(),
        route: exchange.route().map(AsRef::as_ref),
        source_ip: Some(connection.peer().address.ip().to_canonical()),
        headers,
    }))
}

struct HeaderView<'a>(&'a HeaderMap);

impl Headers for HeaderView<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name) {
            each(value.as_bytes());
        }
    }
}

/// The headers of a request that its handler has consumed. Notes whether a policy wanted to see them.
#[derive(Default)]
struct HeadersGone(Cell<bool>);

impl Headers for HeadersGone {
    fn values(&self, _name: &str, _each: &mut dyn FnMut(&[u8])) {
        self.0.set(true);
    }
}

/// Whether a policy newer than the permit would not have let the request in.
///
/// A policy that reads headers, which are gone by now, revokes too: the caller may ask again and is judged anew.
pub(super) fn revoked(exchange: &Exchange) -> bool {
    let revisions = exchange.mesh.revision();
    if !exchange.permitted() || revisions.generation() == exchange.permit_generation() {
        return false;
    }
    let revision = revisions.load();
    let headers = HeadersGone::default();
    let decision = decide(exchange, &revision.policy, &headers);
    match decision {
        Some(decision) if decision.verdict == Verdict::Allow && !headers.0.get() => {
            exchange.renew_permit(revision.generation());
            false
        }
        decision => {
            let policy = decision.as_ref().and_then(|decision| decision.policy.as_deref()).unwrap_or("-");
            let rule = decision.as_ref().and_then(|decision| decision.rule).map_or(-1, i64::from);
            let reason = decision.as_ref().map_or("wiring", |decision| decision.reason.as_str());
            let peer_id = exchange.principal().map(ToString::to_string);
            let path = exchange.canonical().map(|canonical| canonical.path());
            tracing::info!(policy, rule, reason, peer_id, path, generation = revision.generation(), "permit revoked");
            exchange.mesh.metrics().server.streams_revoked.inc();
            true
        }
    }
}

/// Re-asks policy when a newer one is in force, for as long as a request or its response lasts.
///
/// Cheap while policy stands still: one atomic load for each frame. A wake-up is asked for only by who has to wait.
#[derive(Default)]
pub(super) struct Recheck {
    changed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Recheck {
    /// [`revoked`], and wakes the task at the next revision if not.
    pub(super) fn poll_revoked(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> bool {
        loop {
            let changed = self.changed.get_or_insert_with(|| {
                let mut changes = exchange.mesh.revision().subscribe();
                Box::pin(async move {
                    changes.changed().await;
                })
            });
            // Subscribed first, asked second: a revision published in between is seen by the question.
            if revoked(exchange) {
                return true;
            }
            match changed.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) => self.changed = None,
            }
        }
    }
}
