//! Where hyper's requests become the stack's: identity goes in, limits go on.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use http::{Request, Response, StatusCode};
use http_body_util::Limited;
use hyper::body::Incoming;
use mesh_core::telemetry::Metrics;
use pin_project_lite::pin_project;
use tower::ServiceExt;
use tower::util::Oneshot;
use tower_service::Service;

use super::activity::{Activity, InFlight, Tracked};
use super::http1::{Refusal, Verdict};
use crate::Connection;
use crate::connection::{BodyTooLarge, Unreadable};
use crate::grpc;

/// The service of one connection.
#[derive(Debug)]
pub(super) struct Edge<S> {
    pub(super) service: S,
    pub(super) connection: Arc<Connection>,
    pub(super) address: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) max_body: usize,
    /// hyper holds HTTP/1.1 to it, and HTTP/2 only to a number of bytes.
    pub(super) max_headers: usize,
    pub(super) metrics: Arc<Metrics>,
    /// HTTP/1.1: what was found below hyper.
    pub(super) verdict: Option<Arc<Verdict>>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Tracked>;
    type Error = Infallible;
    type Future = ResponseFuture<S>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin();
        let refused = self.verdict.as_ref().and_then(|verdict| verdict.next_request());
        if refused == Some(Refusal::TooLarge) {
            self.metrics.server.rejected(Refusal::TooLarge.as_str()); // the connection's end is logged
            let metrics = Arc::clone(&self.metrics);
            return ResponseFuture { response: None, in_flight: Some(in_flight), metrics };
        }
        if request.headers().len() > self.max_headers {
            self.metrics.server.rejected("too_many_headers");
            tracing::info!(peer = ?self.connection.peer().address, limit = self.max_headers, "too many headers");
            let metrics = Arc::clone(&self.metrics);
            return ResponseFuture { response: None, in_flight: Some(in_flight), metrics };
        }
        let empty = request.body().is_end_stream();
        // gRPC limits each message instead; a stream of them has no length.
        let grpc = !empty && grpc::is_grpc(request.headers());
        let too_large = !grpc && request.body().size_hint().lower() > self.max_body as u64;
        let mut request = request.map(Body::new);
        if grpc {
            // The caller chose the content type; who serves it as HTTP all the same puts the limit back.
            request.extensions_mut().insert(BodyLimit(self.max_body));
        } else if !empty {
            request = BodyLimit(self.max_body).apply(request);
        }
        request.extensions_mut().insert(Arc::clone(&self.connection));
        request.extensions_mut().insert(ConnectInfo(self.address));
        if let Some(refusal) = refused {
            request.extensions_mut().insert(Unreadable(refusal.as_str()));
        }
        if too_large {
            request.extensions_mut().insert(BodyTooLarge);
        }
        let response = Some(self.service.clone().oneshot(request));
        ResponseFuture { response, in_flight: Some(in_flight), metrics: Arc::clone(&self.metrics) }
    }
}

/// The limit of a request body that has none yet, because its content type says gRPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit(usize);

impl BodyLimit {
    /// Puts the limit on the body.
    pub(crate) fn apply(self, request: Request<Body>) -> Request<Body> {
        request.map(|body| Body::new(Limited::new(body, self.0)))
    }
}

pin_project! {
    pub(super) struct ResponseFuture<S>
    where
        S: Service<Request<Body>>,
    {
        // `None`: refused here.
        #[pin]
        response: Option<Oneshot<S, Request<Body>>>,
        in_flight: Option<InFlight>,
        metrics: Arc<Metrics>,
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

impl<S> Future for ResponseFuture<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Output = Result<Response<Tracked>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = match this.response.as_mut().as_pin_mut() {
            // Handlers' panics are caught far below. One of a layer would end the connection with all its requests over
            // HTTP/1.1, and over HTTP/2, where a request is a task of hyper's, leave no trace at all.
            Some(response) => match catch_unwind(AssertUnwindSafe(|| response.poll(cx))) {
                Ok(response) => ready!(response)?,
                Err(_) => {
                    this.response.set(None);
                    this.metrics.server.panics.inc();
                    tracing::error!("a layer panicked; its request is answered with 500");
                    empty(StatusCode::INTERNAL_SERVER_ERROR)
                }
            },
            None => empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        };
        match this.in_flight.take() {
            Some(in_flight) => Poll::Ready(Ok(response.map(|body| Tracked::new(body, in_flight)))),
            None => Poll::Pending, // polled after it was ready: nobody waits any more
        }
    }
}
