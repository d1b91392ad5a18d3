//! Endpoints that come and go while requests choose among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::cluster::{Cluster, Pick, Tried};
use mesh_core::config::{ClusterConfig, PlugConfig};
use mesh_core::discover::Endpoint;
use mesh_core::health::Outcome;
use mesh_core::rng::Rng;

use super::feed::{endpoint, virtually};
use crate::scorecard::{Control, Row, Seen};

pub(super) const ROWS: [Row; 1] = [Row {
    name: "churn",
    target: "inserts, removals and picks, 10^6 with 20 seeds: 0 requests go to another endpoint than was chosen",
    mesh: by_key,
    controls: &[Control {
        without: "an endpoint is remembered by its place in a list (tower-rs/tower#856)",
        run: by_place,
    }],
}];

/// Of each seed.
const STEPS: usize = if cfg!(debug_assertions) { 2_000 } else { 50_000 };

fn seen(misrouted: u64, picks: u64) -> Seen {
    let text = format!("{misrouted} of {picks} picks misrouted in {STEPS} steps");
    Seen { met: misrouted == 0 && picks > 0, text, badness: misrouted as f64 }
}

/// Adds somebody who is not there, or takes somebody away.
fn change(there: &mut Vec<Endpoint>, rng: &Rng) {
    let new = endpoint(rng.below(40));
    match there.iter().position(|other| other.key == new.key) {
        Some(at) if there.len() > 2 => _ = there.swap_remove(at),
        Some(_) => {}
        None => there.push(new),
    }
}

fn by_key(seed: u64) -> Seen {
    virtually(async move {
        let rng = Rng::seeded(seed);
        let config = ClusterConfig::new(PlugConfig::new("told", &serde_json::Value::Null), Vec::new());
        // The transport is the address that it was made for.
        let cluster = Cluster::new("web", &config, rng.fork(), Arc::default(), |endpoint, _| endpoint.address);
        let mut now = tokio::time::Instant::now();
        let mut there: Vec<Endpoint> = (0..10).map(endpoint).collect();
        cluster.update(there.clone(), now);
        let mut held: Vec<(Pick<SocketAddr>, SocketAddr)> = Vec::new();
        let (mut misrouted, mut picks) = (0, 0);
        for _ in 0..STEPS {
            now += Duration::from_millis(1);
            match rng.below(4) {
                0 => {
                    change(&mut there, &rng);
                    cluster.update(there.clone(), now);
                }
                1 if !held.is_empty() => {
                    // Sent now, after whatever changed since it was chosen.
                    let (pick, chosen) = held.swap_remove(rng.below(held.len()));
                    misrouted += u64::from(*pick.endpoint().transport() != chosen);
                    pick.finish(if rng.below(20) == 0 { Outcome::Unreachable } else { Outcome::Success }, now);
                }
                _ => {
                    let Ok(pick) = cluster.pick(&Tried::default(), now) else { continue };
                    picks += 1;
                    let of = pick.endpoint().endpoint();
                    let (key, address) = (of.key.clone(), of.address);
                    let known = there.iter().any(|endpoint| endpoint.key == key && endpoint.address == address);
                    misrouted += u64::from(!known);
                    held.push((pick, address));
                }
            }
        }
        seen(misrouted, picks)
    })
}

fn by_place(seed: u64) -> Seen {
    let rng = Rng::seeded(seed);
    let mut there: Vec<Endpoint> = (0..10).map(endpoint).collect();
    let mut held: Vec<(usize, SocketAddr)> = Vec::new();
    let (mut misrouted, mut picks) = (0, 0);
    for _ in 0..STEPS {
        match rng.below(4) {
            0 => change(&mut there, &rng),
            1 if !held.is_empty() => {
                let (place, chosen) = held.swap_remove(rng.below(held.len()));
                misrouted += u64::from(there.get(place).is_none_or(|endpoint| endpoint.address != chosen));
            }
            _ => {
                let place = rng.below(there.len());
                if let Some(endpoint) = there.get(place) {
                    picks += 1;
                    held.push((place, endpoint.address));
                }
            }
        }
    }
    seen(misrouted, picks)
}
