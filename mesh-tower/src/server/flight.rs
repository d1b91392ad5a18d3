//! One request from its first byte to the last of its response, counted once.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method, Response, StatusCode};
use mesh_core::telemetry::RequestLabels;
use tracing::Span;

use super::exchange::Exchange;
use crate::grpc::{self, Code};

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
    pub(super) fn begin(exchange: Arc<Exchange>, method: &Method, span: Span) -> Self {
        exchange.mesh.metrics().server.in_flight.inc();
        Self { exchange, span, method: method_class(method), status: None, code: None }
    }

    pub(super) fn head(&mut self, response: &Response<Body>) {
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

pub(super) fn method_class(method: &Method) -> &'static str {
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
