//! A server that allows few streams on a connection, and a caller who needs many.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::config::ListenerConfig;
use mesh_core::rng::Rng;
use mesh_tower::Client;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::load::call;
use crate::stack::world::{self, cluster, mesh, network, now, servers};

const LIMIT: u32 = 10;
const IN_FLIGHT: usize = 200;
/// As many as they need, and no more.
const CONNECTIONS: usize = IN_FLIGHT / LIMIT as usize;
/// Until connections are made.
const WARM_UP: Duration = Duration::from_millis(200);

pub(super) fn streams(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let length = scale.pick(Duration::from_secs(2), Duration::from_millis(200));
    let connections = if arm == Arm::Mesh { CONNECTIONS } else { 1 };
    let unlimited = throughput(seed, 1_000, connections, length)?;
    let limited = throughput(seed, LIMIT, connections, length)?;
    let share = 100.0 * limited as f64 / unlimited as f64;
    Ok(Seen {
        met: share >= 90.0,
        text: format!("{limited} requests in {} ms, {share:.1} % of {unlimited}", length.as_millis()),
        badness: 100.0 - share,
    })
}

/// How many requests end well in `length`, when the server allows so many streams on each of so many connections.
fn throughput(seed: u64, limit: u32, connections: usize, length: Duration) -> Result<usize, Fault> {
    let mut sim = network(seed, Duration::from_secs(60));
    let rng = Rng::seeded(seed);
    let edit = move |config: &mut mesh_core::Config| {
        let listener = ListenerConfig::new(([0, 0, 0, 0], 0).into()).max_concurrent_streams(limit);
        config.listeners.insert("default".to_owned(), listener);
        Ok(())
    };
    let router = |_: &_, rng: Rng| {
        let work = move || {
            let work = Duration::from_micros(40_000 + rng.below(20_000) as u64);
            async move { sleep(work).await }
        };
        Ok(Router::new().route("/", get(work)))
    };
    let server = servers(&mut sim, std::iter::once("server".to_owned()), &rng, edit, router);
    let (address, _process) = server.into_iter().next().ok_or("no server")?;
    world::run(sim, async move {
        let web = mesh("web", rng.fork(), |config| {
            let mut server = cluster(&[address])?;
            server.pool.max_connections = connections;
            config.clusters.insert("server".to_owned(), server);
            Ok(())
        });
        let client = Client::new(&web.await?, "server")?;
        let begin = now() + WARM_UP;
        let end = begin + length;
        let mut callers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let client = client.clone();
            callers.spawn(async move {
                let mut done = 0;
                while now() < end {
                    let call = call(client.clone(), "/", done).await;
                    assert!(call.ok, "{call:?}");
                    done += usize::from(now() > begin && now() <= end);
                }
                done
            });
        }
        let mut done = 0;
        while let Some(caller) = callers.join_next().await {
            done += caller?;
        }
        Ok(done)
    })
}
