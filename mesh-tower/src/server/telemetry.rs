//! Sees every request first and last: a span, a count, a latency.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use mesh_core::Mesh;
use mesh_core::telemetry::RequestLabels;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;
use tracing::field::Empty;

use super::exchange::{Exchange, unwired};
use super::response_body::ResponseBody;
use crate::connection::Connection;
use crate::context::TraceContext;
use crate::grpc::{self, Code};
use crate::reject::Reject;

/// Starts the exchange of a request, and a span, and counts how it ended. Fails open: nothing here refuses, except a
/// request without a [`Connection`], and a response that nobody decided on.
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
        mesh.peer = peer.svid.as_deref().map(|svid| svid.id.as_str()),
        trace_id = Empty,
        span_id = Empty,
    )
}

/// A request on its way: counted when its response has ended or its caller is gone, whichever comes first.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) exchange: Arc<Exchange>,
    span: Span,
    method: &'static str,
    status: Option<StatusCode>,
    code: Option<Code>,
}

impl Flight {
    fn begin(exchange: Arc<Exchange>, method: &Method, span: Span) -> Self {
        exchange.mesh.metrics().server.in_flight.inc();
        Self { exchange, span, method: method_class(method), status: None, code: None }
    }

    fn head(&mut self, response: &Response<Body>) {
        self.status = Some(response.status());
        self.trailers(response.headers());
    }

    /// Notes the status of a gRPC call, wherever it stands.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.exchange.grpc {
            self.code = grpc::status(trailers).or(self.code);
        }
    }

    fn labels(&self) -> RequestLabels {
        let exchange = &self.exchange;
        let grpc_status = match (exchange.grpc, self.code) {
            (true, Some(code)) => code.as_str(),
            (true, None) => Code::CANCELLED.as_str(),
            (false, _) => "-",
        };
        // A method that the handler knew is a bounded label, one that it did not know may be anything.
        let known = exchange.grpc && exchange.rejected().is_none() && self.code != Some(Code::UNIMPLEMENTED);
        let route = match exchange.canonical().filter(|_| known && self.code.is_some()) {
            Some(canonical) => Arc::from(canonical.path()),
            None => exchange.route().cloned().unwrap_or_else(|| Arc::from("-")),
        };
        RequestLabels { method: self.method, route, status: status_class(self.status), grpc_status }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let exchange = &self.exchange;
        exchange.release();
        let labels = self.labels();
        let server = &exchange.mesh.metrics().server;
        server.in_flight.dec();
        server.finished(&labels, exchange.started.elapsed());
        if !self.span.is_disabled() {
            self.span.record("otel.name", format_args!("{} {}", labels.method, labels.route));
            self.span.record("http.route", &*labels.route);
            if let Some(status) = self.status {
                self.span.record("http.response.status_code", status.as_u16());
                if status.is_server_error() {
                    self.span.record("otel.status_code", "ERROR");
                }
            }
            if let Some(code) = self.code {
                self.span.record("rpc.grpc.status_code", code.0);
            }
        }
    }
}

fn method_class(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "OTHER",
    }
}

fn status_class(status: Option<StatusCode>) -> &'static str {
    match status.map_or(0, |status| status.as_u16() / 100) {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "-",
    }
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
