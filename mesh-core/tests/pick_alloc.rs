//! Picking an endpoint allocates nothing, and an endpoint takes little. Alone in its binary: the allocator counts for the
//! whole process.

#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)] // a test

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::cluster::{Cluster, Tried};
use mesh_core::config::{
    BalanceConfig, BalancePolicy, ClusterConfig, HashKey, LeastRequestConfig, Locality, LocalityConfig, PlugConfig,
    RingHashConfig, SlowStartConfig, WeightedConfig, ZoneAwareConfig,
};
use mesh_core::discover::Endpoint;
use mesh_core::health::Outcome;
use mesh_core::rng::Rng;
use peak_alloc::PeakAlloc;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that were allocated meanwhile, given back or not.
fn allocated<T>(run: impl FnOnce() -> T) -> (usize, T) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    (ALLOCATOR.peak_usage() - before, result)
}

fn cluster(balance: BalanceConfig) -> Cluster<()> {
    let discover = PlugConfig::new("static", &serde_json::json!([]));
    let config = ClusterConfig::new(discover, Vec::new()).balance(balance);
    Cluster::new("payments", &config, Rng::seeded(1), Arc::default(), |_, _| ())
        .located(Locality { region: "eu-west".into(), zone: "a".into() })
}

fn endpoints(count: usize, varied: bool) -> Vec<Endpoint> {
    let endpoint = |number: usize| {
        let mut endpoint = Endpoint::new(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 8443).into());
        endpoint.locality = Locality { region: "eu-west".into(), zone: "abc"[number % 3..=number % 3].into() };
        if varied {
            endpoint.weight = 1 + number as u32 % 5;
            endpoint.priority = number as u32 % 2;
        }
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
        cluster.update(endpoints(20, true), now);
        let later = now + Duration::from_secs(15);
        cluster.update(endpoints(40, true), later);
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
    // The counter counts.
    assert!(allocated(|| String::from("x").len()).0 > 0);

    const COUNT: usize = 10_000;
    for policy in [BalancePolicy::PeakEwma, BalancePolicy::RoundRobin] {
        let cluster = cluster(BalanceConfig::default().policy(policy.clone()));
        let before = ALLOCATOR.current_usage();
        cluster.update(endpoints(COUNT, false), now);
        let each = (ALLOCATOR.current_usage() - before) / COUNT;
        println!("{}: {each} bytes for an endpoint", policy.name());
        // 160 of them are the windows of a breaker.
        assert!(each < 600, "{}: {each} bytes for an endpoint", policy.name());
    }
}
