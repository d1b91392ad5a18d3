//! Key logging, in processes of their own: an environment belongs to a whole process.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used)] // a test

use std::path::Path;
use std::process::Command;

use axum::Router;
use axum::routing::get;
use mesh_tower::test_util::TestMesh;

/// Runs [`handshake`] in a process whose `SSLKEYLOGFILE` is `file`, and returns what it logged.
fn log_of_a_handshake(file: Option<&Path>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "handshake", "--ignored", "--nocapture"]).env_remove("SSLKEYLOGFILE");
    if let Some(file) = file {
        command.env("SSLKEYLOGFILE", file);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

#[test]
fn secrets_are_written_only_by_a_build_with_the_feature_and_never_silently() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.log");
    let log = log_of_a_handshake(Some(&file));
    let unset = log_of_a_handshake(None);
    if cfg!(feature = "keylog") {
        let keys = std::fs::read_to_string(&file).unwrap();
        for label in ["CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "] {
            assert!(keys.lines().any(|line| line.starts_with(label)), "{keys}");
        }
        assert!(log.contains("ERROR") && log.contains("TLS SECRETS ARE WRITTEN"), "{log}");
        assert!(unset.contains("WARN") && unset.contains("never deploy"), "{unset}");
    } else {
        assert!(!file.exists(), "secrets without the feature");
        for log in [log, unset] {
            assert!(!log.contains("SSLKEYLOGFILE"), "{log}");
        }
    }
}

#[tokio::test]
#[ignore = "the other test runs it, with an environment of its own"]
async fn handshake() {
    tracing_subscriber::fmt().with_ansi(false).init();
    let app = Router::new().route("/", get(|| async { "hello" }));
    let mesh = TestMesh::new().service("orders", app).start().await.unwrap();
    let web = mesh.client_as("spiffe://test/ns/shop/sa/web", "orders").await.unwrap();
    assert_eq!(web.get("/").send().await.unwrap().text().await.unwrap(), "hello");
}
