//! Where hyper's requests become the stack's: identity goes in, limits go on.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Limited;
use hyper::body::Incoming;
use mesh_core::config::ListenerConfig;
use mesh_core::telemetry::Metrics;
use pin_project_lite::pin_project;
use tower::ServiceExt;
use tower::util::Oneshot;
use tower_service::Service;

use super::activity::{Activity, InFlight, Tracked};
use super::flow::Flow;
use super::http1::Verdict;
use super::pace::{Paced, Patience};
use crate::Connection;
use crate::connection::{Fate, Unfit, Unreadable};
use crate::grpc;

/// The service of one connection.
#[derive(Debug)]
pub(super) struct Edge<S> {
    pub(super) service: S,
    pub(super) connection: Arc<Connection>,
    pub(super) address: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) limits: RequestLimits,
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

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.activity.begin();
        let refused = self.verdict.as_ref().and_then(|verdict| verdict.next_request());
        let empty = request.body().is_end_stream();
        // gRPC limits each message instead; a stream of them has no length.
        let grpc = !empty && grpc::is_grpc(request.headers());
        let unfit = match refused {
            Some(refusal) => refusal.unfit(),
            None => self.limits.unfit(&request, grpc),
        };
        let mut request = if empty {
            if let Some(unfit) = unfit {
                let fate = Fate::default();
                fate.set(unfit);
                request.extensions_mut().insert(Arc::new(fate));
            }
            request.map(Body::new)
        } else {
            request.extensions_mut().insert(MaxBody(self.limits.max_body));
            let limit = BodyLimit { max: self.limits.max_body, patience: self.limits.patience(), fate: Arc::default() };
            if let Some(unfit) = unfit {
                limit.fate.set(unfit);
            }
            request.extensions_mut().insert(Arc::clone(&limit.fate));
            if self.limits.decompress && !grpc && request.headers().contains_key(CONTENT_ENCODING) {
                request.extensions_mut().insert(Decompress { max: limit.max, fate: Arc::clone(&limit.fate) });
            }
            if grpc {
                // The caller chose the content type; who serves it as HTTP all the same puts the limit back.
                let (patience, fate) = (limit.patience.clone(), Arc::clone(&limit.fate));
                request.extensions_mut().insert(limit);
                request.map(|body| Body::new(Paced::new(body, patience, true, fate)))
            } else {
                request.map(|body| limit.around(body))
            }
        };
        request.extensions_mut().insert(Arc::clone(&self.connection));
        request.extensions_mut().insert(ConnectInfo(self.address));
        if let Some(refusal) = refused {
            request.extensions_mut().insert(Unreadable(refusal.as_str()));
        }
        let response = Some(self.service.clone().oneshot(request));
        ResponseFuture { response, in_flight: Some(in_flight), metrics: Arc::clone(&self.metrics) }
    }
}

/// `max_body_bytes`, for those who make a body longer than it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxBody(pub(crate) usize);

/// A request body that is to be decompressed for its handler, to `max` bytes at most.
#[derive(Debug, Clone)]
pub(crate) struct Decompress {
    pub(crate) max: usize,
    pub(crate) fate: Arc<Fate>,
}

/// The limit of a request body that has none yet, because its content type says gRPC.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimit {
    max: usize,
    patience: Patience,
    fate: Arc<Fate>,
}

impl BodyLimit {
    /// Puts the limit on the body.
    pub(crate) fn apply(self, request: Request<Body>) -> Request<Body> {
        request.map(|body| self.around(body))
    }

    fn around<B>(self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        Body::new(Paced::new(Limited::new(body, self.max), self.patience, false, self.fate))
    }
}

/// What one request may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    max_body: usize,
    decompress: bool,
    /// The guard holds HTTP/1.1 to it, and hyper HTTP/2 only to a number of bytes.
    max_headers: usize,
    max_header_bytes: usize,
    body_timeout: Duration,
    min_body_rate: u32,
}

impl RequestLimits {
    pub(super) fn of(config: &ListenerConfig) -> Self {
        Self {
            max_body: usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX),
            decompress: config.decompress_requests,
            max_headers: config.max_headers,
            max_header_bytes: config.max_header_bytes as usize,
            body_timeout: config.body_timeout,
            min_body_rate: config.min_body_rate,
        }
    }

    fn patience(&self) -> Patience {
        Patience::new(self.body_timeout, self.min_body_rate)
    }

    /// What is wrong with a request before its body is read.
    fn unfit(&self, request: &Request<Incoming>, grpc: bool) -> Option<Unfit> {
        /// RFC 9113 6.5.2: what a field costs beside its name and value.
        const FIELD: usize = 32;
        let headers = request.headers();
        if headers.len() > self.max_headers {
            return Some(Unfit::TooManyHeaders);
        }
        let decoded: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
        let uri = request.uri();
        let target =
            uri.path().len() + uri.query().map_or(0, str::len) + uri.authority().map_or(0, |a| a.as_str().len());
        if decoded + target > self.max_header_bytes {
            return Some(Unfit::HeadersTooLarge);
        }
        (!grpc && request.body().size_hint().lower() > self.max_body as u64).then_some(Unfit::BodyTooLarge)
    }
}

pin_project! {
    pub(super) struct ResponseFuture<S>
    where
        S: Service<Request<Body>>,
    {
        // `None`: a layer panicked.
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
        let mut response = match this.response.as_mut().as_pin_mut() {
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
            None => return Poll::Pending, // polled after it was ready: nobody waits any more
        };
        match this.in_flight.take() {
            Some(in_flight) => {
                if in_flight.is_last() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let flow = Flow::current();
                Poll::Ready(Ok(response.map(|body| Tracked::new(body, in_flight, flow))))
            }
            None => Poll::Pending, // polled after it was ready: nobody waits any more
        }
    }
}
