//! Both programs against each other, in every mode and protocol.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
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

/// What `cargo xtask bench-setup` writes, as far as connections need it.
fn write_setup(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        if name.ends_with(".key") {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    };
    write("ca.pem", &ca.pem());
    write("token.jwt", "a.b.c");
    for name in ["server", "client"] {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://bench.example/ns/bench/sa/{name}").try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.pem"), &params.signed_by(&key, &ca).unwrap().pem());
        write(&format!("{name}.key"), &key.serialize_pem());
        let text = format!(
            "workload: {{ name: {name}, namespace: bench }}\n\
             identity: {{ trust_domain: bench.example, source: {{ files: {{ certificate: {name}.pem, key: {name}.key, bundle: ca.pem }} }} }}\n\
             policies: [ policy.yaml ]\n\
             clusters: {{ bench: {{ discover: {{ static: [\"127.0.0.1:1\"] }}, identities: [ \"spiffe://bench.example/ns/bench/sa/server\" ] }} }}\n"
        );
        write(&format!("{name}.yaml"), &text);
    }
    write(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: bench, namespace: bench }\n\
         spec: { rules: [ { from: [ { source: { principals: [bench.example/ns/bench/sa/client] } } ] } ] }\n",
    );
}

#[test]
fn handshakes() {
    let dir = tempfile::tempdir().unwrap();
    write_setup(dir.path());
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-handshake"));
        command.arg("--dir").arg(dir.path()).args(["--pairs", "10"]).output().unwrap()
    };
    let output = run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for arm in ["bare", "mesh", "ratio"] {
        for side in ["client", "server", "both"] {
            assert!(report[arm][side].as_f64().unwrap() > 0.0, "{report}");
        }
    }
    // Both arms hold the other side to its name: with the certificates exchanged nobody is who should be there.
    for file in ["pem", "key"] {
        let [server, client, other] =
            ["server", "client", "other"].map(|name| dir.path().join(format!("{name}.{file}")));
        std::fs::rename(&server, &other).unwrap();
        std::fs::rename(&client, &server).unwrap();
        std::fs::rename(&other, &client).unwrap();
    }
    let output = run();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A bench-idle, which does one step for each line.
struct Idle {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Idle {
    fn start(dir: &Path, mode: &str, side: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-idle"));
        command.arg("--dir").arg(dir).args(["--mode", mode]).args(side);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn step(&mut self) -> Value {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("`{line}`"))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn idle_connections() {
    let dir = tempfile::tempdir().unwrap();
    write_setup(dir.path());
    std::fs::remove_file(dir.path().join("token.jwt")).unwrap();
    for (server, client) in [("mtls", "mtls"), ("mesh", "mtls"), ("mtls", "mesh")] {
        let mut server = Idle::start(dir.path(), server, &["serve", "--listen", "0.0.0.0:0"]);
        let line = server.line();
        let port = line.trim().rsplit_once(':').unwrap().1;
        let mut client = Idle::start(dir.path(), client, &["open", "--port", port, "--conns", "20"]);
        let live = |look: Value| look["live"].as_u64().unwrap();
        client.step();
        let (before, known) = (live(server.step()), live(client.step()));
        let held = client.step();
        assert_eq!(held["connections"], 20, "{held}");
        assert!(held["requests"].as_u64().unwrap() >= 20, "{held}");
        // No HTTP/2 connection is had for less: what is measured is really held.
        assert!(live(held) > known + 20 * 8 * 1024);
        assert!(live(server.step()) > before + 20 * 8 * 1024);
    }
}
