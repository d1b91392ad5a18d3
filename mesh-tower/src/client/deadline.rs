//! Bounds the whole call, and never sends what would come too late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use mesh_core::deadline::Deadline as Until;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::call::{CallTimeout, call_mut};
use super::future::CallOr;
use crate::context::RequestContext;
use crate::error::{Error, ErrorKind};
use crate::grpc;

/// Ends a call at the nearest of three: the route's timeout, the caller's deadline, the call's own timeout.
///
/// The route's timeout covers everything up to the response headers. The caller's deadline
/// ([`RequestContext::deadline`]) and the call's own timeout ([`CallTimeout`], or `grpc-timeout` as a gRPC client sets
/// it) cover the response body too: whoever asked for them waits no longer. A call whose deadline has passed already is
/// not sent.
///
/// # Position
///
/// Below `route`, which knows the timeout; above `retry`, because all attempts and the waits between them share one
/// deadline.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer(());

impl DeadlineLayer {
    /// Takes everything from the call.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallOr<ResponseFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let own = match request.extensions().get::<CallTimeout>() {
            Some(timeout) => Some(timeout.0),
            None => request.headers().get(grpc::GRPC_TIMEOUT).and_then(grpc::parse_timeout),
        };
        let own = own.map(|timeout| Until::after(now, timeout));
        let inherited = RequestContext::current().and_then(|context| context.deadline());
        let whole_by = own.map(|own| own.nearest(inherited)).or(inherited);
        let call = match call_mut(&mut request, "DeadlineLayer") {
            Ok(call) => call,
            Err(error) => return CallOr::refused(error),
        };
        let headers_by = Until::after(now, call.route.timeout).nearest(whole_by);
        if headers_by.expired(now) {
            let error = Error::new(ErrorKind::Timeout, "the deadline had passed before the call was made");
            return CallOr::refused(error.never_sent());
        }
        call.headers_by = Some(headers_by);
        call.whole_by = whole_by;
        let (timer, body_by) = (sleep_until(headers_by.instant()), whole_by.map(Until::instant));
        let allowed = headers_by.remaining(now);
        CallOr::call(ResponseFuture { future: self.inner.call(request), timer, allowed, body_by })
    }
}

pin_project! {
    /// The future of [`Deadline`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        #[pin]
        timer: Sleep,
        allowed: std::time::Duration,
        body_by: Option<Instant>,
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // First: an answer that comes with the deadline is an answer.
        if let Poll::Ready(mut result) = this.future.poll(cx) {
            if let (Ok(response), Some(body_by)) = (&mut result, *this.body_by) {
                response.body_mut().set_deadline(body_by);
            }
            return Poll::Ready(result);
        }
        ready!(this.timer.poll(cx));
        let message = format!("no answer within {:?}", this.allowed);
        Poll::Ready(Err(Error::new(ErrorKind::Timeout, message)))
    }
}
