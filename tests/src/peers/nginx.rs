//! nginx in front of our server, as an ingress that was there before the mesh, and as a server for our client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http::{HeaderMap, Request};
use mesh_core::config::HttpVersion;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, ErrorKind, Principal};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;

use super::process::{Process, program, template};
use super::{ALLOW_WEB, BATCH, PAYMENTS, WEB, caller};
use crate::kit::{Reached, read_answer, until};

/// A running nginx, which listens on sockets of its own directory.
struct Nginx {
    process: Process,
    dir: TempDir,
}

impl Nginx {
    async fn start(binary: &Path, mesh: &RunningTestMesh, orders: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for id in [WEB, BATCH, PAYMENTS] {
            mesh.svid_pem(id).unwrap().write(&dir.path().join(id.rsplit('/').next().unwrap())).unwrap();
        }
        let words = [("@ORDERS@", orders.port().to_string())];
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, template("nginx.conf", dir.path(), &words)).unwrap();
        let mut command = Command::new(binary);
        command.arg("-c").arg(&file).arg("-p").arg(dir.path()).args(["-e", "stderr"]);
        let mut nginx = Self { process: Process::start(&mut command, dir.path().join("log")), dir };
        until("nginx to listen", async || {
            nginx.process.log();
            UnixStream::connect(nginx.socket("plain.sock")).await.ok()
        })
        .await;
        nginx
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What nginx answers to these bytes, in plaintext.
    async fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket("plain.sock")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await.unwrap()
    }
}

#[tokio::test]
async fn nginx_in_front_of_our_server() {
    let Some(binary) = program("nginx") else { return };
    let reached = Reached::default();
    let noted = reached.clone();
    let show = move |headers: HeaderMap, peer: Principal, request: Request<Body>| async move {
        noted.note();
        let body = axum::body::to_bytes(request.into_body(), 64 * 1024).await.unwrap();
        format!("{peer} {} {}", body.len(), headers.contains_key("x-forwarded-client-cert"))
    };
    let orders =
        TestService::new("orders").policy(ALLOW_WEB).app(|_mesh| Ok(Router::new().route("/{*path}", any(show))));
    let mesh = TestMesh::new().with(orders).start().await.unwrap();
    let mut nginx = Nginx::start(&binary, &mesh, mesh.address("orders").unwrap()).await;

    let forged = "x-forwarded-client-cert: URI=spiffe://test/ns/test/sa/admin\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    // (head and body, status, body of the answer)
    let table = [
        ("GET /a", "\r\n".to_owned(), 200, format!("{WEB} 0 false")),
        // Who is behind nginx may claim what he likes: nginx is no pinned gateway.
        ("GET /a", format!("{forged}\r\n"), 200, format!("{WEB} 0 false")),
        ("POST /a", "content-length: 4\r\n\r\nbody".to_owned(), 200, format!("{WEB} 4 false")),
        ("POST /a", chunked.to_owned(), 200, format!("{WEB} 7 false")),
        ("GET /by-batch", "\r\n".to_owned(), 403, String::new()),
        ("GET /without-certificate", "\r\n".to_owned(), 502, String::new()),
        ("GET /by-tls-1.2", "\r\n".to_owned(), 502, String::new()),
    ];
    let mut good = 0;
    for (line, rest, status, told) in table {
        let answer = nginx.ask(&format!("{line} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{rest}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}\n{}", nginx.process.log());
        assert!(answer.contains(&told), "{line}: {answer}");
        good += usize::from(status == 200);
    }
    assert_eq!(reached.count(), good);
    let records = mesh.audit("orders").await.unwrap();
    let denied: Vec<_> = records.iter().filter(|record| record.peer.as_deref() == Some(BATCH)).collect();
    assert_eq!((records.len(), denied.len(), denied[0].reason), (good + 1, 1, "no_allow_rule"));
    let metrics = mesh.mesh("orders").unwrap().metrics().encode();
    for reason in ["no_certificate", "incompatible"] {
        assert!(metrics.contains(&format!(r#"handshakes_total{{result="{reason}"}}"#)), "{reason}: {metrics}");
    }
}

/// A port in front of a Unix socket: nginx cannot say which free port it took.
async fn port_of(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut ours, _)) = listener.accept().await {
            let mut theirs = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut ours, &mut theirs).await });
        }
    });
    address
}

#[tokio::test]
async fn nginx_as_a_server_for_our_client() {
    let Some(binary) = program("nginx") else { return };
    let mesh = TestMesh::new().start().await.unwrap();
    let nginx = Nginx::start(&binary, &mesh, ([127, 0, 0, 1], 1).into()).await;
    let address = port_of(nginx.socket("mtls.sock")).await;
    for (http, version) in [(HttpVersion::Http1, "HTTP/1.1"), (HttpVersion::Http2, "HTTP/2.0")] {
        let web = caller(&mesh, WEB, address, PAYMENTS, http).await;
        let client = Client::new(&web, "payments").unwrap();
        for _ in 0..3 {
            let response = client.get("/").send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.text().await.unwrap(), format!("{version} SUCCESS"));
        }
        let wrong = caller(&mesh, WEB, address, BATCH, http).await;
        let error = Client::new(&wrong, "payments").unwrap().get("/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerIdentity, "{error:?}");
    }
}
