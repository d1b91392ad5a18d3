//! A real sidecar on the other side: Envoy as a client of our server, and as a server for our client.

use std::fmt::Display;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::audit::AuditOutcome;
use mesh_core::config::HttpVersion;
use mesh_tower::test_util::{TestMesh, TestService};
use mesh_tower::{Client, ErrorKind, Principal};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use super::envoy_process::{Envoy, binary};
use super::{ALLOW_WEB, BATCH, PAYMENTS, WEB, caller};
use crate::kit::{Reached, soon};
use crate::probe;

/// Sends `request` in plaintext to Envoy, by HTTP/2 as gRPC demands.
pub(super) async fn plain(envoy: &Envoy, request: Request<Body>) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(envoy.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    soon("an answer from Envoy", sender.send_request(request)).await.unwrap()
}

pub(super) async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// `GET /` through the cluster `cluster` of Envoy.
pub(super) async fn get_by(envoy: &Envoy, cluster: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://{}/", envoy.address)).header("x-cluster", cluster);
    plain(envoy, request.body(Body::empty()).unwrap()).await
}

/// A unary gRPC call through the cluster `cluster` of Envoy: the message, if any, and the status.
async fn echo_by(envoy: &Envoy, cluster: &str, path: &str) -> (Option<String>, String) {
    let message = probe::text("hello").encode_to_vec();
    let frame = [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let request = Request::post(format!("http://{}{path}", envoy.address))
        .header("x-cluster", cluster)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let response = plain(envoy, request.body(Body::from(frame)).unwrap()).await;
    assert_eq!(response.status(), 200);
    let status = |headers: &HeaderMap| headers.get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    let head = status(response.headers());
    let collected = response.into_body().collect().await.unwrap();
    let status = head.or_else(|| collected.trailers().and_then(status)).unwrap();
    let bytes = collected.to_bytes();
    let message = bytes.get(5..).map(|message| probe::Text::decode(message).unwrap().text);
    (message, status)
}

#[tokio::test]
async fn envoy_as_a_client_of_our_server() {
    let Some(binary) = binary() else { return };
    let reached = Reached::default();
    let (http, grpc) = (reached.clone(), reached.clone());
    let orders = TestService::new("orders")
        .policy(ALLOW_WEB)
        .app(move |_mesh| {
            let show = |request: Request<Body>| async move {
                http.note();
                let peer = request.extensions().get::<Principal>().unwrap();
                assert!(!request.headers().keys().any(|name| name.as_str().starts_with("x-envoy-")));
                format!("{:?} {peer}", request.version())
            };
            Ok(Router::new().route("/", get(show)))
        })
        .grpc(move |_mesh| Ok(probe::router(&grpc)));
    let mesh = TestMesh::new().with(orders).start().await.unwrap();
    let port = mesh.address("orders").unwrap().port();
    let words = &[("@ORDERS@", &port as &dyn Display)];
    let mut envoy = Envoy::start(&binary, &mesh, "envoy-client.yaml", &[WEB, BATCH], words).await;

    for (cluster, version) in [("h1", "HTTP/1.1"), ("h2", "HTTP/2.0")] {
        let response = get_by(&envoy, cluster).await;
        let (status, told) = (response.status(), body(response).await);
        assert_eq!((status.as_u16(), told), (200, format!("{version} {WEB}")), "{cluster}: {}", envoy.log());
    }
    let told = (Some(format!("hello for {WEB}")), "0".to_owned());
    assert_eq!(echo_by(&envoy, "h2", probe::ECHO).await, told);
    assert_eq!(echo_by(&envoy, "h2", "/probe.Probe/Missing").await, (None, "12".to_owned()));
    assert_eq!(reached.count(), 3);

    // The right authority and the wrong identity: by policy, which says so.
    assert_eq!(get_by(&envoy, "wrong-caller").await.status(), 403);
    assert_eq!(echo_by(&envoy, "wrong-caller", probe::ECHO).await, (None, "7".to_owned()));
    let records = mesh.audit("orders").await.unwrap();
    assert_eq!(records.len(), 6, "{records:#?}");
    for record in &records[4..] {
        let expected = (AuditOutcome::Deny, "no_allow_rule", Some(BATCH));
        assert_eq!((record.outcome, record.reason, record.peer.as_deref()), expected);
    }
    // In the handshake: Envoy without a certificate is refused by us, and we by an Envoy that wants somebody else.
    // With TLS 1.3 Envoy learns of our refusal too late to name it: our own count does.
    for (cluster, reason) in [("no-certificate", "-"), ("wrong-server", "CERTIFICATE_VERIFY_FAILED")] {
        let response = get_by(&envoy, cluster).await;
        assert_eq!(response.status(), 503, "{cluster}");
        let told = body(response).await;
        assert!(told.contains(reason), "{cluster}: {told}");
        assert_eq!(echo_by(&envoy, cluster, probe::ECHO).await, (None, "14".to_owned()), "{cluster}");
    }
    assert_eq!((reached.count(), mesh.audit("orders").await.unwrap().len()), (3, 6));
    let metrics = mesh.mesh("orders").unwrap().metrics().encode();
    assert!(metrics.contains(r#"handshakes_total{result="no_certificate"}"#), "{metrics}");
}

#[tokio::test]
async fn envoy_as_a_server_for_our_client() {
    let Some(binary) = binary() else { return };
    let reached = Reached::default();
    let handler = reached.clone();
    let show = |headers: HeaderMap| async move {
        handler.note();
        headers["x-forwarded-client-cert"].to_str().unwrap().to_owned()
    };
    let app = probe::router(&reached).route("/", get(show));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mesh = TestMesh::new().start().await.unwrap();
    let mut envoy = Envoy::start(&binary, &mesh, "envoy-server.yaml", &[PAYMENTS], &[("@APP@", &port)]).await;

    for (http, version) in [(HttpVersion::Http1, "HTTP/1.1"), (HttpVersion::Http2, "HTTP/2")] {
        let web = caller(&mesh, WEB, envoy.address, PAYMENTS, http).await;
        let response = Client::new(&web, "payments").unwrap().get("/").send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", envoy.log());
        assert_eq!(response.headers()["x-seen-protocol"], version);
        let claim = response.text().await.unwrap();
        assert!(claim.contains(&format!("URI={WEB}")), "{claim}");
    }
    let web = caller(&mesh, WEB, envoy.address, PAYMENTS, HttpVersion::Http2).await;
    let mut client = probe::client(&web, "payments");
    let told = client.echo(probe::text("hello")).await.unwrap().into_inner().text;
    assert!(told.starts_with("hello for ") && told.contains(WEB), "{told}");
    let mut letters = client.spell(probe::text("abc")).await.unwrap().into_inner();
    let mut spelt = String::new();
    let end = loop {
        match letters.message().await {
            Ok(letter) => spelt += &letter.unwrap().text,
            Err(status) => break status,
        }
    };
    assert_eq!((spelt.as_str(), end.code(), end.message()), ("abc", Code::NotFound, "no more letters"));
    assert_eq!(reached.count(), 4);
    println!("seen: {} of 4 answered", reached.count());

    // Envoy is somebody else; then we are. Both end in the handshake.
    for (id, identity) in [(WEB, "spiffe://test/ns/test/sa/orders"), (BATCH, PAYMENTS)] {
        let wrong = caller(&mesh, id, envoy.address, identity, HttpVersion::Http2).await;
        let error = Client::new(&wrong, "payments").unwrap().get("/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerIdentity, "{error:?}");
        let status = probe::client(&wrong, "payments").echo(probe::text("hello")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reached.count(), 4);
        println!("control: {error}");
    }
}
