//! Puts an axum router, tonic services, or any service on a port behind the mesh.
//!
//! HTTP/1.1, HTTP/2 and gRPC share one port and one stack. HTTP and gRPC keep apart by content type, so that each
//! keeps its own fallback: an unknown page is a 404, an unknown method is UNIMPLEMENTED.

mod error;
mod signal;

pub use error::ServeError;
pub use signal::shutdown_signal;

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::config::ListenerConfig;
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower::util::MapResponse;
use tower_service::Service;

use crate::accept::{self, Accept};
use crate::server::{self, RouteLayer};
use crate::transport::{BodyLimit, Ground, MaxBody};
use crate::{admin, grpc};

/// The listener that is used unless another is named.
const DEFAULT: &str = "default";

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves `router` on `listener`, behind mutual TLS and the mesh's server stack.
///
/// Await the result. It ends when the signal given to
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown) has come and all connections are drained; without one it
/// does not end. Dropping it cuts every connection. Fails closed: a peer without a valid SVID gets no connection, and
/// a request that no policy allows gets no handler.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// # async fn run(mesh: mesh_core::Mesh) -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::new().route("/orders/{id}", get(|| async { "order" }));
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tower::serve(&mesh, listener, router)
///     .with_graceful_shutdown(async { /* a signal */ })
///     .await?;
/// # Ok(())
/// # }
/// ```
pub fn serve<L: Accept>(mesh: &Mesh, listener: L, router: Router) -> Serve<L, Web> {
    Serve::new(mesh, listener, Web { http: router, grpc: None })
}

/// Serves any service on `listener`, behind mutual TLS and the mesh's server stack.
///
/// Like [`serve`], for what is no axum router. Policies that name a matched `route` cannot be decided here, because
/// only a router knows its routes.
pub fn serve_service<L: Accept, S: HttpApp>(mesh: &Mesh, listener: L, service: S) -> Serve<L, Opaque<S>> {
    Serve::new(mesh, listener, Opaque(service))
}

/// Serves layers that were put together by hand, behind mutual TLS.
///
/// The outermost must be a [`TelemetryLayer`](server::TelemetryLayer): it lets no answer out that no
/// [`AuthorizeLayer`](server::AuthorizeLayer) below it permitted. Install [`RouteLayer`] in a router yourself, so that
/// labels and audit records know its routes.
///
/// ```no_run
/// use mesh_tower::server::{AuthenticateLayer, AuthorizeLayer, CanonicalLayer, HandlerLayer, TelemetryLayer};
/// use tower::ServiceBuilder;
///
/// # async fn run(mesh: mesh_core::Mesh, router: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// let stack = ServiceBuilder::new()
///     .layer(TelemetryLayer::new(&mesh))
///     .layer(CanonicalLayer::new(&mesh))
///     .layer(AuthenticateLayer::new(&mesh))
///     .layer(AuthorizeLayer::new(&mesh))
///     .layer(HandlerLayer::new(&mesh))
///     .service(router.layer(mesh_tower::server::RouteLayer));
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tower::serve_stack(&mesh, listener, stack).await?;
/// # Ok(())
/// # }
/// ```
pub fn serve_stack<L, S>(mesh: &Mesh, listener: L, stack: server::Telemetry<S>) -> Serve<L, Stack<S>>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    Serve::new(mesh, listener, Stack(stack))
}

/// Binds the address of a configured listener.
///
/// # Errors
///
/// [`ServeError::UnknownListener`] without such a listener in `listeners:`, [`ServeError::Bind`] if its address is
/// taken or not ours.
pub async fn bind(mesh: &Mesh, listener: &str) -> Result<TcpListener, ServeError> {
    let config = configured(mesh, listener).ok_or_else(|| ServeError::unknown(mesh, listener))?;
    let address = config.address;
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind {
        what: format!("listener `{listener}`"),
        address,
        source,
    })
}

/// A server that is about to run. See [`serve`].
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L, A> {
    mesh: Mesh,
    listener: L,
    name: String,
    app: A,
    signal: Option<BoxFuture<()>>,
    cut: Option<BoxFuture<()>>,
}

/// An HTTP router and, beside it, maybe one for gRPC.
#[derive(Debug)]
pub struct Web {
    http: Router,
    grpc: Option<Router>,
}

/// A service that the mesh knows nothing of.
#[derive(Debug)]
pub struct Opaque<S>(S);

/// A stack of layers that its user made.
#[derive(Debug)]
pub struct Stack<S>(server::Telemetry<S>);

impl<L, A> Serve<L, A> {
    fn new(mesh: &Mesh, listener: L, app: A) -> Self {
        Self { mesh: mesh.clone(), listener, name: DEFAULT.to_owned(), app, signal: None, cut: None }
    }

