//! The shape that most layers share: look at the request, then let it on or refuse it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::exchange::{Exchange, unwired};
use crate::reject::Reject;

/// One check on the way of a request. Never waits, so there is nothing to cancel.
pub(crate) trait Gate {
    /// For the log, when it stands in the wrong place.
    const NAME: &'static str;

    /// Who counts it; a layer that stands in a router alone may know none.
    fn mesh(&self) -> Option<&Mesh>;

    fn pass(&self, exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Reject>;
}

/// A service behind one check of the mesh.
///
/// Named by the layer that put it there.
///
/// Ready when the inner service is. A refused request never reaches it.
#[derive(Debug, Clone)]
pub struct Gated<S, G> {
    inner: S,
    gate: G,
}

impl<S, G> Gated<S, G> {
    pub(super) fn new(inner: S, gate: G) -> Self {
        Self { inner, gate }
    }
}

impl<S, G> Service<Request<Body>> for Gated<S, G>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    G: Gate,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(exchange) = Exchange::of(&request) else {
            return ResponseFuture::refused(unwired(self.gate.mesh(), G::NAME, &request));
        };
        match self.gate.pass(&exchange, &mut request) {
            Ok(()) => ResponseFuture { state: State::Inner { future: self.inner.call(request) } },
            Err(reject) => ResponseFuture::refused(exchange.refuse(reject)),
        }
    }
}

pin_project! {
    /// The response of the inner service, or the refusal.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Inner { #[pin] future: F },
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<F> ResponseFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self { state: State::Refused { response: Some(Box::new(response)) } }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => Poll::Ready(ready!(future.poll(cx))),
            // Polled again after it was ready: a future may then stay pending for ever.
            StateProj::Refused { response } => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)))
            }
        }
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
