//! Forty lifetimes of every certificate, with requests and streams all the time: none of them notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use mesh_core::clock::WallClock;
use mesh_core::config::HttpVersion;
use mesh_core::rng::Rng;
use mesh_tower::Client;
use tokio::time::{Instant, sleep};

use super::kit::{Agent, Authority, Calendar, Network, S, counted, id, workload};

const TTL: Duration = Duration::from_secs(20);
const LIFETIMES: u32 = 40;

/// What became of one run.
#[derive(Debug, Default)]
struct Outcome {
    ok: AtomicUsize,
    failed: AtomicUsize,
    /// Why the first ones failed.
    told: std::sync::Mutex<Vec<String>>,
}

impl Outcome {
    fn note(&self, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.ok.fetch_add(1, SeqCst)),
            Err(error) => {
                self.failed.fetch_add(1, SeqCst);
                let mut told = self.told.lock().unwrap();
                if told.len() < 5 {
                    told.push(error);
                }
            }
        }
    }
}

fn router() -> Router {
    let endless = || async {
        let ticks = stream::unfold((), |()| async {
            sleep(S / 2).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"tick")), ()))
        });
        Body::from_stream(ticks)
    };
    let slow = || async {
        sleep(Duration::from_millis(700)).await;
        "slow"
    };
    Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow)).route("/endless", get(endless))
}

/// What every request said, the handshakes that failed on either side, and the worst overstay.
async fn run(renews: bool, lifetimes: u32) -> (Arc<Outcome>, u64, Duration, usize) {
    let clock: Arc<dyn WallClock> = Calendar::new();
    let authority = Authority::new(TTL, clock.clone());
    let network = Network::new(clock.clone());
    let agent = |name: &str, seed| {
        let (authority, clock) = (authority.clone(), clock.clone());
        Arc::new(Agent { authority, id: id(name), clock, rng: Rng::seeded(seed), renews })
    };
    let address: SocketAddr = ([10, 0, 0, 1], 8443).into();
    let orders = workload("orders", agent("orders", 1), clock.clone(), &[]).await;
    network.serve(&orders, address, router());
    let calls = [
        ("one", HttpVersion::Http1, address, "orders"),
        ("two", HttpVersion::Http2, address, "orders"),
        ("streams", HttpVersion::Http2, address, "orders"),
    ];
    let web = workload("web", agent("web", 2), clock.clone(), &calls).await;
    network.join(&web);

    let outcome = Arc::new(Outcome::default());
    let end = Instant::now() + TTL * lifetimes;
    let mut callers = Vec::new();
    for (cluster, path, pause) in [
        ("one", "/quick", 230),
        ("two", "/quick", 170),
        ("one", "/slow", 300),
        ("two", "/slow", 100),
        ("two", "/quick", 410),
    ] {
        let (client, outcome) = (Client::new(&web, cluster).unwrap(), outcome.clone());
        callers.push(tokio::spawn(async move {
            while Instant::now() < end {
                let answer = async { client.get(path).no_retry().send().await?.text().await };
                outcome.note(answer.await.map(drop).map_err(|error| format!("{cluster} {path}: {error}")));
                sleep(Duration::from_millis(pause)).await;
            }
        }));
    }
    // Streams that never end by themselves: only the certificates end their connections.
    let client = Client::new(&web, "streams").unwrap();
    callers.push(tokio::spawn(async move {
        while Instant::now() < end {
            if let Ok(response) = client.get("/endless").timeout(TTL * 100).no_retry().send().await {
                drop(tokio::time::timeout_at(end, response.text()).await);
            }
            sleep(S / 10).await;
        }
    }));
    for caller in callers {
        caller.await.unwrap();
    }
    let failed = counted(&orders, "mesh_server_handshakes_total", &["result=\"ok\""])
        + counted(&web, "mesh_client_connections_failed_total", &[]);
    let connections = network.lives.lock().unwrap().len();
    (outcome, failed, network.overstay(), connections)
}

#[tokio::test(start_paused = true)]
async fn forty_lifetimes_pass_and_no_request_notices() {
    let (outcome, handshakes, overstay, connections) = run(true, LIFETIMES).await;
    let (ok, failed) = (outcome.ok.load(SeqCst), outcome.failed.load(SeqCst));
    println!(
        "{ok} requests, {failed} failed; {connections} connections, {handshakes} failed handshakes; overstay {overstay:?}"
    );
    assert_eq!((failed, handshakes), (0, 0), "{:?}", outcome.told);
    assert!(ok > 10_000 && connections > LIFETIMES as usize * 3, "{ok} requests over {connections} connections");
    assert!(overstay <= TTL / 10, "{overstay:?}");
}

/// Without renewal the same traffic fails as soon as a lifetime is over.
#[tokio::test(start_paused = true)]
async fn without_renewal_it_ends_with_the_first_lifetime() {
    let (outcome, _, overstay, _) = run(false, 3).await;
    let (ok, failed) = (outcome.ok.load(SeqCst), outcome.failed.load(SeqCst));
    assert!(ok > 100 && failed > ok, "{ok} ok, {failed} failed");
    assert!(overstay <= TTL / 10, "{overstay:?}");
}
