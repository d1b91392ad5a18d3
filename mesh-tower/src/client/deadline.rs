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
use super::call::{CallTimeout, call, call_mut};
use super::future::CallOr;
use crate::context::RequestContext;
use crate::error::{Error, ErrorKind};
use crate::grpc;

/// Ends a call at the nearest of three.
///
/// The route's timeout, the caller's deadline, the call's own timeout.
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
        let due = match call(&request, "DeadlineLayer") {
            Ok(call) => due(&request, call.route.timeout, now),
            Err(error) => return CallOr::refused(error),
        };
        let (headers_by, whole_by) = (due.headers_by, due.whole_by());
        if headers_by.expired(now) {
            return CallOr::refused(passed());
        }
        let call = match call_mut(&mut request, "DeadlineLayer") {
            Ok(call) => call,
            Err(error) => return CallOr::refused(error),
        };
        call.headers_by = Some(headers_by);
        call.whole_by = whole_by;
        let (timer, body_by) = (sleep_until(headers_by.instant()), whole_by.map(Until::instant));
        let allowed = headers_by.remaining(now);
        call.allowed = allowed;
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
        Poll::Ready(Err(unanswered(*this.allowed)))
    }
}

/// When an answer becomes worthless, and by whose word.
pub(super) struct Due {
    /// The call's own.
    pub(super) own: Option<Until>,
    /// Of the request that is being answered.
    pub(super) inherited: Option<Until>,
    /// The nearest of all, the route's timeout included.
    pub(super) headers_by: Until,
}

impl Due {
    /// Of the whole answer.
    pub(super) fn whole_by(&self) -> Option<Until> {
        self.own.map(|own| own.nearest(self.inherited)).or(self.inherited)
    }
}

/// Of a call that is made `now` on a route with this timeout.
pub(super) fn due<B>(request: &Request<B>, timeout: std::time::Duration, now: Instant) -> Due {
    let own = match request.extensions().get::<CallTimeout>() {
        Some(timeout) => Some(timeout.0),
        None => request.headers().get(grpc::GRPC_TIMEOUT).and_then(grpc::parse_timeout),
    };
    let own = own.map(|timeout| Until::after(now, timeout));
    let inherited = RequestContext::current().and_then(|context| context.deadline());
    let due = Due { own, inherited, headers_by: Until::after(now, timeout) };
    Due { headers_by: due.headers_by.nearest(due.whole_by()), ..due }
}

/// The error of a call that comes too late.
pub(super) fn passed() -> Error {
    Error::new(ErrorKind::Timeout, "the deadline had passed before the request was sent").never_sent()
}

/// The call's time is up.
pub(super) fn unanswered(allowed: std::time::Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {allowed:?}"))
}
