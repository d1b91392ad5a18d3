//! Certificates of five seconds under load, over real sockets and in real time.
//!
//! Lasts `MESH_ROTATION_SECONDS`, 20 unless it is set; two minutes are 24 lifetimes. In virtual time far more are done
//! elsewhere: this is for what only real clocks, files and sockets do.

use std::future::IntoFuture;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use axum::{Router, serve::Listener};
use http::Request;
use mesh_core::Mesh;
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::config::HttpVersion;
use mesh_tower::{Client, Connection};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LIFETIME: Duration = Duration::from_secs(5);
/// Requests a second of each protocol.
const RATE: u64 = 100;

fn seconds() -> u64 {
    std::env::var("MESH_ROTATION_SECONDS").map_or(20, |text| text.parse().unwrap())
}

/// The configuration of a workload whose certificates come from the development authority in `dir`.
fn config(dir: &Path, name: &str, rest: &str) -> std::path::PathBuf {
    let file = dir.join(format!("{name}.yaml"));
    let ttl = LIFETIME.as_secs();
    let yaml = format!(
        "workload: {{ name: {name}, namespace: test, service_account: {name} }}\n\
         identity: {{ trust_domain: test, source: {{ dev_ca: {{ dir: ca, svid_ttl: {ttl}s }} }} }}\n\
         authorization: {{ no_policy: allow }}\n{rest}"
    );
    std::fs::write(&file, yaml).unwrap();
    file
}

async fn mesh(dir: &Path, name: &str, rest: &str) -> Mesh {
    Mesh::builder().config_file(config(dir, name, rest)).start().await.unwrap()
}

/// What the handlers saw of their callers' certificates.
#[derive(Default)]
struct Seen {
    /// The longest that a request came after its connection's certificate had ended.
    overstay_ms: AtomicU64,
    serials: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

async fn show(State(seen): State<Arc<Seen>>, request: Request<Body>) -> &'static str {
    let svid = request.extensions().get::<Arc<Connection>>().unwrap().peer().svid.clone().unwrap();
    let overstay = SystemClock.now().duration_since(svid.not_after).unwrap_or_default();
    seen.overstay_ms.fetch_max(u64::try_from(overstay.as_millis()).unwrap(), Ordering::Relaxed);
    seen.serials.lock().unwrap().insert(svid.serial.clone());
    "shown"
}

/// The failed handshakes and connects in a mesh's metrics: (name and labels, count).
fn failures(mesh: &Mesh) -> Vec<String> {
    let metrics = mesh.metrics().encode();
    let failed = |line: &&str| {
        let handshake = line.contains("handshakes_total{") && !line.contains(r#"result="ok""#);
        handshake || line.contains("connections_failed_total{")
    };
    metrics.lines().filter(failed).filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_five_seconds_cost_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let orders = mesh(dir.path(), "orders", "").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Listener::local_addr(&listener).unwrap();
    let seen = Arc::new(Seen::default());
    let app = Router::new().route("/", get(show)).with_state(Arc::clone(&seen));
    tokio::spawn(mesh_tower::serve(&orders, listener, app).into_future());

    let (failed, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut meshes = vec![orders];
    let mut loads = tokio::task::JoinSet::new();
    let end = Instant::now() + Duration::from_secs(seconds());
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let name = format!("web-{http:?}").to_lowercase();
        let version = if http == HttpVersion::Http1 { "http1" } else { "http2" };
        let clusters = format!(
            "clusters: {{ orders: {{ discover: {{ static: ['{address}'] }}, \
             identities: ['spiffe://test/ns/test/sa/orders'], pool: {{ http: {version} }} }} }}\n"
        );
        let web = mesh(dir.path(), &name, &clusters).await;
        let client = Client::new(&web, "orders").unwrap();
        meshes.push(web);
        let (failed, done) = (Arc::clone(&failed), Arc::clone(&done));
        loads.spawn(async move {
            let mut tick = interval(Duration::from_micros(1_000_000 / RATE));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut requests = tokio::task::JoinSet::new();
            while Instant::now() < end {
                tick.tick().await;
                let (client, failed, done) = (client.clone(), Arc::clone(&failed), Arc::clone(&done));
                requests.spawn(async move {
                    match client.get("/").send().await {
                        Ok(response) if response.status() == 200 => _ = done.fetch_add(1, Ordering::Relaxed),
                        other => {
                            println!("failed: {other:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
                while requests.try_join_next().is_some() {}
            }
            requests.join_all().await;
        });
    }
    loads.join_all().await;

    let (failed, done) = (failed.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
    let overstay = Duration::from_millis(seen.overstay_ms.load(Ordering::Relaxed));
    let serials = seen.serials.lock().unwrap().len();
    println!("{} s, {done} requests, {failed} failed, {serials} certificates, overstay {overstay:?}", seconds());
    assert_eq!(failed, 0);
    assert!(overstay <= LIFETIME / 10, "{overstay:?}");
    // Renewed at half of their life, by two callers: else this proves nothing.
    let lifetimes = seconds() / LIFETIME.as_secs();
    assert!(serials as u64 >= 2 * lifetimes, "only {serials} certificates");
    assert!(done as u64 > seconds() * RATE / 2, "only {done} requests");
    for mesh in &meshes {
        assert_eq!(failures(mesh), Vec::<String>::new());
    }
}
