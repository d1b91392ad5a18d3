//! Calls to other services of the mesh.
//!
//! A [`Client`] names a service. Where its endpoints are, who they must be, how long to wait, what to repeat and whom to
//! avoid is configuration; trace, deadline and identity come along by themselves. Outermost first:
//!
//! | layer | what it adds | why there |
//! |---|---|---|
//! | [`telemetry`] | one span, one count | sees every call, also those that go nowhere |
//! | [`route`] | cluster, timeout, retry rules | everything below needs them |
//! | [`deadline`] | one time limit for all attempts | bounds the waits between them too |
//! | [`retry`] | more attempts | each is balanced anew |
//! | [`balance`] | an endpoint, and its report card | learns of timeouts below it |
//! | [`endpoint`] | the attempt's limit, span and headers | connecting is part of the attempt |
//! | [`authenticate`] | a token | nobody else sees it |
//! | [`pool`] | a connection over mTLS | |
//!
//! Every layer is always ready and cancel safe. The stack is static; an attempt costs one box.

mod agenda;
mod attached;
mod attempts;
pub mod authenticate;
pub mod balance;
mod body;
mod call;
mod checks;
mod counting;
mod course;
pub mod deadline;
pub mod endpoint;
mod events;
mod explain;
mod future;
mod in_flight;
mod key;
mod limits;
pub mod pool;
mod registry;
mod replay;
mod request;
mod request_body;
mod response;
pub mod retry;
pub mod route;
pub mod telemetry;
#[cfg(test)]
mod tests;
mod upload;

pub use attempts::{AttemptNext, AttemptOutcome, AttemptReport, Attempts, ConnectionWait};
pub use authenticate::AuthenticateLayer;
pub use balance::BalanceLayer;
pub use body::Body;
pub use call::{CallTimeout, Idempotent, NoRetry};
pub use deadline::DeadlineLayer;
pub use endpoint::EndpointLayer;
pub use explain::{CallExplanation, CallVerdict, Explanation, RetryExplanation, RouteExplanation, TimeoutsExplanation};
pub use future::CallOr;
pub use limits::{LimitUse, LimitsExplanation};
pub use mesh_core::cluster::EndpointReport;
pub use pool::Transport;
pub use replay::ReplayBody;
pub use request::RequestBuilder;
pub use request_body::RequestBody;
pub use response::{DEFAULT_BODY_LIMIT, Response};
pub use retry::RetryLayer;
pub use route::RouteLayer;
pub use telemetry::TelemetryLayer;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::{Authority, Scheme};
use http::{Method, Request};
use mesh_core::Mesh;
use mesh_core::config::{nearest, suggestion};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{BoxError, Error, ErrorKind};
use authenticate::Authenticate;
use balance::Balance;
use deadline::Deadline;
use endpoint::Endpoint;
use registry::ClusterRegistry;
use retry::Retry;
use route::Route;
use telemetry::Telemetry;

type Attempt = Balance<Endpoint<Authenticate<Transport>>>;
type Stack = Telemetry<Route<Deadline<Retry<Attempt>>>>;
type StackFuture = <Stack as Service<Request<RequestBody>>>::Future;

/// Calls one service of the mesh. Clones are handles: keep it in an axum `State`.
///
/// It is also a [`tower_service::Service`] of any request body, always ready.
///
/// ```no_run
/// # async fn example(mesh: mesh_core::Mesh) -> Result<(), Box<dyn std::error::Error>> {
/// let payments = mesh_tower::Client::new(&mesh, "payments")?;
/// let answer = payments.post("/charges").idempotency_key(17).body("1 EUR").send().await?;
/// println!("{}", answer.text().await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    stack: Stack,
    service: Arc<str>,
    authority: Authority,
    mesh: Mesh,
    registry: Arc<ClusterRegistry>,
}

