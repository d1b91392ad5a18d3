//! Sees every request first and last: a span, a count, a latency.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use http::{Method, Request, Response};
use mesh_core::Mesh;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;
use tracing::field::Empty;

use super::exchange::{Exchange, unwired};
use super::flight::{Flight, method_class};
use super::response_body::ResponseBody;
use crate::connection::Connection;
use crate::context::TraceContext;
use crate::reject::Reject;

/// Starts the exchange of a request, and a span, and counts how it ended.
///
/// Fails open: nothing here refuses, except a request without a [`Connection`], and a response that nobody decided on.
///
/// Labels are bounded: method class, route template, status class, gRPC status. The latency reaches to the end of the
/// response body.
///
/// # Position
/// Outermost, so that refusals of all others are seen; below the accept loop, which says who is connected.
#[derive(Debug, Clone)]
pub struct TelemetryLayer {
    mesh: Mesh,
}

impl TelemetryLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = Telemetry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Telemetry { inner, mesh: self.mesh.clone() }
    }
}

/// What [`TelemetryLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Telemetry<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for Telemetry<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(exchange) = Exchange::of(&request) {
            // A stack within a stack: the outer one would take the inner one's decisions for its own.
            return ResponseFuture::refused(exchange.refuse(Reject::WIRING));
        }
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return ResponseFuture::refused(unwired(&self.mesh, "telemetry", &request));
        };
        let span = span(&connection, request.method());
        let trace = TraceContext::of_span(&span, TraceContext::from_headers(request.headers()), self.mesh.rng());
        span.record("trace_id", format_args!("{:032x}", trace.trace_id()));
        span.record("span_id", format_args!("{:016x}", trace.span_id()));
        let exchange = Exchange::begin(&self.mesh, connection, trace, &request);
        let flight = Flight::begin(Arc::clone(&exchange), request.method(), span.clone());
        request.extensions_mut().insert(exchange);
        let inner = span.in_scope(|| self.inner.call(request));
        ResponseFuture { inner: Some(inner), span, flight: Some(flight), refused: None }
    }
}

/// Attribute names are those of OpenTelemetry's semantic conventions for HTTP and RPC.
fn span(connection: &Connection, method: &Method) -> Span {
    let peer = connection.peer();
    tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        http.request.method = method_class(method),
        http.route = Empty,
        http.response.status_code = Empty,
        rpc.grpc.status_code = Empty,
        url.path = Empty,
        network.peer.address = %peer.address.ip(),
        mesh.forwarded = Empty,
        mesh.peer = peer.svid.as_deref().map(|svid| svid.id.as_str()),
        trace_id = Empty,
        span_id = Empty,
    )
}

pin_project! {
    /// The response of the inner service, watched to its end.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        span: Span,
        flight: Option<Flight>,
        refused: Option<Response<Body>>,
    }
}

impl<F> ResponseFuture<F> {
    fn refused(response: Response<Body>) -> Self {
        Self { inner: None, span: Span::none(), flight: None, refused: Some(response) }
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
        let response = ready!(this.span.in_scope(|| inner.poll(cx)))?;
        let Some(mut flight) = this.flight.take() else { return Poll::Pending };
        let response = flight.exchange.settle(response);
        flight.head(&response);
        if response.body().is_end_stream() {
            return Poll::Ready(Ok(response));
        }
        Poll::Ready(Ok(response.map(|body| Body::new(ResponseBody::new(body, flight)))))
    }
}