    /// Takes limits and timeouts from this entry of `listeners:`. Default: `default`, or every default value where
    /// there is no such entry. Any other name must be configured.
    pub fn listener(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Stops when `signal` is ready: is not ready any more and serves on for `shutdown_delay`; then accepts nothing more,
    /// asks all peers to go, lets requests in flight finish for `drain_timeout`, and cuts. Ends a second later at most.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }
}

impl<L, A> Serve<L, A> {
    /// Cuts everything at once when `signal` is ready. It is asked for only after stopping has begun, so with
    /// [`shutdown_signal`] here and in [`with_graceful_shutdown`](Self::with_graceful_shutdown), the second ctrl-c ends.
    pub fn with_forced_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut = Some(Box::pin(signal));
        self
    }
}

impl<L> Serve<L, Web> {
    /// Serves requests with content type `application/grpc*` by this router, fallback included.
    pub fn grpc(mut self, router: Router) -> Self {
        self.app.grpc = Some(router);
        self
    }
}

impl<L, A> std::fmt::Debug for Serve<L, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").field("listener", &self.name).finish_non_exhaustive()
    }
}

impl<L: Accept> IntoFuture for Serve<L, Web> {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let http = self.app.http.layer(RouteLayer);
        let routes = Routes { http, grpc: self.app.grpc.map(|router| router.layer(RouteLayer)) };
        let service = server::stack(&self.mesh, routes);
        Box::pin(run(self.mesh, self.listener, self.name, service, (self.signal, self.cut)))
    }
}

impl<L: Accept, S: HttpApp> IntoFuture for Serve<L, Opaque<S>> {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let service = server::stack(&self.mesh, self.app.0.into_service());
        Box::pin(run(self.mesh, self.listener, self.name, service, (self.signal, self.cut)))
    }
}

impl<L, S> IntoFuture for Serve<L, Stack<S>>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self.mesh, self.listener, self.name, self.app.0, (self.signal, self.cut)))
    }
}

async fn run<L, S>(
    mesh: Mesh,
    listener: L,
    name: String,
    service: S,
    (signal, cut): (Option<BoxFuture<()>>, Option<BoxFuture<()>>),
) -> Result<(), ServeError>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let local_addr = listener.local_addr().map_err(ServeError::Listener)?;
    let configured = configured(&mesh, &name);
    if configured.is_none() && name != DEFAULT {
        return Err(ServeError::unknown(&mesh, &name));
    }
    let start = configured.unwrap_or_else(|| ListenerConfig::new(local_addr));
    admin::start(&mesh).await?;
    let mut serving = admin::Serving::begin(&mesh);
    let never = || -> BoxFuture<()> { Box::pin(std::future::pending()) };
    let (stop, cut) = (signal.unwrap_or_else(never), cut.unwrap_or_else(never));
    // A listener that vanished from the configuration keeps the settings it started with.
    let settings = || self::configured(&mesh, &name).unwrap_or_else(|| start.clone());
    let stop = accept::Stop { signal: stop, draining: || serving.drain(), cut };
    accept::run(Ground::of(&mesh), Arc::from(name.as_str()), listener, service, settings, stop)
        .await
        .map_err(ServeError::Listener)
}

fn configured(mesh: &Mesh, listener: &str) -> Option<ListenerConfig> {
    mesh.revision().load().config.listeners.get(listener).cloned()
}

/// HTTP and gRPC side by side.
#[derive(Debug, Clone)]
struct Routes {
    http: Router,
    grpc: Option<Router>,
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // axum's routers always are
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match &mut self.grpc {
            Some(router) if grpc::is_grpc(request.headers()) => router.call(request),
            // Without a gRPC router its content type is only a header, and must not lift the limit of the body.
            _ => {
                // In the place of axum's own 2 MB. What came is bounded already; this bounds what extractors read behind a
                // layer of the router that decompresses. A router that sets a limit of its own has the last word.
                if let Some(MaxBody(max)) = request.extensions().get() {
                    DefaultBodyLimit::max(*max).apply(&mut request);
                }
                match request.extensions_mut().remove::<BodyLimit>() {
                    Some(limit) => self.http.call(limit.apply(request)),
                    None => self.http.call(request),
                }
            }
        }
    }
}

/// What [`serve_service`] takes: any cloneable, infallible HTTP service.
///
/// Implemented for every `Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>`; not meant to be
/// implemented by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served by the mesh",
    label = "not an infallible HTTP service",
    note = "needed: `tower::Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>`, \
            and it must be `Clone + Send + 'static` with a `Send` future",
    note = "an axum `Router` goes to `mesh_tower::serve`, after `.with_state(..)`"
)]
pub trait HttpApp: Send + 'static {
    /// The service with its body boxed.
    type Service: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static;

    /// Boxes the body.
    fn into_service(self) -> Self::Service;
}

