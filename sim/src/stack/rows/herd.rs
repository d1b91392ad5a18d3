//! A thousand clients lose their server at once, and find it again.
//!
//! What the server sees are connections that come in. They are idle: whoever sends requests meanwhile connects when a
//! request comes, and so as evenly as those do.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::rng::Rng;
use mesh_tower::Client;
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
/// Handshakes are counted in spans of this length.
const SPAN: Duration = Duration::from_millis(100);
/// Over how many of them the mean is taken at least.
const LEAST_SPANS: usize = 10;

pub(super) fn herd(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let clients = scale.pick(1_000, 100);
    let mut sim = network(seed, Duration::from_secs(60));
    let rng = Rng::seeded(seed);
    let router = |_: &_, _| Ok(Router::new().route("/", get(|| async { "here" })));
    let server = servers(&mut sim, std::iter::once("server".to_owned()), &rng, |_| Ok(()), router);
    let (address, process) = server.into_iter().next().ok_or("no server")?;
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
        process.kill();
        sleep(away).await;
        process.start();
        let start = now();
        let mut back = JoinSet::new();
        for client in clients {
            back.spawn(async move {
                while !client.endpoints().iter().all(|endpoint| endpoint.usable) {
                    sleep(SPAN / 10).await;
                }
                now()
            });
        }
        let back = tokio::time::timeout(BACK, back.join_all()).await;
        Ok(back.map(|back| back.into_iter().map(|at| at.saturating_sub(start)).collect::<Vec<_>>()))
    };
    let Ok(back) = world::run(sim, client)? else {
        return Ok(Seen { met: false, text: format!("not all back after {BACK:?}"), badness: f64::INFINITY });
    };
    let span = |at: Duration| (at.as_millis() / SPAN.as_millis()) as usize;
    let last = back.iter().max().copied().unwrap_or_default();
    // Whoever all come at the first moment must not set the mean by it.
    let mut counts = vec![0_usize; (span(last) + 1).max(LEAST_SPANS)];
    for at in &back {
        if let Some(count) = counts.get_mut(span(*at)) {
            *count += 1;
        }
    }
    let peak = counts.iter().max().copied().unwrap_or_default();
    let mean = back.len() as f64 / counts.len() as f64;
    let ratio = peak as f64 / mean;
    Ok(Seen {
        met: ratio <= 3.0,
        text: format!("peak {peak}, {ratio:.1}x the mean of {mean:.0}; all back after {} ms", last.as_millis()),
        badness: ratio,
    })
}
