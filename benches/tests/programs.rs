//! Both programs against each other, in every mode and protocol.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(mode: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bench-server"))
            .args(["--listen", "127.0.0.1:0", "--mode"])
            .args(mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn load(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bench-client"))
        .args(["--conc", "4", "--conns", "2", "--secs", "0.3", "--warmup", "0.1", "--header", "x-bench: 1"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn answered(report: &Value) {
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["requests"].as_u64().unwrap() > 10, "{report}");
    let percentiles = ["p50", "p90", "p99", "p999"].map(|name| report[name].as_f64().unwrap());
    assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{report}");
    assert!(report["rps"].as_f64().unwrap() > 30.0, "{report}");
    assert!(report["cpu_seconds"].is_number() || !cfg!(target_os = "linux"), "{report}");
}

#[test]
fn bare() {
    let server = Server::start(&["bare"]);
    let url = format!("http://{}/hello", server.address);
    for proto in ["h1", "h2", "grpc"] {
        answered(&load(&["--url", &url, "--proto", proto, "--mode", "bare"]));
    }
    let wrong = load(&["--url", &url.replace("hello", "nowhere"), "--proto", "h2", "--mode", "bare"]);
    assert_eq!(wrong["requests"], 0);
    assert_eq!(wrong["first_error"], "status 404 Not Found with 0 bytes, expected 200 with 1024");
}

#[test]
fn mtls() {
    let dir = tempfile::tempdir().unwrap();
    let pem = write_pki(dir.path());
    let pem: Vec<&str> = pem.iter().map(String::as_str).collect();
    let server = Server::start(&[&["mtls"], pem.as_slice()].concat());
    let url = format!("https://{}/hello", server.address);
    for proto in ["h1", "h2", "grpc"] {
        answered(&load(&[&["--url", &url, "--proto", proto, "--mode", "mtls"], pem.as_slice()].concat()));
    }
    // Without a certificate of the right authority there is no connection.
    let other = tempfile::tempdir().unwrap();
    write_pki(other.path());
    let path = |dir: &Path, name| dir.join(name).to_str().unwrap().to_owned();
    let output = Command::new(env!("CARGO_BIN_EXE_bench-client"))
        .args(["--url", &url, "--proto", "h2", "--mode", "mtls", "--secs", "0.2", "--warmup", "0"])
        .args(["--cert", &path(other.path(), "leaf.pem"), "--key", &path(other.path(), "leaf.key")])
        .args(["--ca", &path(dir.path(), "ca.pem")])
        .output()
        .unwrap();
    let refused = !output.status.success()
        || serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|report| report["requests"] == 0);
    assert!(refused, "{output:?}");
}

/// A CA and one certificate for `127.0.0.1`; the flags that name them.
fn write_pki(dir: &Path) -> [String; 6] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key, ca) =
        (write("leaf.pem", leaf.pem()), write("leaf.key", key.serialize_pem()), write("ca.pem", ca.pem()));
    ["--cert".to_owned(), cert, "--key".to_owned(), key, "--ca".to_owned(), ca]
}

#[test]
fn mesh() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let server = write(
        "server.yaml",
        "workload: { name: server, namespace: bench }\n\
         identity: { trust_domain: bench.example, source: { dev_ca: { dir: ca } } }\n\
         policies: [ policy.yaml ]\n",
    );
    write(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: bench, namespace: bench }\n\
         spec: { rules: [ { from: [ { source: { principals: [bench.example/ns/bench/sa/client] } } ] } ] }\n",
    );
    let client = |name: &str| {
        let text = format!(
            "workload: {{ name: {name}, namespace: bench }}\n\
             identity: {{ trust_domain: bench.example, source: {{ dev_ca: {{ dir: ca }} }} }}\n\
             clusters:\n  bench:\n    discover: {{ static: [\"127.0.0.1:1\"] }}\n    \
             identities: [ \"spiffe://bench.example/ns/bench/sa/server\" ]\n"
        );
        write(&format!("{name}.yaml"), &text)
    };
    let (allowed, stranger) = (client("client"), client("stranger"));
    let server = Server::start(&["mesh", "--config", &server]);
    let url = format!("https://{}/hello", server.address);
    let args =
        |config, proto| ["--url", &url, "--proto", proto, "--mode", "mesh", "--service", "bench", "--config", config];
    for proto in ["h1", "h2", "grpc"] {
        answered(&load(&args(&allowed, proto)));
    }
    // It is the whole mesh that answers: who is not in the policy gets nothing.
    let refused = load(&args(&stranger, "h2"));
    assert_eq!(refused["requests"], 0, "{refused}");
    assert!(refused["first_error"].as_str().unwrap().contains("403"), "{refused}");
}
