//! openssl's bare TLS client and server, which know neither HTTP libraries nor SPIFFE.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::routing::get;
use mesh_core::config::HttpVersion;
use mesh_tower::test_util::{TestMesh, TestService};
use mesh_tower::{Client, ErrorKind, Principal};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::process::{Process, program};
use super::{ALLOW_WEB, BATCH, PAYMENTS, WEB, caller};
use crate::kit::{soon, until};

/// What `openssl s_client` printed on both outputs, with an HTTP/1.1 request on its input.
async fn s_client(binary: &Path, address: SocketAddr, args: &[String]) -> String {
    let mut child = Command::new(binary)
        .args(["s_client", "-connect", &address.to_string(), "-alpn", "http/1.1", "-ign_eof", "-no_ticket"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // It may be gone already, where its handshake failed: its output says so.
    _ = child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n").await;
    let output = soon("s_client to end", child.wait_with_output()).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Arguments that present the SVID in `dir`.
fn certificate(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    vec!["-cert".to_owned(), file("svid.pem"), "-key".to_owned(), file("svid.key")]
}

/// Arguments that end the handshake unless the peer's chain leads to the root in `dir`.
fn verify(dir: &Path) -> Vec<String> {
    let root = dir.join("bundle.pem").to_str().unwrap().to_owned();
    vec!["-CAfile".to_owned(), root, "-verify_return_error".to_owned()]
}

#[tokio::test]
async fn openssl_as_a_client_of_our_server() {
    let Some(binary) = program("openssl") else { return };
    let show = |peer: Principal| async move { format!("hello {peer}") };
    let orders = TestService::new("orders").policy(ALLOW_WEB).app(move |_mesh| Ok(Router::new().route("/", get(show))));
    let mesh = TestMesh::new().with(orders).start().await.unwrap();
    let strangers = TestMesh::new().start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, mesh: &mesh_tower::test_util::RunningTestMesh, id: &str| -> PathBuf {
        let dir = dir.path().join(name);
        mesh.svid_pem(id).unwrap().write(&dir).unwrap();
        dir
    };
    let (web, batch, stranger) =
        (write("web", &mesh, WEB), write("batch", &mesh, BATCH), write("stranger", &strangers, WEB));
    let tls12 = |dir: &Path| [certificate(dir), vec!["-tls1_2".to_owned()]].concat();
    // (arguments, what it prints, what is counted)
    let table = [
        (
            [certificate(&web), verify(&web)].concat(),
            &["200 OK", "hello spiffe://test/ns/test/sa/web", "TLSv1.3"][..],
            "ok",
        ),
        ([certificate(&batch), verify(&web)].concat(), &["403 Forbidden"], "ok"),
        (Vec::new(), &["alert certificate required"], "no_certificate"),
        (certificate(&stranger), &["alert certificate unknown"], "bad_signature"),
        (tls12(&web), &["alert protocol version"], "incompatible"),
        ([certificate(&web), verify(&stranger)].concat(), &["verify error"], "refused_by_peer"),
    ];
    let address = mesh.address("orders").unwrap();
    for (args, expected, counted) in table {
        let printed = s_client(&binary, address, &args).await;
        for text in expected {
            assert!(printed.contains(text), "{counted}: no `{text}` in {printed}");
        }
        assert_eq!(printed.contains("HTTP/1.1 "), counted == "ok", "{counted}: {printed}");
        let metrics = mesh.mesh("orders").unwrap().metrics();
        until(counted, async || metrics.transport.handshakes(counted).checked_sub(1)).await;
    }
}

/// A running `openssl s_server -www`, and where it listens.
async fn s_server(binary: &Path, dir: &Path, log: PathBuf) -> (Process, SocketAddr) {
    let mut command = Command::new(binary);
    command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-alpn", "http/1.1", "-Verify", "2"]);
    command.args(certificate(dir)).args(verify(dir));
    let mut server = Process::start(&mut command, log);
    let address = until("s_server to listen", async || {
        let log = server.log();
        let line = log.lines().find(|line| line.starts_with("ACCEPT "))?;
        line.split_whitespace().nth(1)?.parse().ok()
    })
    .await;
    (server, address)
}

#[tokio::test]
async fn openssl_as_a_server_for_our_client() {
    let Some(binary) = program("openssl") else { return };
    let (mesh, strangers) = (TestMesh::new().start().await.unwrap(), TestMesh::new().start().await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    mesh.svid_pem(PAYMENTS).unwrap().write(&ours).unwrap();
    strangers.svid_pem(PAYMENTS).unwrap().write(&theirs).unwrap();
    let (_server, address) = s_server(&binary, &ours, dir.path().join("ours.log")).await;
    let (_stranger, elsewhere) = s_server(&binary, &theirs, dir.path().join("theirs.log")).await;

    let get = async |address, identity: &str| {
        let web = caller(&mesh, WEB, address, identity, HttpVersion::Http1).await;
        let response = Client::new(&web, "payments").unwrap().get("/").send().await?;
        assert_eq!(response.status(), 200);
        response.text().await
    };
    // The page tells about the handshake: TLS 1.3, and that our certificate was taken.
    let page = get(address, PAYMENTS).await.unwrap();
    assert!(page.contains("TLSv1.3") && page.contains("Client certificate"), "{page}");
    for (address, identity) in [(address, BATCH), (elsewhere, PAYMENTS)] {
        let error = get(address, identity).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerIdentity, "{error:?}");
    }
}
