//! What each attempt gets of its own: a time limit, a span, and the headers that tell the endpoint about both.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response};
use mesh_core::Mesh;
use mesh_core::deadline::Deadline;
use mesh_core::rng::Rng;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::Body;
use super::call::{Observed, call};
use super::future::CallOr;
use crate::context::TraceContext;
use crate::error::{Error, ErrorKind};
use crate::grpc;

/// How long the caller waits for an HTTP answer. (Envoy)
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Bounds one attempt, and passes on what remains of the deadline and the trace.
///
/// HTTP endpoints are told when the headers are due, in `x-envoy-expected-rq-timeout-ms`. gRPC endpoints are told in
/// `grpc-timeout` when the whole call is due, which bounds their stream too; so a route's timeout, which ends at the
/// headers, is not written there: it would cut every long stream.
///
/// # Position
///
/// Below `balance`, which must learn that this endpoint was too slow; above `pool`, because waiting for a connection
/// is part of the attempt.
#[derive(Debug, Clone)]
pub struct EndpointLayer {
    rng: Rng,
}

impl EndpointLayer {
    /// Takes its settings from the call.
    pub fn new(mesh: &Mesh) -> Self {
        Self { rng: mesh.rng().clone() }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self { rng: Rng::seeded(7) }
    }
}

impl<S> Layer<S> for EndpointLayer {
    type Service = Endpoint<S>;

    fn layer(&self, inner: S) -> Endpoint<S> {
        Endpoint { rng: self.rng.clone(), inner }
    }
}

/// The service of [`EndpointLayer`].
#[derive(Debug, Clone)]
pub struct Endpoint<S> {
    rng: Rng,
    inner: S,
}

impl<S> Endpoint<S> {
    /// Writes the headers; returns the attempt's own time limit and its span.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<(Option<Duration>, Span), Error> {
        let call = call(request, "EndpointLayer")?;
        let now = Instant::now();
        let limit = call.route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
        let left = told(call.grpc, call.headers_by, call.whole_by, limit, now);
        if left.is_some_and(|left| left.is_zero()) {
            let error = Error::new(ErrorKind::Timeout, "the deadline passed before the attempt was sent");
            return Err(error.never_sent());
        }
        let grpc = call.grpc;
        let span = tracing::info_span!(
            "mesh.attempt",
            otel.kind = "client",
            mesh.route = &*call.route.name,
            mesh.cluster = &*call.route.cluster,
        );
        let trace = match request.extensions().get::<Observed>() {
            Some(Observed(observation)) => TraceContext::of_inner_span(&span, &observation.trace, &self.rng),
            None => TraceContext::of_span(&span, None, &self.rng),
        };
        let headers = request.headers_mut();
        trace.write_to(headers);
        match left {
            Some(left) if grpc => {
                headers.insert(grpc::GRPC_TIMEOUT, grpc::format_timeout(left));
            }
            // Rounded down, but never to 0, which Envoy reads as "no timeout".
            Some(left) => {
                let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
                headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(ms));
            }
            None => {
                headers.remove(grpc::GRPC_TIMEOUT);
            }
        }
        Ok((limit, span))
    }
}

/// How long the endpoint is told that its caller waits; `limit` is that of one attempt.
pub(super) fn told(
    grpc: bool,
    headers_by: Option<Deadline>,
    whole_by: Option<Deadline>,
    limit: Option<Duration>,
    now: Instant,
) -> Option<Duration> {
    if grpc {
        return whole_by.map(|due| due.remaining(now));
    }
    let left = headers_by?.remaining(now);
    Some(limit.map_or(left, |limit| left.min(limit)))
}

impl<S, B> Service<Request<B>> for Endpoint<S>
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
        match self.prepare(&mut request) {
            Ok((limit, span)) => {
                let future = span.in_scope(|| self.inner.call(request));
                CallOr::call(ResponseFuture { future, timer: limit.map(sleep), limit, span })
            }
            Err(error) => CallOr::refused(error),
        }
    }
}

pin_project! {
    /// The future of [`Endpoint`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        #[pin]
        timer: Option<Sleep>,
        limit: Option<Duration>,
        span: Span,
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        if let Poll::Ready(result) = this.future.poll(cx) {
            return Poll::Ready(result);
        }
        match this.timer.as_pin_mut() {
            Some(timer) => ready!(timer.poll(cx)),
            None => return Poll::Pending,
        }
        let message = format!("the attempt was not answered within {:?}", this.limit.unwrap_or_default());
        Poll::Ready(Err(Error::new(ErrorKind::Timeout, message)))
    }
}
