//! Picking an endpoint and paying for retries, alone and from two threads at once.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use mesh_core::cluster::{Cluster, Tried};
use mesh_core::config::{BudgetConfig, ClusterConfig, PlugConfig};
use mesh_core::discover::{Endpoint, EndpointKey};
use mesh_core::health::Outcome;
use mesh_core::retry::RetryBudget;
use mesh_core::rng::Rng;
use tokio::time::Instant;

fn cluster(endpoints: usize) -> Cluster<()> {
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    let cluster = Cluster::new("bench", &config, Rng::seeded(1), Arc::default(), |_, _| ());
    let endpoint = |number: usize| {
        let mut endpoint = Endpoint::new(([10, 0, (number >> 8) as u8, number as u8], 80).into());
        endpoint.key = EndpointKey(number.to_string().into());
        endpoint
    };
    cluster.update((0..endpoints).map(endpoint).collect(), Instant::now());
    cluster
}

/// The whole life of a pick: chosen, answered, counted.
fn exchange(cluster: &Cluster<()>, now: Instant) {
    if let Ok(mut pick) = cluster.pick(&Tried::default(), now) {
        pick.headers(Outcome::Success, now + Duration::from_millis(1));
        pick.finish(Outcome::Success, now + Duration::from_millis(1));
    }
}

/// How long `iterations` take on each of two threads.
fn together(iterations: u64, work: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..iterations).for_each(|_| work()));
        }
    });
    start.elapsed()
}

pub(crate) fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for endpoints in [10, 1_000, 10_000] {
        let cluster = LazyCell::new(|| cluster(endpoints));
        let now = Instant::now();
        group.bench_function(BenchmarkId::new("one_thread", endpoints), |b| {
            b.iter(|| exchange(black_box(&cluster), now));
        });
        group.bench_function(BenchmarkId::new("two_threads", endpoints), |b| {
            let cluster = &*cluster;
            b.iter_custom(|iterations| together(iterations, || exchange(cluster, now)));
        });
    }
}

pub(crate) fn retry_budget(c: &mut Criterion) {
    let mut group = c.benchmark_group("retry_budget");
    let now = Instant::now();
    let budget = RetryBudget::new(BudgetConfig::default(), now);
    group.bench_function("deposit", |b| b.iter(|| budget.deposit(black_box(now))));
    group.bench_function("withdraw", |b| b.iter(|| budget.withdraw(black_box(now))));
    group.bench_function("deposit_two_threads", |b| b.iter_custom(|n| together(n, || budget.deposit(now))));
}