impl Client {
    /// Calls `service`, which `clusters:` or `routes:` must name.
    ///
    /// # Errors
    ///
    /// [`UnknownService`] if neither does; it suggests the name that is spelt most like it.
    pub fn new(mesh: &Mesh, service: &str) -> Result<Self, UnknownService> {
        let revision = mesh.revision().load();
        let known: Vec<&str> = revision.routes.services();
        let authority = Authority::try_from(service).ok().filter(|_| known.contains(&service));
        let Some(authority) = authority else {
            return Err(UnknownService::new(service, &known));
        };
        let attempt = BalanceLayer::new()
            .layer(EndpointLayer::new(mesh).layer(AuthenticateLayer::new().layer(Transport::default())));
        let stack = TelemetryLayer::new(mesh, service).layer(
            RouteLayer::new(mesh, service).layer(DeadlineLayer::new().layer(RetryLayer::new(mesh).layer(attempt))),
        );
        let registry = ClusterRegistry::of(mesh);
        let client = Self { stack, service: service.into(), authority, mesh: mesh.clone(), registry };
        // Resolving and connecting begin now, not with the first call. A cluster that cannot be built is reported then.
        client.clusters();
        Ok(client)
    }

    /// The service that is called.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Begins a GET of `path`, which starts with `/` and may carry a query.
    pub fn get(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// Begins a POST to `path`.
    pub fn post(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Begins a HEAD of `path`.
    pub fn head(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::HEAD, path)
    }

    /// Begins a PUT to `path`.
    pub fn put(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    /// Begins a PATCH of `path`.
    pub fn patch(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, path)
    }

    /// Begins a DELETE of `path`.
    pub fn delete(&self, path: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// Begins a call of any method.
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, path.as_ref())
    }

    /// How each endpoint of the service's clusters fares now.
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        let now = Instant::now();
        self.clusters().iter().flat_map(|cluster| cluster.cluster.report(now)).collect()
    }

    /// The clusters that this service's routes lead to.
    fn clusters(&self) -> Vec<Arc<registry::RuntimeCluster>> {
        let revision = self.mesh.revision().load();
        let routes = revision.config.routes.get(&*self.service);
        let mut names: BTreeSet<&str> = routes.into_iter().flatten().map(|route| route.cluster.as_str()).collect();
        if names.is_empty() {
            names.insert(&self.service);
        }
        let find = |name: &str| self.registry.find(&self.mesh, &revision, &name.into(), checks::begin).ok();
        names.into_iter().filter_map(find).collect()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Client
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// Scheme and authority are filled in where the URI has none; the authority only ever names the service for the
    /// endpoint, it does not choose it.
    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let mut request = request.map(RequestBody::new);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority.get_or_insert_with(|| self.authority.clone());
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        }
        match http::Uri::from_parts(parts) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                let error = Error::new(ErrorKind::Request, "the URI cannot be sent").caused_by(error);
                return ResponseFuture { inner: CallOr::refused(error.of_service(&self.service)) };
            }
        }
        ResponseFuture { inner: CallOr::call(self.stack.call(request)) }
    }
}

pin_project! {
    /// The future of [`Client`].
    pub struct ResponseFuture {
        #[pin]
        inner: CallOr<StackFuture>,
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

/// A service that the configuration does not name.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("no service `{service}` in `clusters:` or `routes:`{}", suggestion(.service, .known.iter().map(String::as_str)))]
#[non_exhaustive]
pub struct UnknownService {
    /// What was asked for.
    pub service: String,
    /// The known service that is spelt most like it.
    pub nearest: Option<String>,
    /// Every known service.
    pub known: Vec<String>,
}

impl std::fmt::Debug for UnknownService {
    /// As for people: it is what `main` shows of an error that it returns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl UnknownService {
    fn new(service: &str, known: &[&str]) -> Self {
        Self {
            service: service.to_owned(),
            nearest: nearest(service, known.iter().copied()).map(str::to_owned),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}
