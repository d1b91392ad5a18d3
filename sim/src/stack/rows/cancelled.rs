//! Nine of ten callers leave before their answer has come, and nothing of them stays behind.

use std::mem;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use mesh_core::config::{LimitsConfig, ListenerConfig, RetryConfig, RouteConfig};
use mesh_core::rng::Rng;
use mesh_core::{Config, Mesh};
use mesh_tower::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::world::{self, cluster, mesh, network, servers};

/// Requests at once that the server admits.
const PLACES: usize = 64;
const CALLERS: usize = 16;

/// Answers after so many microseconds.
async fn answer(Path(micros): Path<u64>) {
    sleep(Duration::from_micros(micros)).await;
}

fn left(mesh: &Mesh) -> Vec<String> {
    let text = mesh.metrics().encode();
    let gauges = text.lines().filter(|line| !line.starts_with('#'));
    let gauges = gauges.filter(|line| line.contains("in_flight") || line.contains("pending"));
    gauges.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

pub(super) fn cancelled(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let requests = scale.pick(50_000, 500);
    let mut sim = network(seed, Duration::from_secs(6_000));
    let rng = Rng::seeded(seed);
    let edit = |config: &mut Config| {
        // They cancel more than any peer may.
        let listener = ListenerConfig::new(([0, 0, 0, 0], 0).into()).max_resets_per_second(1_000_000);
        config.listeners.insert("default".to_owned(), listener);
        config.limits = LimitsConfig::default().max_concurrent_requests(PLACES);
        config.limits.max_concurrent_requests_per_peer = Some(PLACES);
        Ok(())
    };
    let (served, server) = watch::channel(None);
    let router = move |mesh: &Mesh, _| {
        served.send_replace(Some(mesh.clone()));
        Ok(Router::new().route("/{micros}", get(answer)))
    };
    let address = servers(&mut sim, std::iter::once("server".to_owned()), &rng, edit, router);
    let (address, _process) = address.into_iter().next().ok_or("no server")?;
    let (left, admitted, failed) = world::run(sim, async move {
        let web = mesh("web", rng.fork(), |config| {
            config.clusters.insert("server".to_owned(), cluster(&[address])?);
            let route = RouteConfig::to("server").retry(RetryConfig::default());
            config.routes.insert("server".to_owned(), vec![route]);
            Ok(())
        });
        let web = web.await?;
        let client = Client::new(&web, "server")?;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (client, rng) = (client.clone(), rng.fork());
            callers.spawn(async move {
                let mut failed = 0;
                for _ in 0..requests / CALLERS {
                    let send = client.get(format!("/{}", rng.below(10_000))).send();
                    let patience = if rng.below(10) == 0 { 60_000_000 } else { rng.below(12_000) };
                    if arm == Arm::Control && rng.below(100) == 0 {
                        let mut send = Box::pin(send);
                        drop(timeout(Duration::from_millis(2), &mut send).await);
                        mem::forget(send);
                    } else if let Ok(answer) = timeout(Duration::from_micros(patience as u64), send).await {
                        failed += usize::from(!answer.is_ok_and(|answer| answer.status() == 200));
                    }
                }
                failed
            });
        }
        let mut failed = 0;
        while let Some(caller) = callers.join_next().await {
            failed += caller?;
        }
        sleep(Duration::from_secs(1)).await;
        let mut left = left(&web);
        left.extend(server.borrow().as_ref().map(self::left).unwrap_or_default());
        left.extend(client.endpoints().iter().filter(|end| end.in_flight > 0).map(|end| format!("{end:?}")));
        // Each place is free again, and no more than there are.
        let mut all = JoinSet::new();
        for _ in 0..PLACES + 1 {
            let client = client.clone();
            all.spawn(
                async move { Ok::<_, mesh_tower::Error>(client.get("/500000").no_retry().send().await?.status()) },
            );
        }
        let mut admitted = 0;
        while let Some(status) = all.join_next().await {
            admitted += usize::from(status?.is_ok_and(|status| status.is_success()));
        }
        Ok((left, admitted, failed))
    })?;
    Ok(Seen {
        met: left.is_empty() && admitted == PLACES && failed == 0,
        text: format!(
            "{} counters of {requests} requests not at 0, {admitted} of {PLACES} places free, {failed} failed",
            left.len()
        ),
        badness: (left.len() + PLACES.abs_diff(admitted)) as f64,
    })
}
