//! The issuer is away: nothing fails before the certificates end, everything after, and it is back within 5 s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::clock::WallClock;
use mesh_core::config::HttpVersion;
use mesh_core::identity::Identity;
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_tower::{Client, ErrorKind};
use tokio::time::{Instant, sleep};

use super::kit::{Agent, Authority, Calendar, Network, S, counted, id, workload};

const TTL: Duration = Duration::from_secs(60);

async fn outage(seed: u64, http: HttpVersion, away: Duration) {
    let told = format!("seed {seed}, {http:?}, away for {away:?}");
    let clock: Arc<dyn WallClock> = Calendar::new();
    let authority = Authority::new(TTL, clock.clone());
    let network = Network::new(clock.clone());
    let rng = Rng::seeded(seed);
    let agent = |name: &str| {
        let (authority, clock) = (authority.clone(), clock.clone());
        Arc::new(Agent { authority, id: id(name), clock, rng: rng.fork(), renews: true })
    };
    let address: SocketAddr = ([10, 0, 0, 1], 8443).into();
    let orders = workload("orders", agent("orders"), clock.clone(), &[]).await;
    network.serve(&orders, address, Router::new().route("/", get(|| async { "ok" })));
    let web = workload("web", agent("web"), clock.clone(), &[("orders", http, address, "orders")]).await;
    network.join(&web);
    let client = Client::new(&web, "orders").unwrap();
    let call = || async { client.get("/").no_retry().send().await?.text().await };

    // Two lifetimes of calm, then the issuer goes at some moment of the third.
    let calm = Instant::now() + TTL * 2 + TTL.mul_f64(rng.unit());
    while Instant::now() < calm {
        call().await.unwrap();
        sleep(S / 4).await;
    }
    authority.down.store(true, SeqCst);
    let gone = Instant::now();
    let end = |identity: &Snapshot<Identity>| identity.load().svid().unwrap().not_after();
    let last = || end(orders.identity()).min(end(web.identity()));
    let mut before = 0;
    while clock.now() + S / 4 < last() {
        call()
            .await
            .unwrap_or_else(|error| panic!("{told}: {:?} before expiry: {error}", last().duration_since(clock.now())));
        before += 1;
        sleep(S / 8).await;
    }
    assert!(before > 50, "{told}");
    while clock.now() <= last() {
        sleep(S / 100).await;
    }

    let mut refused = 0;
    while gone.elapsed() < away {
        let error = call().await.expect_err("nothing goes on without a certificate");
        let fits = [ErrorKind::OwnIdentity, ErrorKind::Connect, ErrorKind::PeerIdentity, ErrorKind::Connection];
        assert!(fits.contains(&error.kind()), "{told}: {error}");
        refused += 1;
        sleep(if away > TTL * 10 { S * 7 } else { S / 4 }).await;
    }
    assert!(refused > 50, "{told}: {refused}");
    assert_eq!(network.open(), 0, "{told}: no connection outlives the certificates");
    assert!(network.overstay() <= S, "{told}: {:?}", network.overstay());
    let readiness = [orders.ready(), web.ready()].map(|ready| ready.unwrap_err().reason());
    assert_eq!(readiness, ["expired", "expired"], "{told}");
    let unready = counted(&orders, "mesh_server_handshakes_total{result=\"own_svid_expired\"}", &[]);
    println!(
        "{told}: {before} answered before expiry, {refused} refused after, {unready} handshakes without an own SVID"
    );

    authority.down.store(false, SeqCst);
    let back = Instant::now();
    while call().await.is_err() {
        assert!(back.elapsed() <= 5 * S, "{told}: not back after {:?}", back.elapsed());
        sleep(S / 20).await;
    }
    println!("{told}: back after {:?}", back.elapsed());
    while back.elapsed() < TTL * 2 {
        call().await.unwrap();
        sleep(S / 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_away_costs_nothing_before_expiry_and_nothing_after_its_return() {
    for (seed, http) in (0..4).zip([HttpVersion::Http1, HttpVersion::Http2].into_iter().cycle()) {
        outage(seed, http, TTL * 4).await;
    }
    // Pauses do not grow with the outage.
    outage(4, HttpVersion::Http2, 3 * 3600 * S).await;
}