impl<S, B> HttpApp for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Service = MapResponse<S, fn(Response<B>) -> Response<Body>>;

    fn into_service(self) -> Self::Service {
        self.map_response(|response| response.map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::routing::post;
    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use mesh_core::config::{HealthConfig, HttpVersion};
    use mesh_core::identity::SpiffeId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::connect::Dialer;
    use crate::fixture::{ca, mesh};

    type Sender = hyper::client::conn::http2::SendRequest<Body>;

    async fn connect(mesh: &Mesh, address: SocketAddr) -> Sender {
        let expected = vec![SpiffeId::parse("spiffe://td/ns/shop/sa/orders").unwrap()];
        let dialer = Dialer::new(mesh, expected, HttpVersion::Http2, Duration::from_secs(10));
        let io = TokioIo::new(dialer.dial(address).await.unwrap().io);
        let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        send
    }

    async fn send(client: &mut Sender, path: &str, kind: &'static str, body: Vec<u8>) -> (StatusCode, String) {
        let request = Request::post(format!("https://orders{path}")).header("content-type", kind);
        let response = client.send_request(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn http_and_grpc_share_a_port_and_keep_their_fallbacks() {
        let (ca, (listener, address)) = (ca(), listener().await);
        let orders = mesh(&ca, "orders", |config| {
            let mut listener = ListenerConfig::new(address);
            listener.max_body_bytes = 3 * 1024 * 1024;
            config.listeners.insert("default".to_owned(), listener);
        })
        .await;
        let http = Router::new()
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/ignore", post(|| async { "not read" }));
        let grpc = Router::new().fallback(|| async { ([("grpc-status", HeaderValue::from_static("12"))], "grpc") });
        tokio::spawn(serve(&orders, listener, http).grpc(grpc).into_future());

        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        let mebibytes = |n: usize| vec![b'x'; n * 1024 * 1024];
        let long = (3 * 1024 * 1024).to_string();
        // axum's own limit of 2 MB is gone, the listener's holds.
        assert_eq!(send(&mut client, "/length", "text/plain", mebibytes(3)).await, (StatusCode::OK, long));
        assert_eq!(send(&mut client, "/length", "text/plain", mebibytes(4)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        // What is declared to be too long reaches no handler, not even one that would not have read it.
        assert_eq!(send(&mut client, "/ignore", "text/plain", mebibytes(3)).await.0, StatusCode::OK);
        assert_eq!(send(&mut client, "/ignore", "text/plain", mebibytes(4)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let rejected = "mesh_server_rejected_total{reason=\"body_too_large\"} 2";
        assert!(orders.metrics().encode().contains(rejected), "{}", orders.metrics().encode());
        assert_eq!(send(&mut client, "/a.B/C", "text/plain", Vec::new()).await.0, StatusCode::NOT_FOUND);
        let (status, body) = send(&mut client, "/a.B/C", "application/grpc", Vec::new()).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "grpc"));
    }

    #[tokio::test]
    async fn a_grpc_content_type_does_not_lift_the_limit_of_http_bodies() {
        let (ca, (listener, address)) = (ca(), listener().await);
        let orders = mesh(&ca, "orders", |config| {
            let mut listener = ListenerConfig::new(address);
            listener.max_body_bytes = 1024;
            config.listeners.insert("default".to_owned(), listener);
        })
        .await;
        let http = Router::new().route("/items/length", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(&orders, listener, http).into_future());
        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        let grpc = "application/grpc";
        let fits = send(&mut client, "/items/length", grpc, vec![b'x'; 1024]).await;
        assert_eq!(fits, (StatusCode::OK, "1024".to_owned()));
        let (status, body) = send(&mut client, "/items/length", grpc, vec![b'x'; 1025]).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""), "refused as gRPC, which the caller said it speaks");
        let rejected = "mesh_server_rejected_total{reason=\"body_too_large\"} 1";
        assert!(orders.metrics().encode().contains(rejected), "{}", orders.metrics().encode());
    }

    #[tokio::test]
    async fn what_a_layer_makes_of_a_body_is_bounded_too() {
        let (ca, (listener, address)) = (ca(), listener().await);
        let orders = mesh(&ca, "orders", |config| {
            let limits = ListenerConfig::new(address).max_body_bytes(1024);
            config.listeners.insert("default".to_owned(), limits);
        })
        .await;
        // As decompression does: one byte becomes many.
        let inflate = async |request: Request<Body>| request.map(|_| Body::from(vec![b'x'; 1025]));
        let route = |path: &str| {
            let length = post(|body: Bytes| async move { body.len().to_string() });
            Router::new().route(path, length).layer(axum::middleware::map_request(inflate))
        };
        let http = route("/bomb").merge(route("/own").layer(DefaultBodyLimit::disable()));
        tokio::spawn(serve(&orders, listener, http).into_future());
        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        assert_eq!(send(&mut client, "/bomb", "text/plain", vec![1]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let own = send(&mut client, "/own", "text/plain", vec![1]).await;
        assert_eq!(own, (StatusCode::OK, "1025".to_owned()), "a router's own limit has the last word");
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_answered_with_408_and_gives_its_place_back() {
        let (ca, (listener, address)) = (ca(), listener().await);
        let orders = mesh(&ca, "orders", |config| {
            let limits = ListenerConfig::new(address).body_timeout(Duration::from_millis(200));
            config.listeners.insert("default".to_owned(), limits);
            config.limits.max_concurrent_requests = 1;
        })
        .await;
        let http = Router::new().route("/", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(&orders, listener, http).into_future());
        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let response = client.send_request(Request::post("https://orders/").body(stalled).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(send(&mut client, "/", "text/plain", vec![b'x'; 3]).await, (StatusCode::OK, "3".to_owned()));
        let rejected = "mesh_server_rejected_total{reason=\"body_timeout\"} 1";
        assert!(orders.metrics().encode().contains(rejected), "{}", orders.metrics().encode());
        let many = (0..101).fold(Request::post("https://orders/"), |request, n| request.header("x", n));
        let response = client.send_request(many.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    /// A plain request, and the whole answer as text.
    async fn plain(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nhost: health\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_health_listener_follows_the_server_and_answers_nothing_else() {
        let (ca, (listener, address)) = (ca(), listener().await);
        let health = HealthConfig { address: ([127, 0, 0, 1], 0).into() };
        let orders = mesh(&ca, "orders", |config| config.health = Some(health)).await;
        assert_eq!(admin::address(&orders), None);

        let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, open) = (Arc::clone(&entered), Arc::clone(&gate));
        let slow = post(|| async move {
            tell.notify_one();
            open.notified().await;
            "done"
        });
        let (stop, signal) = oneshot::channel::<()>();
        let server = serve(&orders, listener, Router::new().route("/slow", slow));
        let server = tokio::spawn(server.with_graceful_shutdown(async { drop(signal.await) }).into_future());

        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        let request = tokio::spawn(async move { send(&mut client, "/slow", "text/plain", Vec::new()).await });
        entered.notified().await;
        let health = admin::address(&orders).unwrap();
        assert!(plain(health, "GET /livez").await.starts_with("HTTP/1.1 200"));
        assert!(plain(health, "GET /readyz").await.ends_with("\r\n\r\nready\n"));
        let metrics = plain(health, "GET /metrics").await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
        assert!(metrics.contains("\nmesh_server_connections 1\n") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(plain(health, "GET /debug").await.starts_with("HTTP/1.1 404"));
        assert!(plain(health, "POST /livez").await.starts_with("HTTP/1.1 405"));

        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), async {
            while !plain(health, "GET /readyz").await.ends_with("\r\n\r\ndraining\n") {}
        })
        .await
        .unwrap();
        assert!(plain(health, "GET /livez").await.starts_with("HTTP/1.1 200"), "draining is alive");
        gate.notify_one();
        assert_eq!(request.await.unwrap(), (StatusCode::OK, "done".to_owned()));
        server.await.unwrap().unwrap();
        let unready = plain(health, "GET /readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("not serving\n"), "{unready}");
        drop(orders);
        tokio::time::timeout(Duration::from_secs(10), async {
            while TcpStream::connect(health).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the health listener ends with its mesh");
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_said_at_once() {
        let (ca, (taken, address)) = (ca(), listener().await);
        let orders = mesh(&ca, "orders", |config| {
            let default = ListenerConfig::new(([127, 0, 0, 1], 0).into());
            config.listeners.insert("default".to_owned(), default);
            config.listeners.insert("public".to_owned(), ListenerConfig::new(address));
        })
        .await;
        let error = bind(&orders, "public").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("listener `public`: cannot bind {address}: ")), "{error}");
        let error = bind(&orders, "pubilc").await.unwrap_err().to_string();
        assert_eq!(error, "no listener `pubilc` in `listeners:`; did you mean `public`?");
        let service = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let error = serve_service(&orders, taken, service).listener("other").await.unwrap_err().to_string();
        assert_eq!(error, "no listener `other` in `listeners:`; known: default, public");
    }
}
