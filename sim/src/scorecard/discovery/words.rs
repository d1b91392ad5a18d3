//! What a source in trouble says: sets that are cut short, empty, doubled, garbled.

use std::time::Duration;

use mesh_core::cluster::Cluster;
use mesh_core::discover::{Endpoint, EndpointKey, EndpointSet, ResolveError, Update};
use mesh_core::rng::Rng;
use mesh_core::telemetry::{DiscoveryEvent, Label as _};
use tokio::time::Instant;

use super::feed::{cluster, endpoint, told, until, virtually};
use crate::scorecard::{Control, Row, Seen};

pub(super) const ROWS: [Row; 1] = [Row {
    name: "mutated-updates",
    target: "mutated updates, 10^6 with 20 seeds: 0 panics, 0 sets that became empty without a tombstone",
    mesh: |seed| mutated(seed, true),
    controls: &[Control { without: "every update is believed", run: |seed| mutated(seed, false) }],
}];

/// Of each seed.
const UPDATES: usize = if cfg!(debug_assertions) { 1_000 } else { 50_000 };

/// The next word; `None` for one that is no set.
fn mutant(good: &[Endpoint], rng: &Rng) -> Option<EndpointSet> {
    let mut endpoints = good.to_vec();
    let some = |rng: &Rng| rng.below(endpoints.len() + 1);
    let cut = some(rng);
    match rng.below(9) {
        0 => return None,
        1 => endpoints.clear(),
        2 => endpoints.truncate(cut),
        3 => endpoints.extend(good.iter().take(cut).cloned()),
        4 => endpoints.iter_mut().for_each(|endpoint| endpoint.weight = rng.next_u64() as u32),
        5 => endpoints.iter_mut().for_each(|endpoint| endpoint.priority = rng.next_u64() as u32),
        6 => endpoints.iter_mut().for_each(|endpoint| endpoint.key = EndpointKey(format!("k{}", rng.below(9)).into())),
        7 => endpoints = (0..rng.below(40)).map(|_| endpoint(rng.below(60))).collect(),
        _ => {}
    }
    let set = EndpointSet::from(endpoints).partial(rng.below(4) == 0);
    // Some are said to be gone for good, never all that are known.
    Some(if rng.below(6) == 0 { set.removed(good.first().map(|endpoint| endpoint.key.clone())) } else { set })
}

fn mutated(seed: u64, held: bool) -> Seen {
    virtually(async {
        let rng = Rng::seeded(seed);
        let (say, source) = told();
        let cluster = cluster(rng.fork());
        let follows = tokio::spawn(cluster.follow(source));
        let good: Vec<Endpoint> = (0..8).map(endpoint).collect();
        let (mut empties, mut panics) = (0_u64, 0_u64);
        for number in 0..UPDATES {
            let word = if number == 0 { Some(good.clone().into()) } else { mutant(&good, &rng) };
            tokio::time::advance(Duration::from_millis(rng.below(20_000) as u64)).await;
            let known = !cluster.endpoints().is_empty();
            let silent = word.as_ref().is_none_or(|set: &EndpointSet| set.removed.is_empty());
            match (word, held) {
                (Some(set), false) => cluster.update(set.endpoints, Instant::now()),
                (None, false) => {}
                (word, true) => {
                    let before = heard(&cluster);
                    let stale = || Update::Stale(ResolveError("garbled".into()));
                    let _ = say.send(word.map_or_else(stale, Update::Endpoints));
                    until(|| heard(&cluster) > before || follows.is_finished()).await;
                    panics += u64::from(follows.is_finished());
                }
            }
            empties += u64::from(known && silent && cluster.endpoints().is_empty());
            if panics > 0 {
                break;
            }
        }
        let text = format!("{panics} panics, {empties} silent empties in {UPDATES}");
        Seen { met: panics == 0 && empties == 0, text, badness: (panics * 1_000_000 + empties) as f64 }
    })
}

/// Words of the source that were taken in.
fn heard(cluster: &Cluster<()>) -> u64 {
    let events = DiscoveryEvent::ALL.iter().filter(|event| !matches!(event, DiscoveryEvent::Confirmed));
    events.map(|event| cluster.metrics().discovery.count(*event)).sum()
}
