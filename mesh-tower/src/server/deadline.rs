//! Stops working for a caller that has stopped waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::deadline::Deadline;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::{Exchange, unwired};
use crate::reject::{Kind, Reject};

/// Refuses expired requests, and drops the handler when the deadline passes.
///
/// Before any work; 504 / DEADLINE_EXCEEDED.
///
/// Only the caller sets a deadline; without one nothing is bounded here. A gRPC response that has begun is cut at the
/// deadline by the stack's response body; an HTTP response that has begun may finish, because what HTTP callers send
/// covers the response head.
///
/// # Position
/// Below the canonical request, which reads the deadline; above authentication, so that expired work costs no signature
/// check.
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    mesh: Mesh,
}

const EXPIRED: Reject = Reject::new(Kind::Expired, "deadline_exceeded");

impl DeadlineLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, mesh: self.mesh.clone() }
    }
}

/// What [`DeadlineLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for DeadlineService<S>
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
        let Some(exchange) = Exchange::of(&request) else {
            return ResponseFuture::refused(unwired(&self.mesh, "deadline", &request));
        };
        let deadline = match exchange.context() {
            Some(context) if exchange.principal().is_none() => context.deadline(),
            _ => return ResponseFuture::refused(exchange.refuse(Reject::WIRING)),
        };
        if deadline.is_some_and(|deadline| deadline.expired(Instant::now())) {
            return ResponseFuture::refused(exchange.refuse(EXPIRED));
        }
        ResponseFuture {
            inner: Some(self.inner.call(request)),
            expiry: expiry(deadline),
            exchange: Some(exchange),
            refused: None,
        }
    }
}

pin_project! {
    /// The response of the inner service, or the refusal once the deadline has passed.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        #[pin]
        expiry: Option<Sleep>,
        exchange: Option<Arc<Exchange>>,
        refused: Option<Response<Body>>,
    }
}

impl<F> ResponseFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self { inner: None, expiry: None, exchange: None, refused: Some(response) }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(response) = this.refused.take() {
            return Poll::Ready(Ok(response));
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Pending };
        if let Poll::Ready(response) = inner.poll(cx) {
            return Poll::Ready(response);
        }
        let expired = this.expiry.as_pin_mut().is_some_and(|expiry| expiry.poll(cx).is_ready());
        match this.exchange {
            Some(exchange) if expired => {
                this.inner.set(None);
                Poll::Ready(Ok(exchange.refuse(EXPIRED)))
            }
            _ => Poll::Pending,
        }
    }
}

/// A timer for what is left of `deadline`.
pub(super) fn expiry(deadline: Option<Deadline>) -> Option<Sleep> {
    deadline.map(|deadline| sleep_until(deadline.instant()))
}
