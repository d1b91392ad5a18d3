//! A real OpenID provider: its tokens, its keys, and their rotation under load. (RFC 9068; reliability F21)

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::config::{IssuerConfig, PlugConfig};
use mesh_core::telemetry::KeyLookup;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, Principal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::process::{Process, demanded, program};
use super::{ALLOW_WEB, WEB};
use crate::kit::{read_answer, until, until_within};

/// The shortest interval at which keys may be fetched.
const REFRESH: Duration = Duration::from_secs(30);

/// A running provider.
struct Provider {
    issuer: String,
    _process: Process,
    _dir: TempDir,
}

impl Provider {
    async fn start(node: &Path, modules: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Modules are looked for beside the program that imports them.
        std::os::unix::fs::symlink(modules, dir.path().join("node_modules")).unwrap();
        let script = dir.path().join("idp.mjs");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/idp.mjs"), &script).unwrap();
        let mut process = Process::start(Command::new(node).arg(script), dir.path().join("log"));
        let issuer = until_within(Duration::from_secs(30), "the provider to listen", async || {
            let log = process.log();
            log.lines().find_map(|line| line.strip_prefix("idp ").map(str::to_owned))
        })
        .await;
        Self { issuer, _process: process, _dir: dir }
    }

    async fn ask(&self, target: &str, form: &str) -> String {
        let address = self.issuer.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        // frontend:frontend-secret
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic ZnJvbnRlbmQ6ZnJvbnRlbmQtc2VjcmV0\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await.unwrap()
    }

    async fn rotate(&self, alg: &str) {
        assert!(self.ask(&format!("/_test/rotate?alg={alg}"), "").await.starts_with("HTTP/1.1 200"));
    }

    async fn token(&self) -> String {
        let answer = self.ask("/token", "grant_type=client_credentials").await;
        let (start, end) = (answer.find('{').unwrap(), answer.rfind('}').unwrap());
        let json: Value = serde_json::from_str(&answer[start..=end]).unwrap();
        json["access_token"].as_str().unwrap().to_owned()
    }

    /// A service that takes this provider's tokens.
    fn service(&self, name: &str) -> TestService {
        let discovery = json!({ "dangerous_allow_http": true, "refresh": "30s" });
        let issuer = IssuerConfig::new(
            self.issuer.clone(),
            vec!["urn:svc:orders".to_owned()],
            PlugConfig::new("discovery", &discovery),
        );
        let subject = async |peer: Principal| {
            peer.token.as_ref().and_then(|token| token.subject.as_deref().map(str::to_owned)).unwrap_or_default()
        };
        TestService::new(name)
            .policy(ALLOW_WEB)
            .plugin(mesh_tower::fetch::plugin())
            .config(move |config| config.tokens = vec![issuer.clone()])
            .app(move |_| Ok(Router::new().route("/", get(subject))))
    }
}

/// Node.js and its modules that `cargo xtask peers` installs; `None` only where nobody demands them.
fn installed() -> Option<(PathBuf, PathBuf)> {
    let peers = std::env::var_os("MESH_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"), PathBuf::from);
    let modules = peers.join("node/node_modules");
    let found = Some(modules).filter(|modules| modules.join("oidc-provider").exists());
    let modules = demanded(found, &format!("no OpenID provider below {}", peers.display()))?;
    Some((program("node")?, modules))
}

async fn status(client: &Client, token: &str) -> u16 {
    client.get("/").header("authorization", format!("Bearer {token}")).send().await.unwrap().status().as_u16()
}

/// Calls with `token` without a pause until it is told to stop: how many calls, and how many were refused.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Load {
    fn start(client: Client, token: String) -> Self {
        let load = Self { stop: Arc::default(), calls: Arc::default(), refused: Arc::default() };
        let (stop, calls, refused) = (Arc::clone(&load.stop), Arc::clone(&load.calls), Arc::clone(&load.refused));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let found = status(&client, &token).await;
                calls.fetch_add(1, Ordering::SeqCst);
                refused.fetch_add(u64::from(found != 200), Ordering::SeqCst);
            }
        });
        load
    }

    fn end(&self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        (self.calls.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst))
    }
}

async fn clients(mesh: &RunningTestMesh, services: &[&str]) -> Vec<Client> {
    let mut clients = Vec::new();
    for service in services {
        clients.push(mesh.client_as(WEB, service).await.unwrap());
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_real_provider_rotate_under_load_without_a_false_refusal() {
    let Some((node, modules)) = installed() else { return };
    let provider = Provider::start(&node, &modules).await;
    // One service for each rotation: each knows its keys from before.
    let names = ["first", "second", "third"];
    let mut mesh = TestMesh::new();
    for name in names {
        mesh = mesh.with(provider.service(name));
    }
    let mesh = mesh.start().await.unwrap();
    let clients = clients(&mesh, &names).await;
    let oldest = provider.token().await;
    let answer = clients[0].get("/").header("authorization", format!("Bearer {oldest}")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "frontend"));

    let loads: Vec<_> = clients.iter().map(|client| Load::start(client.clone(), oldest.clone())).collect();
    let mut newest = oldest.clone();
    for (alg, client) in ["ES256", "EdDSA", "RS256"].into_iter().zip(&clients) {
        provider.rotate(alg).await;
        newest = provider.token().await;
        let begun = Instant::now();
        assert_eq!(status(client, &newest).await, 200, "{alg}: refused at its first use");
        assert!(begun.elapsed() < Duration::from_secs(1), "{alg}: {:?}", begun.elapsed());
    }
    for load in &loads {
        until("calls under load", async || (load.calls.load(Ordering::SeqCst) > 100).then_some(())).await;
        let (calls, refused) = load.end();
        assert_eq!(refused, 0, "of {calls} calls during the rotations");
    }

    // What is withdrawn is refused within the interval, and nothing else is; junk changes neither.
    let good = Load::start(clients[2].clone(), newest);
    assert!(provider.ask("/_test/drop-old", "").await.starts_with("HTTP/1.1 200"));
    let dropped = Instant::now();
    let junk = oldest.split_once('.').unwrap().1;
    let encode = |header: Value| base64(header.to_string().as_bytes());
    for n in 0..500 {
        let header = encode(json!({ "alg": "RS256", "typ": "at+jwt", "kid": format!("junk-{n}") }));
        assert_eq!(status(&clients[2], &format!("{header}.{junk}")).await, 401);
    }
    until_within(REFRESH + Duration::from_secs(5), "the dropped key to be refused", async || {
        (status(&clients[2], &oldest).await == 401).then_some(())
    })
    .await;
    assert!(dropped.elapsed() <= REFRESH + Duration::from_secs(1), "{:?}", dropped.elapsed());
    let lookups = mesh.mesh("third").unwrap().metrics().runtime.key_lookups(KeyLookup::Asked);
    assert!(lookups <= 2, "{lookups} lookups for 500 unknown keys and a rotation");
    let (calls, refused) = good.end();
    assert!(calls > 100 && refused == 0, "{refused} of {calls} calls with a key that is there");
    println!("{calls} calls while junk came; the dropped key was refused after {:?}", dropped.elapsed());
}

/// Base64url without padding. (RFC 4648 5)
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |chunk: &[u8], at: usize| {
        let number =
            chunk.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        char::from(ALPHABET[(number >> (18 - 6 * at)) as usize & 63])
    };
    bytes.chunks(3).flat_map(|chunk| (0..=chunk.len()).map(move |at| digit(chunk, at))).collect()
}
