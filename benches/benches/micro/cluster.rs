//! Picking an endpoint and paying for retries, alone and from two threads at once.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion};
use mesh_core::cluster::{Cluster, Tried};
use mesh_core::config::{
    BalanceConfig, BalancePolicy, BudgetConfig, ClusterConfig, HashKey, LeastRequestConfig, PlugConfig, RingHashConfig,
};
use mesh_core::discover::{Endpoint, EndpointKey};
use mesh_core::health::Outcome;
use mesh_core::retry::RetryBudget;
use mesh_core::rng::Rng;
use tokio::time::Instant;
use tower::Service;

fn cluster(endpoints: usize, policy: BalancePolicy) -> Cluster<()> {
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    let config = config.balance(BalanceConfig::default().policy(policy));
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
        let cluster = LazyCell::new(|| cluster(endpoints, BalancePolicy::PeakEwma));
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

/// The choice alone, by policy: what it costs until the request is on its way.
pub(crate) fn policies(c: &mut Criterion) {
    let ring = RingHashConfig::by(vec![HashKey::Principal]);
    let policies = [
        ("peak_ewma", BalancePolicy::PeakEwma),
        ("least_request", BalancePolicy::LeastRequest(LeastRequestConfig::default())),
        ("round_robin", BalancePolicy::RoundRobin),
        ("random", BalancePolicy::Random),
        ("ring_hash", BalancePolicy::RingHash(ring.clone())),
        ("ring_hash_bounded", BalancePolicy::RingHash(ring.balance_factor(125))),
    ];
    let mut group = c.benchmark_group("choose");
    let (now, tried, keys) = (Instant::now(), Tried::default(), Rng::seeded(2));
    for (name, policy) in policies {
        for endpoints in [10, 1_000, 10_000] {
            let cluster = LazyCell::new(|| cluster(endpoints, policy.clone()));
            group.bench_function(BenchmarkId::new(name, endpoints), |b| {
                let cluster = &*cluster;
                // What is chosen is given back outside the measurement.
                b.iter_batched(
                    || keys.next_u64(),
                    |key| cluster.pick_by(Some(key), &tried, now),
                    BatchSize::NumIterations(64),
                );
            });
            // What a client does: it also keeps why.
            group.bench_function(BenchmarkId::new(format!("{name}_and_why"), endpoints), |b| {
                let cluster = &*cluster;
                b.iter_batched(
                    || keys.next_u64(),
                    |key| cluster.pick_for(Some(key), &tried, now),
                    BatchSize::NumIterations(64),
                );
            });
        }
    }
}

/// tower's own balance, for comparison: ready services that never fail, one call after the other.
pub(crate) fn tower_p2c(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose");
    for endpoints in [10, 1_000, 10_000] {
        group.bench_function(BenchmarkId::new("tower_p2c", endpoints), |b| {
            let services = (0..endpoints).map(|_| tower::load::Constant::new(Nothing, 1_u32));
            let discover = tower::discover::ServiceList::new(services);
            let mut balance = tower::balance::p2c::Balance::new(discover);
            let mut context = Context::from_waker(Waker::noop());
            b.iter(|| {
                let ready = Service::<()>::poll_ready(&mut balance, &mut context);
                black_box((ready, balance.call(())))
            });
        });
    }
}

/// Always ready, done at once.
struct Nothing;

impl Service<()> for Nothing {
    type Response = ();
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<(), Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: ()) -> Self::Future {
        std::future::ready(Ok(()))
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
