//! The last step before the handler: its context, its panics, and a permit that may be taken back.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use http::{Request, Response};
use mesh_core::Mesh;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::decompress::decompressed;
use super::exchange::{Exchange, unwired};
use super::permit::{Recheck, revoked};
use super::request_body::RequestBody;
use crate::context::RequestContext;
use crate::reject::{Kind, Reject};

pub(super) const PANICKED: Reject = Reject::new(Kind::Internal, "panic");

/// Runs the handler in its request's [`RequestContext`], and only with a permit.
///
/// A handler that panics answers 500 / INTERNAL and is counted. (tower-http's `CatchPanic` boxes every response body
/// and does not see panics inside of one; the stack's response body catches those.) A handler that still reads a
/// request stream when a newer policy would not let it in is dropped with 403 / PERMISSION_DENIED, with 401 /
/// UNAUTHENTICATED where its token ends; one whose request is complete may finish. One whose request body is beyond
/// `max_body_bytes`, as it came or decompressed, or slower than `body_timeout` allows, is dropped with 413 /
/// RESOURCE_EXHAUSTED or 408 / CANCELLED.
///
/// Where the listener says `decompress_requests`, the handler gets the body decompressed, and 415 is answered in its place
/// to an encoding that is not known.
///
/// # Position
/// Innermost, because the context must cover every poll of the handler and nothing else, and because nothing may come
/// between the permit and what it permits.
#[derive(Debug, Clone)]
pub struct HandlerLayer {
    mesh: Mesh,
}

impl HandlerLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for HandlerLayer {
    type Service = Handler<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Handler { inner, mesh: self.mesh.clone() }
    }
}

/// What [`HandlerLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Handler<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for Handler<S>
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
            return ResponseFuture::refused(unwired(&self.mesh, "handler", &request));
        };
        let Some(context) = exchange.context().filter(|_| exchange.awaits_handler()).cloned() else {
            return ResponseFuture::refused(exchange.refuse(Reject::WIRING));
        };
        // Nobody wrote down what is about to be done.
        if exchange.requires_audit()
            && !exchange.is_put_off()
            && exchange.ticket().is_none_or(|ticket| !ticket.is_written())
        {
            return ResponseFuture::refused(exchange.refuse(Reject::WIRING));
        }
        let request = match decompressed(request) {
            Ok(request) => request,
            Err(reject) => return ResponseFuture::refused(exchange.refuse(reject)),
        };
        exchange.begin_handling();
        // A body may still be coming when policy changes, whatever length was announced for it.
        let streaming = !request.body().is_end_stream();
        // What came in full under its announced length is a request like one without body.
        let read = request.body().size_hint().exact().filter(|_| streaming).map(|_| Arc::<AtomicBool>::default());
        let request = if streaming {
            request.map(|body| Body::new(RequestBody::new(body, Arc::clone(&exchange), read.clone())))
        } else {
            request
        };
        let inner = &mut self.inner;
        match context.sync_scope(|| catch_unwind(AssertUnwindSafe(|| inner.call(request)))) {
            Ok(future) => ResponseFuture {
                inner: Some(future),
                scope: Some((exchange, context)),
                recheck: streaming.then(Recheck::default),
                read,
                refused: None,
            },
            Err(_) => ResponseFuture::refused(panicked(&exchange)),
        }
    }
}

/// Counts a panic and refuses the request. The panic hook has printed the message.
fn panicked(exchange: &Exchange) -> Response<Body> {
    exchange.mesh.metrics().server.panics.inc();
    exchange.refuse(PANICKED)
}

pin_project! {
    /// The handler's response.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        scope: Option<(Arc<Exchange>, RequestContext)>,
        recheck: Option<Recheck>,
        // Whether a body of an announced length has come in full.
        read: Option<Arc<AtomicBool>>,
        refused: Option<Response<Body>>,
    }
}

impl<F> ResponseFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self { inner: None, scope: None, recheck: None, read: None, refused: Some(response) }
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
        let (Some(inner), Some((exchange, context))) = (this.inner.as_mut().as_pin_mut(), this.scope) else {
            return Poll::Pending;
        };
        if this.read.as_ref().is_some_and(|read| read.load(Relaxed)) {
            *this.recheck = None;
        }
        // Before the handler sees its request stream break, and answers that.
        if let Some(reject) = this.recheck.as_ref().and_then(|_| revoked(exchange)) {
            this.inner.set(None);
            return Poll::Ready(Ok(exchange.refuse(reject)));
        }
        let polled = context.sync_scope(|| catch_unwind(AssertUnwindSafe(|| inner.poll(cx))));
        // Whatever the handler makes of a body that was cut: its caller is told why.
        if let (Ok(_), Some(unfit)) = (&polled, exchange.unfit()) {
            this.inner.set(None);
            return Poll::Ready(Ok(exchange.refuse(Reject::unfit(unfit))));
        }
        match polled {
            Ok(Poll::Ready(response)) => Poll::Ready(response),
            Ok(Poll::Pending) => {
                if let Some(reject) = this.recheck.as_mut().and_then(|recheck| recheck.poll_revoked(exchange, cx)) {
                    this.inner.set(None);
                    return Poll::Ready(Ok(exchange.refuse(reject)));
                }
                Poll::Pending
            }
            Err(_) => {
                this.inner.set(None);
                Poll::Ready(Ok(panicked(exchange)))
            }
        }
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
