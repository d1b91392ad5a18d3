//! The default picker in virtual time, against what it has to withstand. Seeded: the same run every time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::config::BalanceConfig;
use crate::health::Outcome;

const ENDPOINTS: usize = 10;

/// How one endpoint answers: after this many microseconds on average (exponentially distributed), and how.
#[derive(Clone, Copy)]
struct Behaviour {
    micros: f64,
    outcome: Outcome,
}

const HEALTHY: Behaviour = Behaviour { micros: 20_000.0, outcome: Outcome::Success };
const FAILS_FAST: Behaviour = Behaviour { micros: 100.0, outcome: Outcome::Failure { retry_after: None } };

struct Run {
    /// The last endpoint's share of all attempts; fair is 0.1.
    share: f64,
    /// Attempts that ended well within a second.
    good: f64,
}

/// 30,000 requests at 500 a second; the last endpoint behaves as told, and nobody waits longer than a second.
fn run(last: Behaviour, penalty: Duration, ejection: bool) -> Run {
    const REQUESTS: u32 = 30_000;
    const DEADLINE: f64 = 1_000_000.0;
    let balance = BalanceConfig { failure_penalty: penalty, ..BalanceConfig::default() };
    let outlier = if ejection { OutlierConfig::default() } else { scenarios::off() };
    let config = ClusterConfig { balance, outlier, ..tests::config() };
    let cluster = Cluster::new("sim", &config, Rng::seeded(5), Arc::default(), |endpoint, _| endpoint.address.port());
    let (rng, start) = (Rng::seeded(6), Instant::now());
    let exponential = |mean: f64| -mean * (1.0 - rng.unit()).ln();
    let endpoints = (0..ENDPOINTS).map(|n| Endpoint::new(([127, 0, 0, 1], n as u16).into())).collect();
    cluster.update(endpoints, start);
    let mut under_way: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    let mut picks = BTreeMap::new();
    let (mut clock, mut to_last, mut good) = (0.0, 0_u32, 0_u32);
    let at = |micros: u64| start + Duration::from_micros(micros);
    for request in 0..REQUESTS {
        clock += exponential(2_000.0);
        while let Some(Reverse((end, done))) = under_way.pop_if_before(clock as u64) {
            let (pick, outcome): (Pick<u16>, Outcome) = picks.remove(&done).unwrap();
            good += u32::from(outcome == Outcome::Success);
            pick.finish(outcome, at(end));
        }
        let pick = cluster.pick(&Tried::default(), at(clock as u64)).unwrap();
        let is_last = usize::from(*pick.endpoint().transport()) == ENDPOINTS - 1;
        to_last += u32::from(is_last);
        let behaviour = if is_last { last } else { HEALTHY };
        let took = exponential(behaviour.micros);
        let outcome = if took > DEADLINE { Outcome::Timeout } else { behaviour.outcome };
        under_way.push(Reverse(((clock + took.min(DEADLINE)) as u64, request)));
        picks.insert(request, (pick, outcome));
    }
    let over = f64::from(REQUESTS - picks.len() as u32);
    Run { share: f64::from(to_last) / f64::from(REQUESTS), good: f64::from(good) / over }
}

trait PopBefore {
    fn pop_if_before(&mut self, now: u64) -> Option<Reverse<(u64, u32)>>;
}

impl PopBefore for BinaryHeap<Reverse<(u64, u32)>> {
    fn pop_if_before(&mut self, now: u64) -> Option<Reverse<(u64, u32)>> {
        if self.peek()?.0.0 <= now { self.pop() } else { None }
    }
}

const PENALTY: Duration = Duration::from_secs(5);

/// F4: without the penalty, an endpoint that fails in no time looks like the best one.
#[tokio::test(start_paused = true)]
async fn a_fast_failure_attracts_nothing_and_would_without_the_penalty() {
    let control = run(FAILS_FAST, Duration::ZERO, false);
    assert!(control.share > 0.15, "the control arm has to show the danger: {}", control.share);
    let biased = run(FAILS_FAST, PENALTY, false);
    assert!(biased.share < 0.01, "{}", biased.share);
    let ejecting = run(FAILS_FAST, PENALTY, true);
    assert!(ejecting.share < 0.01 && ejecting.good > 0.999, "{} {}", ejecting.share, ejecting.good);
}

/// F3 and the Buoyant set-up: one endpoint takes 2 s where the others take 20 ms and callers give up after 1 s.
#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_is_left_alone() {
    let slow = Behaviour { micros: 2_000_000.0, ..HEALTHY };
    let run_of = |ejection| run(slow, PENALTY, ejection);
    for ejection in [false, true] {
        let Run { share, good } = run_of(ejection);
        assert!(share < 0.01 && good > 0.999, "ejection {ejection}: {share} {good}");
    }
}

/// Equal endpoints share equally.
#[tokio::test(start_paused = true)]
async fn a_healthy_endpoint_gets_a_fair_share() {
    let Run { share, good } = run(HEALTHY, PENALTY, true);
    assert!((0.085..0.115).contains(&share) && good > 0.999, "{share} {good}");
}
