//! One record for each request: of its decision, or of its caller's leaving before there was one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::audit::{AuditEvent, AuditOutcome, AuditRecord, Ticket};
use mesh_core::policy::Verdict;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::{Exchange, unwired};
use crate::grpc;
use crate::reject::Reject;

/// The status in the record of a request whose caller left before the response head. (nginx)
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Records every request exactly once, refusals included, when its response head is known.
///
/// Never holds a request up: a record that finds the queue full is dropped and counted. A request whose caller leaves
/// after the decision is recorded with status 499. One whose caller leaves before it - while an external authorizer is
/// asked, or a key looked up - has reached no handler: its outcome is `reject`, its reason `cancelled`, its status 499. Where [`AuditedLayer`](super::AuditedLayer) had to have the record
/// written before the handler, the status follows in an event `request.end`. Tokens, queries and bodies are never
/// recorded.
///
/// # Position
/// Directly below telemetry, which starts the exchange; above everything that may refuse.
#[derive(Debug, Clone)]
pub struct AuditLayer {
    mesh: Mesh,
}

impl AuditLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Audit { inner, mesh: self.mesh.clone() }
    }
}

/// What [`AuditLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Audit<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for Audit<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let exchange = match Exchange::of(&request) {
            None => return ResponseFuture::refused(unwired(&self.mesh, "audit", &request)),
            // Below a layer that may refuse, refusals would go unrecorded.
            Some(exchange) if exchange.canonical().is_some() => {
                return ResponseFuture::refused(exchange.refuse(Reject::WIRING));
            }
            Some(exchange) => exchange,
        };
        let entry = Entry(Some(exchange));
        ResponseFuture { inner: Some(self.inner.call(request)), refused: None, entry }
    }
}

/// The record to be: written with the response head, or on drop if the caller left.
#[derive(Debug)]
struct Entry(Option<Arc<Exchange>>);

impl Entry {
    fn write(&mut self, status: u16, grpc_status: Option<u8>) {
        let Some(exchange) = self.0.take() else { return };
        let audit = exchange.mesh.audit();
        match exchange.ticket() {
            Some(ticket) if !ticket.withdraw() => audit.event(end(&exchange, ticket, status, grpc_status)),
            _ => audit.record(record(&exchange, status, grpc_status)),
        }
    }
}

/// What came of a request whose record says only that it was let in.
fn end(exchange: &Exchange, ticket: &Ticket, status: u16, grpc_status: Option<u8>) -> AuditEvent {
    let event = AuditEvent::new(exchange.mesh.clock().now(), AuditEvent::REQUEST_END);
    let event = event.text("request", &ticket.id().to_string()).number("status", status.into());
    let event = grpc_status.into_iter().fold(event, |event, status| event.number("grpc_status", status.into()));
    let event = exchange.rejected().into_iter().fold(event, |event, reject| event.text("reason", reject.reason));
    exchange.denier().into_iter().fold(event, |event, denier| event.text("policy", denier))
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(exchange) = &self.0 else { return };
        if exchange.decision().is_none() {
            // Counted and logged, unless something else refused it first. Nobody is there to read the answer.
            drop(exchange.refuse(Reject::CANCELLED));
        }
        self.write(CLIENT_CLOSED_REQUEST, None);
    }
}

/// What is known of the request now. `status` is 0 while it has no answer.
pub(super) fn record(exchange: &Exchange, status: u16, grpc_status: Option<u8>) -> AuditRecord {
    let (decision, reject) = (exchange.decision(), exchange.rejected());
    let (outcome, reason) = match (reject, decision) {
        (Some(reject), _) => (reject.outcome(), reject.reason),
        (None, Some(decision)) => (AuditOutcome::Allow, decision.reason.as_str()),
        (None, None) => (AuditOutcome::Deny, Reject::WIRING.reason),
    };
    let (connection, canonical) = (&exchange.connection, exchange.canonical());
    let said = connection.audit();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    let mut record = AuditRecord::new(exchange.mesh.clock().now(), outcome, reason, status);
    record.grpc_status = grpc_status;
    record.peer = said.peer.clone();
    record.peer_serial = said.serial.clone();
    record.peer_address = Some(connection.peer().address);
    record.origin = Some(Arc::clone(&said.origin));
    record.forwarded = exchange.forwarded().map(|id| id.as_str().into());
    if let Some(token) = exchange.principal().and_then(|principal| principal.token.as_ref()) {
        record.set_token(Arc::clone(token));
    }
    record.method = text(canonical.map(|canonical| canonical.method()));
    record.host = text(canonical.map(|canonical| canonical.host()));
    record.path = text(canonical.map(|canonical| canonical.path()));
    if canonical.is_none() {
        record.set_raw_path(exchange.target.path());
    }
    record.route = exchange.route().cloned();
    record.policy = exchange.denier().or(decision.and_then(|decision| decision.policy.as_ref())).cloned();
    record.rule = decision.and_then(|decision| decision.rule).filter(|_| exchange.denier().is_none());
    record.audit_policies = decision.map(|decision| decision.audit.clone()).unwrap_or_default();
    if let Some(trial) = decision.and_then(|decision| decision.dry_run.as_deref()) {
        record.dry_run = Some(match trial.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        });
        record.dry_run_policy = trial.matched.first().map(|matched| Arc::clone(&matched.policy));
    }
    record.generation = exchange.revision.generation();
    record.request_id = exchange.request_id.as_deref().map(str::to_owned);
    record.trace_id = Some(exchange.trace.trace_id_hex());
    record.span_id = Some(format!("{:016x}", exchange.trace.span_id()));
    record
}

pin_project! {
    /// The response of the inner service, recorded.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Response<Body>>,
        entry: Entry,
    }
}

impl<F> ResponseFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self { inner: None, refused: Some(response), entry: Entry(None) }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(response) = this.refused.take() {
            return Poll::Ready(Ok(response));
        }
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Pending };
        let mut response = ready!(inner.poll(cx))?;
        if let Some(exchange) = &this.entry.0 {
            response = exchange.settle(response);
            let grpc_status = if exchange.grpc { grpc::status(response.headers()) } else { None };
            this.entry.write(response.status().as_u16(), grpc_status.map(|code| code.0));
        }
        Poll::Ready(Ok(response))
    }
}
