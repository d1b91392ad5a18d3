//! Picking an endpoint allocates nothing, and an endpoint takes little. Alone in its binary, for its allocator.

#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)] // a test

mod allocated;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mesh_core::cluster::{Cluster, Tried};
use mesh_core::config::{
    BalanceConfig, BalancePolicy, ClusterConfig, HashKey, LeastRequestConfig, Locality, LocalityConfig, PlugConfig,
    RingHashConfig, SlowStartConfig, WeightedConfig, ZoneAwareConfig,
};
use mesh_core::discover::{Endpoint, Resolve, Update, Updates};
use mesh_core::health::Outcome;
use mesh_core::rng::Rng;
use tokio::time::Instant;

use allocated::{ALLOCATOR, allocated};

fn config(balance: BalanceConfig) -> ClusterConfig {
    ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new()).balance(balance)
}

fn cluster(balance: BalanceConfig) -> Cluster<()> {
    Cluster::new("payments", &config(balance), Rng::seeded(1), Arc::default(), |_, _| ())
        .located(Locality { region: "eu-west".into(), zone: "a".into() })
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    let endpoint = |number: usize| {
        let mut endpoint = Endpoint::new(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 8443).into());
        endpoint.locality = Locality { region: "eu-west".into(), zone: "abc"[number % 3..=number % 3].into() };
        endpoint.weight = 1 + number as u32 % 5;
        endpoint.priority = number as u32 % 2;
        endpoint
    };
    (0..count).map(endpoint).collect()
}

#[test]
fn a_pick_allocates_nothing_and_an_endpoint_takes_little() {
    let ring = RingHashConfig::by(vec![HashKey::Principal]);
    let policies = [
        BalancePolicy::PeakEwma,
        BalancePolicy::LeastRequest(LeastRequestConfig::default().choices(5)),
        BalancePolicy::RoundRobin,
        BalancePolicy::Random,
        BalancePolicy::RingHash(ring.clone()),
        BalancePolicy::RingHash(ring.balance_factor(100)),
    ];
    let localities = [
        LocalityConfig::Off,
        LocalityConfig::Weighted(WeightedConfig::default()),
        LocalityConfig::ZoneAware(ZoneAwareConfig::default()),
        LocalityConfig::ZoneAware(ZoneAwareConfig::default().callers(BTreeMap::from([("eu-west/a".to_owned(), 9)]))),
    ];
    let now = Instant::now();
    let settings = policies.iter().flat_map(|policy| localities.iter().map(move |locality| (policy, locality)));
    for (policy, locality) in settings {
        let balance = BalanceConfig::default().policy(policy.clone()).locality(locality.clone());
        let balance = balance.slow_start(SlowStartConfig::over(Duration::from_secs(30)));
        let cluster = cluster(balance);
        cluster.update(endpoints(20), now);
        let later = now + Duration::from_secs(15);
        cluster.update(endpoints(40), later);
        // An interval of comparison is over: the first pick compares, and plans.
        drop(cluster.pick(&Tried::default(), later).unwrap());
        let mut held: Vec<_> = Vec::with_capacity(64);
        let (bytes, ()) = allocated(|| {
            for key in 0..200_u64 {
                let pick = cluster.pick_by(Some(key << 55), &Tried::default(), later).unwrap();
                if held.len() < 64 {
                    held.push(pick);
                } else {
                    pick.finish(Outcome::Success, later);
                }
            }
        });
        assert_eq!(bytes, 0, "{} {locality:?}", policy.name());
    }
    println!("seen: 0 bytes for a pick");
    // The counter counts.
    let (bytes, _) = allocated(|| String::from("x").len());
    println!("control: {bytes} bytes for a string");
    assert!(bytes > 0);

    for policy in [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin] {
        let each = bytes_of_an_endpoint(policy.clone());
        println!("seen: {each} bytes for an endpoint, {}", policy.name());
        // The aim for all of it. 560 were the cluster's own once, a third of them windows of breakers that there were not,
        // and as many the copy by which discovery knew what was in force.
        assert!(each < 400, "{}: {each} bytes for an endpoint", policy.name());
    }
}

/// What a client's pool takes before it is used.
type Transport = [usize; 3];

/// Says a set once, and nothing more.
#[derive(Debug)]
struct Said(Mutex<Vec<Endpoint>>);

impl Resolve for Said {
    fn watch(&self) -> Updates {
        let endpoints = std::mem::take(&mut *self.0.lock().unwrap());
        Box::pin(stream::once(ready(Update::Endpoints(endpoints.into()))).chain(stream::pending()))
    }
}

/// All that is kept of one that discovery has told of and nobody has called.
fn bytes_of_an_endpoint(policy: BalancePolicy) -> usize {
    const COUNT: usize = 10_000;
    let config = config(BalanceConfig::default().policy(policy));
    let cluster = Cluster::new("payments", &config, Rng::seeded(1), Arc::default(), |_, _| Transport::default());
    let endpoint = |number: usize| Endpoint::new(([10, 0, (number >> 8) as u8, number as u8], 8443).into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let before = ALLOCATOR.current_usage();
    let said = Arc::new(Said(Mutex::new((0..COUNT).map(endpoint).collect())));
    runtime.spawn(cluster.follow(said));
    runtime.block_on(cluster.until_resolved());
    assert_eq!(cluster.endpoints().len(), COUNT);
    (ALLOCATOR.current_usage() - before) / COUNT
}
