//! One record for each request that reached a decision.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::audit::{AuditOutcome, AuditRecord};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::{Exchange, unwired};
use crate::grpc;
use crate::reject::Reject;

/// The status in the record of a request whose caller left before the response head. (nginx)
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Records every decided request exactly once, refusals included, when its response head is known.
///
/// Never holds a request up: a record that finds the queue full is dropped and counted. A request whose caller leaves
/// after the decision is recorded with status 499. Tokens, queries and bodies are never recorded.
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

/// The record to be: written with the response head, or on drop if the caller left after a decision.
#[derive(Debug)]
struct Entry(Option<Arc<Exchange>>);

impl Entry {
    fn write(&mut self, status: u16, grpc_status: Option<u8>) {
        if let Some(exchange) = self.0.take() {
            exchange.mesh.audit().record(record(&exchange, status, grpc_status));
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.0 {
            Some(exchange) if exchange.decision().is_some() || exchange.rejected().is_some() => {
                self.write(CLIENT_CLOSED_REQUEST, None);
            }
            _ => {}
        }
    }
}

fn record(exchange: &Exchange, status: u16, grpc_status: Option<u8>) -> AuditRecord {
    let (decision, reject) = (exchange.decision(), exchange.rejected());
    let (outcome, reason) = match (reject, decision) {
        (Some(reject), _) => (reject.outcome(), reject.reason),
        (None, Some(decision)) => (AuditOutcome::Allow, decision.reason.as_str()),
        (None, None) => (AuditOutcome::Deny, Reject::WIRING.reason),
    };
    let peer = exchange.connection.peer();
    let svid = peer.svid.as_deref();
    let token = exchange.principal().and_then(|principal| principal.token.as_deref());
    let canonical = exchange.canonical();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    let mut record = AuditRecord::new(exchange.mesh.clock().now(), outcome, reason, status);
    record.grpc_status = grpc_status;
    record.peer = svid.map(|svid| svid.id.as_str().into());
    record.peer_serial = svid.map(|svid| svid.serial.as_str().into());
    record.peer_address = Some(peer.address);
    record.forwarded = exchange.forwarded().map(|id| id.as_str().into());
    record.token_issuer = token.map(|token| Arc::clone(&token.issuer));
    record.token_subject = token.and_then(|token| token.subject.clone());
    record.service = exchange.mesh.identity().peek().svid().map(|svid| svid.id().as_str().into());
    record.method = text(canonical.map(|canonical| canonical.method()));
    record.host = text(canonical.map(|canonical| canonical.host()));
    record.path = text(canonical.map(|canonical| canonical.path()));
    record.route = exchange.route().cloned();
    record.policy = decision.and_then(|decision| decision.policy.clone());
    record.rule = decision.and_then(|decision| decision.rule);
    record.generation = exchange.revision.generation();
    record.trace_id = Some(exchange.trace.trace_id_hex());
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
