//! Servers over real sockets.

mod custom;
mod decompression;
mod routes;

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

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use bytes::Bytes;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::config::ListenerConfig;
use std::convert::Infallible;
use std::future::IntoFuture;
use tokio::net::TcpListener;

use super::*;
use crate::admin;
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
