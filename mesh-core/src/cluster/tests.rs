use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::choose::LOST_CLAIMS;
use super::*;
use crate::balance::PickRequest;
use crate::config::{BalanceConfig, Node, OutlierConfig, PanicAction, Place, PlugConfig, yaml::Value};
use crate::discover::EndpointKey;
use crate::health::Outcome;
use crate::telemetry::{self, EjectReason, PickRefusal};

mod balance;
mod breaker;
mod checks;
mod ejection;
mod explain;
mod picks;
mod probes;
mod updates;

const FAILURE: Outcome = Outcome::Failure { retry_after: None };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn config() -> ClusterConfig {
    let place = Place { file: "<code>".into(), line: 0, column: 0, path: String::new() };
    let settings = Node { place, value: Value::Null };
    let mut config = ClusterConfig::new(PlugConfig { kind: "static".into(), settings }, Vec::new());
    config.outlier.ejection_jitter = 0.0;
    config
}

/// The transport is the address that it was made for.
fn cluster(config: &ClusterConfig) -> Cluster<SocketAddr> {
    Cluster::new("payments", config, Rng::seeded(1), Arc::default(), |endpoint, _| endpoint.address)
}

fn with_readiness(config: &ClusterConfig) -> Cluster<Readiness> {
    Cluster::new("payments", config, Rng::seeded(1), Arc::default(), |_, readiness| readiness)
}

fn endpoint(name: usize, port: u16) -> Endpoint {
    Endpoint { key: EndpointKey(format!("{name:03}").into()), ..Endpoint::new(([10, 0, 0, 1], port).into()) }
}

fn endpoints(n: usize) -> Vec<Endpoint> {
    (0..n).map(|name| endpoint(name, name as u16)).collect()
}

fn any<T: Send + Sync + 'static>(cluster: &Cluster<T>, now: Instant) -> Pick<T> {
    cluster.pick(&Tried::default(), now).unwrap()
}

/// A pick of this very endpoint, reached by trying all others.
fn of<T: Send + Sync + 'static>(cluster: &Cluster<T>, name: usize, now: Instant) -> Pick<T> {
    let mut tried = Tried::default();
    for (index, state) in cluster.endpoints().iter().enumerate() {
        if index != name {
            tried.insert(state.endpoint().key.clone());
        }
    }
    let pick = cluster.pick(&tried, now).unwrap();
    assert!(Arc::ptr_eq(pick.endpoint(), &cluster.endpoints()[name]), "{name} is out");
    pick
}

fn picked<T: Send + Sync + 'static>(cluster: &Cluster<T>, picks: usize, now: Instant) -> Vec<usize> {
    let states = cluster.endpoints();
    let mut counts = vec![0; states.len()];
    for _ in 0..picks {
        let pick = any(cluster, now);
        counts[states.iter().position(|state| Arc::ptr_eq(state, pick.endpoint())).unwrap()] += 1;
    }
    counts
}

fn any_of<T: Send + Sync + 'static>(cluster: &Cluster<T>, name: usize, now: Instant, outcome: Outcome, took: Duration) {
    of(cluster, name, now).finish(outcome, now + took);
}
