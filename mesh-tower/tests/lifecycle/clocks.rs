//! Clocks that are wrong. Certificates know no leeway: what is wrong by much is refused, by name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::Mesh;
use mesh_core::config::HttpVersion;
use mesh_core::rng::Rng;
use mesh_tower::{Client, ErrorKind};
use tokio::time::{Instant, sleep};

use super::kit::{Agent, Authority, Calendar, Network, S, counted, id, workload};

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 8443);

struct World {
    network: Network,
    authority: Arc<Authority>,
    server_clock: Arc<Calendar>,
    client_clock: Arc<Calendar>,
    orders: Mesh,
    clients: u64,
}

impl World {
    /// The issuer's clock is right; the server's and the clients' are what the test makes of them.
    async fn new(
        ttl: Duration,
        server_clock: Arc<Calendar>,
        client_clock: Arc<Calendar>,
        issuer: Arc<Calendar>,
    ) -> Self {
        let authority = Authority::new(ttl, issuer.clone());
        let network = Network::new(issuer);
        let agent = Agent {
            authority: authority.clone(),
            id: id("orders"),
            clock: server_clock.clone(),
            rng: Rng::seeded(1),
            renews: true,
        };
        let orders = workload("orders", Arc::new(agent), server_clock.clone(), &[]).await;
        let slow = || async {
            sleep(10 * S).await;
            "slow"
        };
        let router = Router::new().route("/", get(|| async { "ok" })).route("/slow", get(slow));
        network.serve(&orders, SocketAddr::from(SERVER), router);
        Self { network, authority, server_clock, client_clock, orders, clients: 0 }
    }

    /// A client that has no connection yet.
    async fn client(&mut self) -> (Mesh, Client) {
        self.clients += 1;
        let (authority, clock) = (self.authority.clone(), self.client_clock.clone());
        let rng = Rng::seeded(self.clients);
        let agent = Agent { authority, id: id("web"), clock: clock.clone(), rng, renews: true };
        let calls = [("orders", HttpVersion::Http2, SocketAddr::from(SERVER), "orders")];
        let web = workload("web", Arc::new(agent), clock, &calls).await;
        self.network.join(&web);
        let client = Client::new(&web, "orders").unwrap();
        (web, client)
    }

    fn refused(&self, reason: &str) -> u64 {
        counted(&self.orders, &format!("mesh_server_handshakes_total{{result=\"{reason}\"}}"), &[])
    }
}

async fn call(client: &Client) -> Result<String, mesh_tower::Error> {
    client.get("/").no_retry().send().await?.text().await
}

#[tokio::test(start_paused = true)]
async fn half_a_minute_refuses_nobody() {
    for server in [-30, 0, 30] {
        for client in [-30, 0, 30] {
            let clocks = [server, client, 0].map(|skew| {
                let clock = Calendar::new();
                clock.skew(skew);
                clock
            });
            let [server_clock, client_clock, issuer] = clocks;
            let mut world = World::new(3600 * S, server_clock, client_clock, issuer).await;
            let (web, client) = world.client().await;
            assert_eq!((world.orders.ready(), web.ready()), (Ok(()), Ok(())));
            for _ in 0..10 {
                call(&client).await.unwrap();
                sleep(S).await;
            }
            assert_eq!(counted(&world.orders, "mesh_server_handshakes_total", &["\"ok\""]), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_are_refused_by_name_and_pass_when_the_clock_is_right_again() {
    // (how wrong the server's clock is, what its readiness says, what it says of the handshake)
    for (wrong_by, ready, reason) in [(600, "expired", "own_svid_expired"), (-600, "not_yet_valid", "not_yet_valid")] {
        let mut world = World::new(300 * S, Calendar::new(), Calendar::new(), Calendar::new()).await;
        let (_, client) = world.client().await;
        call(&client).await.unwrap();
        world.server_clock.skew(wrong_by);
        sleep(40 * S).await; // calendar time is looked at every 30 s
        let (_, fresh) = world.client().await;
        let error = call(&fresh).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::PeerIdentity), "{wrong_by}: {error}");
        assert!(world.refused(reason) >= 1, "{wrong_by}: {}", world.orders.metrics().encode());
        assert_eq!(world.orders.ready().unwrap_err().reason(), ready);

        world.server_clock.skew(0);
        let right = Instant::now();
        while call(&fresh).await.is_err() {
            assert!(right.elapsed() <= 6 * S, "{wrong_by}: still refused");
            sleep(S / 10).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn jumps_of_an_hour_break_nothing_that_is_timed() {
    // One machine: both sides and the issuer jump together.
    let clock = Calendar::new();
    let mut world = World::new(24 * 3600 * S, clock.clone(), clock.clone(), clock.clone()).await;
    let (web, client) = world.client().await;
    for (jump, harmless) in [(3600, true), (0, false), (3600, true), (-3600, false), (0, true)] {
        let slow = tokio::spawn({
            let client = client.clone();
            async move {
                let begun = Instant::now();
                let answer = async { client.get("/slow").timeout(15 * S).no_retry().send().await?.text().await };
                (answer.await, begun.elapsed())
            }
        });
        sleep(3 * S).await;
        clock.skew(jump);
        let jumped = Instant::now();
        let mut failures = 0;
        while jumped.elapsed() < 20 * S {
            if let Err(error) = call(&client).await {
                assert_ne!(error.kind(), ErrorKind::Timeout, "jump to {jump}: {error}");
                assert!(jumped.elapsed() <= 5 * S, "jump to {jump}, after {:?}: {error}", jumped.elapsed());
                failures += 1;
            }
            sleep(S / 10).await;
        }
        let (answer, took) = slow.await.unwrap();
        match answer {
            Ok(_) => assert!((10 * S..11 * S).contains(&took), "{took:?}"),
            Err(error) => assert!(!harmless && error.kind() != ErrorKind::Timeout, "jump to {jump}: {error}"),
        }
        assert!(!harmless || failures == 0, "jump to {jump}: {failures} failed");
        assert_eq!((world.orders.ready(), web.ready()), (Ok(()), Ok(())), "jump to {jump}");
    }
    for mesh in [&world.orders, &web] {
        assert_eq!(counted(mesh, "mesh_task_panics_total", &[]), 0);
    }
}
