//! Holds a request until its record is written, where the configuration says that none goes on without.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::audit::record;
use super::exchange::{Exchange, unwired};
use crate::reject::{Kind, Reject};

/// Holds a request of a `required` route until its audit record is written.
///
/// Only then it reaches its handler. Fails closed: 503 / UNAVAILABLE, reason `audit_unavailable`, after
/// `required_timeout` at the latest. (NIST SP 800-53 AU-5)
///
/// The record says that the request was let in, not yet how it ended: nothing can be undone when the answer is known. Any
/// other request passes at once.
///
/// # Position
/// Directly above the handler, so that the record says what every layer decided; below [`AuditLayer`](super::AuditLayer),
/// which adds how the request ended. Where it is missing, the handler's layer denies such requests with `wiring`.
#[derive(Debug, Clone)]
pub struct AuditedLayer {
    mesh: Mesh,
}

impl AuditedLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for AuditedLayer {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Audited { inner, mesh: self.mesh.clone() }
    }
}

/// What [`AuditedLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for Audited<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let refused = |response| ResponseFuture { state: State::Refused { response: Some(Box::new(response)) } };
        let Some(exchange) = Exchange::of(&request) else {
            return refused(unwired(&self.mesh, "audited", &request));
        };
        // Where policy waits for the route, so does the record of what it decides.
        if !exchange.requires_audit() || exchange.is_put_off() {
            return ResponseFuture { state: State::Inner { future: self.inner.call(request) } };
        }
        if !exchange.awaits_handler() {
            return refused(exchange.refuse(Reject::WIRING));
        }
        let written = match commit(&exchange) {
            Ok(written) => written,
            Err(reject) => return refused(exchange.refuse(reject)),
        };
        // The one that is ready goes with the request.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let held = Some(Box::new(Held { inner, request }));
        ResponseFuture { state: State::Waiting { written, held } }
    }
}

/// Begins to write the record of a request that was let in; ends when it is written, or with the refusal.
pub(super) fn commit(exchange: &Exchange) -> Result<Written, Reject> {
    let timeout = exchange.revision.config.audit.required_timeout;
    let (ticket, written) = exchange.mesh.audit().commit(record(exchange, 0, None), timeout);
    exchange.set_ticket(ticket)?;
    Ok(Box::pin(async move {
        written.await.map_err(|error| {
            tracing::debug!(%error, "the audit record of a request that needs one was not written");
            Reject::new(Kind::Overloaded, "audit_unavailable")
        })
    }))
}

type Written = Pin<Box<dyn Future<Output = Result<(), Reject>> + Send>>;

/// A request that may not go on yet.
struct Held<S> {
    inner: S,
    request: Request<Body>,
}

pin_project! {
    /// The response of the inner service, or the refusal.
    pub struct ResponseFuture<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Waiting { written: Written, held: Option<Box<Held<S>>> },
        Inner { #[pin] future: F },
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<S> Future for ResponseFuture<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let (written, held) = match state.as_mut().project() {
                StateProj::Inner { future } => return future.poll(cx),
                StateProj::Refused { response } => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
                }
                StateProj::Waiting { written, held } => (std::task::ready!(written.as_mut().poll(cx)), held.take()),
            };
            let Some(mut held) = held else { return Poll::Pending };
            let next = match written {
                Ok(()) => State::Inner { future: held.inner.call(held.request) },
                Err(reject) => {
                    let refuse = |exchange: std::sync::Arc<Exchange>| exchange.refuse(reject);
                    State::Refused { response: Exchange::of(&held.request).map(refuse).map(Box::new) }
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Request<Body>>> std::fmt::Debug for ResponseFuture<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
