//! One endpoint of ten dies under load: its process is killed, or nothing comes through to it any more.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::config::{RetryConfig, RouteConfig};
use mesh_core::rng::Rng;
use mesh_tower::Client;
use turmoil::hold;

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::load::open_loop;
use crate::stack::world::{self, CLIENT, cluster, mesh, network, now, servers};

const RATE: f64 = 2_000.0;
const ENDPOINTS: usize = 10;
const VICTIM: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Killed,
    Silent,
}

pub(super) fn killed(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    run(seed, arm, scale, Death::Killed, Duration::from_millis(250))
}

pub(super) fn silent(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    run(seed, arm, scale, Death::Silent, Duration::from_secs(1))
}

fn run(seed: u64, arm: Arm, scale: Scale, death: Death, within: Duration) -> Result<Seen, Fault> {
    let at = scale.pick(Duration::from_secs(1), Duration::from_millis(200));
    let end = at + scale.pick(Duration::from_secs(5), within / 4 + Duration::from_millis(200));
    let mut sim = network(seed, end + Duration::from_secs(20));
    let rng = Rng::seeded(seed);
    let names = (0..ENDPOINTS).map(|n| format!("server-{n}"));
    let servers = servers(&mut sim, names, &rng, |_| Ok(()), |_, rng| Ok(router(rng)));
    let (addresses, processes): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
    let key = addresses.get(VICTIM).ok_or("no victim")?.to_string();
    let client = {
        let key = key.clone();
        async move {
            let web = mesh("web", rng.fork(), |config| {
                let mut cluster = cluster(&addresses)?;
                let mut route = RouteConfig::to("servers").timeout(Duration::from_secs(1));
                match (arm, death) {
                    (Arm::Mesh, Death::Killed) => route = route.retry(RetryConfig::default()),
                    (Arm::Mesh, Death::Silent) => {
                        route = route.retry(RetryConfig::default().per_try_timeout(Duration::from_millis(250)));
                    }
                    (Arm::Control, _) => cluster.outlier = cluster.outlier.consecutive_failures(0),
                }
                config.clusters.insert("servers".to_owned(), cluster);
                config.routes.insert("servers".to_owned(), vec![route]);
                Ok(())
            });
            let web = web.await?;
            let client = Client::new(&web, "servers")?;
            let watch = tokio::spawn(out_at(client.clone(), key));
            let dies = async {
                tokio::time::sleep(at.saturating_sub(now())).await;
                match death {
                    Death::Killed => processes.get(VICTIM).ok_or("no victim")?.kill(),
                    Death::Silent => hold(CLIENT, format!("server-{VICTIM}")),
                }
                Ok::<_, Fault>(())
            };
            let (calls, died) = tokio::join!(open_loop(&client, "/", RATE, rng.fork(), end), dies);
            died?;
            watch.abort();
            Ok((calls?, watch.await.ok()))
        }
    };
    let (calls, out) = world::run(sim, client)?;
    let failed = calls.iter().filter(|call| !call.ok).count();
    // Whatever the reports say: nobody was sent there any more.
    let later = |out| calls.iter().filter(|call| call.begun > out && call.attempts.contains(&key)).count();
    let late = out.map_or(0, later);
    let out = out.map(|out| out.saturating_sub(at));
    Ok(Seen {
        met: failed == 0 && late == 0 && out.is_some_and(|out| out <= within),
        text: format!(
            "{failed} of {} failed, {}, {late} sent there later",
            calls.len(),
            out.map_or_else(|| "never out".to_owned(), |out| format!("out after {} ms", out.as_millis())),
        ),
        // Of those without a failure, the one that was out last.
        badness: failed as f64 + out.map_or(1.0, |out| out.as_secs_f64() / within.as_secs_f64()),
    })
}

/// Answers after 20 to 60 ms, so that there is always something under way.
fn router(rng: Rng) -> Router {
    Router::new().route(
        "/",
        get(move || {
            let work = Duration::from_micros(20_000 + rng.below(40_000) as u64);
            async move {
                tokio::time::sleep(work).await;
                "done"
            }
        }),
    )
}

/// When the endpoint `key` goes out of rotation.
async fn out_at(client: Client, key: String) -> Duration {
    loop {
        let out = |endpoint: &mesh_core::cluster::EndpointReport| {
            endpoint.address.to_string() == key && (!endpoint.usable || endpoint.ejected_until.is_some())
        };
        if client.endpoints().iter().any(out) {
            return now();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
