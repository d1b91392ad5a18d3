//! One span and one count for each call, however many attempts it takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::health::Outcome;
use mesh_core::rng::Rng;
use mesh_core::telemetry::ClusterMetrics;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::Body;
use super::call::{Observation, Observed};
use super::counting::Counting;
use crate::context::{RequestContext, TraceContext};
use crate::error::Error;
use crate::{classify, grpc};

/// Puts a span and metrics around each call.
///
/// Calls are counted by the cluster they were routed to and by how they ended for the caller: at the end of the body,
/// because gRPC tells its status there. The duration is taken at the headers.
///
/// # Position
///
/// The outermost: above `route`, because a call that no route takes must be counted, and above `retry`, because its
/// attempts are one call. It decides the trace that every attempt continues.
#[derive(Debug, Clone)]
pub struct TelemetryLayer {
    service: Arc<str>,
    rng: Rng,
    unrouted: Arc<ClusterMetrics>,
}

impl TelemetryLayer {
    /// For calls of `service`.
    pub fn new(mesh: &Mesh, service: &str) -> Self {
        Self { service: service.into(), rng: mesh.rng().clone(), unrouted: mesh.metrics().client.cluster(service) }
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = Telemetry<S>;

    fn layer(&self, inner: S) -> Telemetry<S> {
        Telemetry { layer: self.clone(), inner }
    }
}

/// The service of [`TelemetryLayer`].
#[derive(Debug, Clone)]
pub struct Telemetry<S> {
    layer: TelemetryLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Telemetry<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let TelemetryLayer { service, rng, unrouted } = &self.layer;
        let span = tracing::info_span!(
            "mesh.call",
            otel.kind = "client",
            rpc.service = &**service,
            http.method = %request.method(),
            url.path = request.uri().path(),
            http.status = tracing::field::Empty,
            error.kind = tracing::field::Empty,
            mesh.attempts = tracing::field::Empty,
        );
        let trace = match (TraceContext::of_current_span(), RequestContext::current()) {
            // A span of the handler's own may stand between the request and this call.
            (Some(outer), _) => TraceContext::of_inner_span(&span, &outer, rng),
            (None, Some(context)) => TraceContext::of_span(&span, Some(context.trace().clone()), rng),
            // The caller may have a tracer of its own.
            (None, None) => TraceContext::of_span(&span, TraceContext::from_headers(request.headers()), rng),
        };
        let observed = Observed(Arc::new(Observation { trace, metrics: OnceLock::new() }));
        let grpc = grpc::is_grpc(request.headers());
        request.extensions_mut().insert(observed.clone());
        let future = span.in_scope(|| self.inner.call(request));
        let counting = Counting::begin(observed, Arc::clone(unrouted));
        ResponseFuture { future, span, counting, service: Arc::clone(service), grpc }
    }
}

pin_project! {
    /// The future of [`Telemetry`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        span: Span,
        counting: Counting,
        service: Arc<str>,
        grpc: bool,
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let entered = this.span.enter();
        let result = ready!(this.future.as_mut().poll(cx));
        drop(entered);
        Poll::Ready(match result {
            Ok(mut response) => {
                this.span.record("http.status", response.status().as_u16());
                if let Some(attempts) = response.extensions().get::<super::Attempts>() {
                    this.span.record("mesh.attempts", attempts.len());
                }
                let class = classify::headers(*this.grpc, response.status(), response.headers());
                let outcome = class.map_or(Outcome::Success, |class| class.outcome);
                response.body_mut().guard_call(this.counting.answered(outcome));
                Ok(response)
            }
            Err(error) => {
                let error = error.of_service(this.service);
                this.span.record("error.kind", error.kind().as_str());
                this.span.record("mesh.attempts", error.attempts().len());
                tracing::debug!(parent: &*this.span, %error, "call failed");
                this.counting.failed(error.kind());
                Err(error)
            }
        })
    }
}
