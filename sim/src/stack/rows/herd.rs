//! A thousand clients lose their server at once, and find it again.
//!
//! Counted are the handshakes that the server sees. Once all clients are idle, and come back by themselves; once each has
//! a request every second, which find no connection and would have one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::Mesh;
use mesh_core::rng::Rng;
use mesh_tower::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::world::{self, cluster, mesh, network, now, servers};

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(1);
/// In which all must be back.
const BACK: Duration = Duration::from_secs(15);
/// Between the requests of one client, where there are any.
const PAUSE: Duration = Duration::from_secs(1);
/// Handshakes are counted in spans of this length.
const SPAN: Duration = Duration::from_millis(100);
/// Over how many of them the mean is taken at least.
const LEAST_SPANS: usize = 10;

pub(super) fn herd(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let idle = come_back(seed, arm, scale.pick(1_000, 100), false)?;
    let busy = come_back(seed, arm, scale.pick(300, 60), true)?;
    Ok(Seen {
        met: idle.met && busy.met,
        text: format!("{}; with requests: {}", idle.text, busy.text),
        badness: match arm {
            Arm::Mesh => idle.badness.max(busy.badness),
            Arm::Control => idle.badness.min(busy.badness),
        },
    })
}

/// TLS handshakes that a server has seen, whatever became of them.
fn handshakes(mesh: &Mesh) -> u64 {
    let text = mesh.metrics().encode();
    let lines = text.lines().filter(|line| line.starts_with("mesh_server_handshakes_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn come_back(seed: u64, arm: Arm, clients: usize, busy: bool) -> Result<Seen, Fault> {
    let mut sim = network(seed, Duration::from_secs(60));
    let rng = Rng::seeded(seed);
    let (served, server) = watch::channel(None);
    let router = move |mesh: &Mesh, _| {
        served.send_replace(Some(mesh.clone()));
        Ok(Router::new().route("/", get(|| async { "here" })))
    };
    let address = servers(&mut sim, std::iter::once("server".to_owned()), &rng, |_| Ok(()), router);
    let (address, process) = address.into_iter().next().ok_or("no server")?;
    let away = AWAY + Duration::from_millis(rng.below(1_000) as u64);
    let client = async move {
        let same = rng.next_u64();
        let mut meshes = Vec::new();
        for _ in 0..clients {
            let rng = if arm == Arm::Mesh { rng.fork() } else { Rng::seeded(same) };
            let mesh = mesh("client", rng, |config| {
                config.clusters.insert("server".to_owned(), cluster(&[address])?);
                Ok(())
            });
            meshes.push(mesh.await?);
        }
        let mut clients = Vec::new();
        for mesh in &meshes {
            let client = Client::new(mesh, "server")?;
            client.get("/").send().await?;
            clients.push(client);
        }
        let (over, mut requests) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for client in clients.iter().filter(|_| busy) {
            let client = client.clone();
            let (over, mut wait) = (Arc::clone(&over), PAUSE.mul_f64(rng.unit()));
            requests.spawn(async move {
                while !over.load(Relaxed) {
                    sleep(wait).await;
                    // Whether it is answered is not asked here.
                    drop(client.get("/").send().await);
                    wait = PAUSE;
                }
            });
        }
        process.kill();
        sleep(away).await;
        process.start();
        let (start, mut counts, mut before) = (now(), Vec::new(), 0);
        let back = || clients.iter().all(|client| client.endpoints().iter().all(|endpoint| endpoint.usable));
        let last = loop {
            sleep(SPAN).await;
            let seen = server.borrow().as_ref().map_or(0, handshakes);
            counts.push(seen.saturating_sub(before));
            before = seen;
            let took = now().saturating_sub(start);
            if back() || took > BACK {
                break took;
            }
        };
        over.store(true, Relaxed);
        Ok((counts, last))
    };
    let (mut counts, last) = world::run(sim, client)?;
    // Whoever all come at the first moment must not set the mean by it.
    counts.resize(counts.len().max(LEAST_SPANS), 0);
    let (peak, all) = (counts.iter().max().copied().unwrap_or_default(), counts.iter().sum::<u64>());
    let mean = all as f64 / counts.len() as f64;
    let ratio = peak as f64 / mean;
    Ok(Seen {
        met: ratio <= 3.0 && last <= BACK,
        text: format!(
            "peak {peak} of {all}, {ratio:.1}x the mean of {mean:.0}, all back after {} ms",
            last.as_millis()
        ),
        badness: ratio,
    })
}
