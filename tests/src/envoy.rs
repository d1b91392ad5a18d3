//! A real sidecar on the other side: Envoy as a client of our server, and as a server for our client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::Mesh;
use mesh_core::audit::AuditOutcome;
use mesh_core::config::{ClusterConfig, HttpVersion, PlugConfig};
use mesh_core::identity::SpiffeId;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, ErrorKind, Principal};
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tonic::Code;

use crate::kit::{Reached, soon, until};
use crate::probe;

const WEB: &str = "spiffe://test/ns/test/sa/web";
const BATCH: &str = "spiffe://test/ns/test/sa/batch";
const PAYMENTS: &str = "spiffe://test/ns/test/sa/payments";

/// The program that `cargo xtask peers` installs; `None` only where nobody demands it.
fn binary() -> Option<PathBuf> {
    let peers = std::env::var_os("MESH_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"), PathBuf::from);
    let pythons = std::fs::read_dir(peers.join("envoy/lib")).into_iter().flatten().flatten();
    let found = pythons.map(|lib| lib.path().join("site-packages/envoy/_bin/envoy")).find(|path| path.exists());
    if found.is_none() {
        let missing = format!("no Envoy below {}: run `cargo xtask peers`", peers.display());
        assert!(std::env::var("CI").is_err(), "{missing}");
        println!("SKIPPED: {missing}");
    }
    found
}

/// A running Envoy; it is killed when this is dropped.
struct Envoy {
    _child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Envoy {
    /// Fills in a template of `tests/peers` and starts Envoy with it. `certificates` go to files below `@DIR@`.
    async fn start(
        binary: &Path,
        mesh: &RunningTestMesh,
        template: &str,
        certificates: &[&str],
        words: &[(&str, u16)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for id in certificates {
            let name = id.rsplit('/').next().unwrap();
            mesh.svid_pem(id).unwrap().write(&dir.path().join(name)).unwrap();
        }
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(template);
        let config = std::fs::read_to_string(template).unwrap().replace("@DIR@", dir.path().to_str().unwrap());
        let config = words.iter().fold(config, |config, (word, port)| config.replace(word, &port.to_string()));
        let (file, admin, log) = (dir.path().join("envoy.yaml"), dir.path().join("admin"), dir.path().join("log"));
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            .arg("--admin-address-path")
            .arg(&admin)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = until("Envoy to listen", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("Envoy ended with {status}: {}", std::fs::read_to_string(&log).unwrap());
            }
            let admin = std::fs::read_to_string(&admin).ok()?.trim().parse().ok()?;
            listener(admin).await
        })
        .await;
        Self { _child: child, address, dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// Where Envoy's only listener is, by its admin interface.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/listeners?format=json").header("host", "admin").body(Body::empty()).unwrap();
    let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
    let listeners: Value = serde_json::from_slice(&body).ok()?;
    let port = listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
    (port > 0).then(|| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())))
}

/// Sends `request` in plain text to Envoy, by HTTP/2 as gRPC demands.
async fn plain(envoy: &Envoy, request: Request<Body>) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(envoy.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    soon("an answer from Envoy", sender.send_request(request)).await.unwrap()
}

async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// `GET /` through the cluster `cluster` of Envoy.
async fn get_by(envoy: &Envoy, cluster: &str) -> Response<Incoming> {
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

const ALLOW_WEB: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: test }
spec:
  rules: [ { from: [ { source: { principals: [test/ns/test/sa/web] } } ] } ]
"#;

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
    let words = [("@ORDERS@", mesh.address("orders").unwrap().port())];
    let envoy = Envoy::start(&binary, &mesh, "envoy-client.yaml", &[WEB, BATCH], &words).await;

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

/// A mesh of `id` in which Envoy is called `payments` and expected to be `identity`.
async fn caller(mesh: &RunningTestMesh, id: &str, envoy: &Envoy, identity: &str, http: HttpVersion) -> Mesh {
    let discover = PlugConfig::new("static", &json!([envoy.address.to_string()]));
    let identity = SpiffeId::parse(identity).unwrap();
    let edit = move |config: &mut mesh_core::Config| {
        let mut cluster = ClusterConfig::new(discover.clone(), vec![identity.clone()]);
        cluster.pool.http = http;
        config.clusters.insert("payments".to_owned(), cluster);
    };
    mesh.mesh_with(id, edit).await.unwrap()
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
    let words = [("@APP@", listener.local_addr().unwrap().port())];
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mesh = TestMesh::new().start().await.unwrap();
    let envoy = Envoy::start(&binary, &mesh, "envoy-server.yaml", &[PAYMENTS], &words).await;

    for (http, version) in [(HttpVersion::Http1, "HTTP/1.1"), (HttpVersion::Http2, "HTTP/2")] {
        let web = caller(&mesh, WEB, &envoy, PAYMENTS, http).await;
        let response = Client::new(&web, "payments").unwrap().get("/").send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", envoy.log());
        assert_eq!(response.headers()["x-seen-protocol"], version);
        let claim = response.text().await.unwrap();
        assert!(claim.contains(&format!("URI={WEB}")), "{claim}");
    }
    let web = caller(&mesh, WEB, &envoy, PAYMENTS, HttpVersion::Http2).await;
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

    // Envoy is somebody else; then we are. Both end in the handshake.
    for (id, identity) in [(WEB, "spiffe://test/ns/test/sa/orders"), (BATCH, PAYMENTS)] {
        let wrong = caller(&mesh, id, &envoy, identity, HttpVersion::Http2).await;
        let error = Client::new(&wrong, "payments").unwrap().get("/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerIdentity, "{error:?}");
        let status = probe::client(&wrong, "payments").echo(probe::text("hello")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reached.count(), 4);
    }
}
