//! Endpoints that flap, fail by halves or go away for good, in virtual time, with ejection, with a breaker and without
//! either. Seeded: the same run every time.

use super::*;
use crate::config::{BalanceConfig, BreakerConfig, FailurePercentageConfig, PanicConfig, SuccessRateConfig};
use crate::health::Outcome;
use crate::telemetry::EjectReason;

const ENDPOINTS: usize = 10;

const FAILURE: Outcome = Outcome::Failure { retry_after: None };

/// No judging at all.
pub(super) fn off() -> OutlierConfig {
    OutlierConfig {
        consecutive_failures: 0,
        success_rate: SuccessRateConfig { stdev_factor: 0.0, ..SuccessRateConfig::default() },
        failure_percentage: FailurePercentageConfig { threshold: 0, ..FailurePercentageConfig::default() },
        ..OutlierConfig::default()
    }
}

/// What there is against bad endpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arm {
    /// Neither a penalty for failures nor ejection.
    Nothing,
    Ejection,
    Breaker,
}

impl Arm {
    fn config(self) -> ClusterConfig {
        let balance = match self {
            Self::Nothing => BalanceConfig { failure_penalty: Duration::ZERO, ..BalanceConfig::default() },
            Self::Ejection | Self::Breaker => BalanceConfig::default(),
        };
        let outlier = if self == Self::Nothing { off() } else { OutlierConfig::default() };
        let breaker = (self == Self::Breaker).then(BreakerConfig::default);
        ClusterConfig { balance, outlier, breaker, ..tests::config() }
    }

    /// The same by load alone: what failures cost in latency keeps nobody away.
    fn blind(self) -> ClusterConfig {
        ClusterConfig { balance: Self::Nothing.config().balance, ..self.config() }
    }
}

struct Run {
    /// Attempts at each endpoint.
    attempts: [u64; ENDPOINTS],
    failed: u64,
    ejections: u64,
    withheld: u64,
    /// Picks of an endpoint that was out.
    panics: u64,
    /// The most endpoints that were out at once.
    most_out: usize,
}

impl Run {
    fn all(&self) -> u64 {
        self.attempts.iter().sum()
    }

    fn share(&self, endpoint: usize) -> f64 {
        self.attempts[endpoint] as f64 / self.all() as f64
    }

    fn failed_share(&self) -> f64 {
        self.failed as f64 / self.all() as f64
    }
}

/// Requests at `rate` a second for `seconds`. `behave` says, of an endpoint at a time, how many milliseconds its answer
/// takes on average and what it is.
fn run(config: &ClusterConfig, rate: u64, seconds: u64, behave: impl Fn(usize, f64, &Rng) -> (f64, Outcome)) -> Run {
    let cluster = Cluster::new("sim", config, Rng::seeded(5), Arc::default(), |endpoint, _| endpoint.address.port());
    let (rng, start) = (Rng::seeded(6), Instant::now());
    cluster.update((0..ENDPOINTS).map(|n| Endpoint::new(([127, 0, 0, 1], n as u16).into())).collect(), start);
    let exponential = |mean: f64| -mean * (1.0 - rng.unit()).ln();
    let mut under_way: BTreeMap<(u64, u64), (Pick<u16>, Outcome)> = BTreeMap::new();
    let mut run = Run { attempts: [0; ENDPOINTS], failed: 0, ejections: 0, withheld: 0, panics: 0, most_out: 0 };
    let (mut clock, mut id) = (0.0, 0);
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    loop {
        clock += exponential(1.0 / rate as f64);
        while let Some(first) = under_way.first_entry().filter(|first| first.key().0 <= (clock * 1e6) as u64) {
            let ((end, _), (pick, outcome)) = first.remove_entry();
            run.failed += u64::from(outcome != Outcome::Success);
            pick.finish(outcome, start + Duration::from_micros(end));
        }
        if clock > seconds as f64 {
            break;
        }
        let pick = cluster.pick(&Tried::default(), at(clock)).unwrap();
        let endpoint = usize::from(*pick.endpoint().transport());
        run.attempts[endpoint] += 1;
        let (mean, outcome) = behave(endpoint, clock, &rng);
        under_way.insert((((clock + exponential(mean / 1e3)) * 1e6) as u64, id), (pick, outcome));
        id += 1;
        if id % 50 == 0 {
            let out = cluster.endpoints().iter().filter(|state| state.ejected(at(clock))).count();
            run.most_out = run.most_out.max(out);
        }
    }
    let metrics = cluster.metrics();
    let reasons = <EjectReason as telemetry::Label>::ALL;
    run.ejections = reasons.iter().map(|reason| metrics.ejections.count(*reason)).sum();
    run.withheld = reasons.iter().map(|reason| metrics.ejections_withheld.count(*reason)).sum();
    run.panics = metrics.panic_picks.get();
    run
}

/// F6: one of ten is up for a second and down for a second.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_flaps_is_ejected_for_longer_and_longer() {
    let flap = |endpoint, time: f64, _: &Rng| match endpoint {
        9 if time as u64 % 2 == 1 => (0.1, FAILURE),
        _ => (20.0, Outcome::Success),
    };
    let control = run(&Arm::Nothing.config(), 2_000, 60, flap);
    assert!(control.failed_share() > 0.05, "the control arm has to show the danger: {}", control.failed_share());
    for arm in [Arm::Ejection, Arm::Breaker] {
        // With latency's own memory of failures, and without: then ejection alone keeps requests away.
        for config in [arm.config(), arm.blind()] {
            let run = run(&config, 2_000, 60, flap);
            let (ejections, failed) = (run.ejections, run.failed_share());
            assert!(ejections <= 8 && failed <= 0.001, "{arm:?}: {ejections} ejections, {failed} failed");
            assert!(run.share(9) > 0.0 && run.panics == 0, "{arm:?}");
        }
        assert!(run(&arm.blind(), 2_000, 60, flap).ejections > 0, "{arm:?}");
    }
}

/// F7: eight of ten fail half of all requests. Half of the endpoints stay, whoever they are, and nobody drowns.
#[tokio::test(start_paused = true)]
async fn when_most_are_sick_nobody_is_left_with_more_than_twice_his_load() {
    let sick = |endpoint, _, rng: &Rng| {
        let fails = endpoint < 8 && rng.unit() < 0.5;
        (20.0, if fails { FAILURE } else { Outcome::Success })
    };
    let unbounded = |arm: Arm| {
        let config = arm.blind();
        let outlier = OutlierConfig { max_ejection_percent: 100, ..config.outlier };
        // Panic would stand in for the bound.
        let balance = BalanceConfig { panic: PanicConfig::default().threshold_percent(1), ..config.balance };
        ClusterConfig { outlier, balance, ..config }
    };
    for arm in [Arm::Ejection, Arm::Breaker] {
        let control = run(&unbounded(arm), 1_000, 60, sick);
        let most = |run: &Run| (0..ENDPOINTS).map(|n| run.share(n)).fold(0.0, f64::max);
        assert!(most(&control) > 0.22, "{arm:?}: the control arm has to show the danger: {}", most(&control));
        let run = run(&arm.blind(), 1_000, 60, sick);
        assert!(run.most_out <= 5 && run.panics == 0, "{arm:?}: {} out", run.most_out);
        assert!(most(&run) <= 0.2, "{arm:?}: {}", most(&run));
        assert!(run.ejections > 0 && run.withheld > 0, "{arm:?}: {} {}", run.ejections, run.withheld);
    }
}

/// F4: one of ten fails in no time. Its share is at most fair, and it is out at once.
#[tokio::test(start_paused = true)]
async fn a_fast_failure_gets_no_more_than_its_share() {
    let sink = |endpoint, _, _: &Rng| match endpoint {
        9 => (0.1, FAILURE),
        _ => (20.0, Outcome::Success),
    };
    let control = run(&Arm::Nothing.config(), 2_000, 10, sink);
    assert!(control.share(9) > 0.15, "the control arm has to show the danger: {}", control.share(9));
    for arm in [Arm::Ejection, Arm::Breaker] {
        let run = run(&arm.config(), 2_000, 10, sink);
        assert!(run.share(9) <= 0.1 && run.failed < 50, "{arm:?}: {} {}", run.share(9), run.failed);
    }
}

/// One of ten fails a third of its requests, never five in a row for long: only its peers give it away.
#[tokio::test(start_paused = true)]
async fn a_partly_broken_endpoint_is_found_beside_its_peers() {
    let partly = |endpoint, _, rng: &Rng| {
        let fails = rng.unit() < if endpoint == 9 { 0.3 } else { 0.005 };
        (20.0, if fails { FAILURE } else { Outcome::Success })
    };
    let with = |success_rate: SuccessRateConfig| {
        let balance = BalanceConfig { failure_penalty: Duration::ZERO, ..BalanceConfig::default() };
        // Five in a row would happen by chance here; that is another test's.
        let outlier = OutlierConfig { consecutive_failures: 0, success_rate, ..OutlierConfig::default() };
        ClusterConfig { balance, outlier, ..tests::config() }
    };
    let compared = run(&with(SuccessRateConfig::default()), 1_000, 60, partly);
    assert!(compared.share(9) < 0.05 && (1..=3).contains(&compared.ejections), "{}", compared.share(9));
    let control =
        run(&with(SuccessRateConfig { stdev_factor: 0.0, ..SuccessRateConfig::default() }), 1_000, 60, partly);
    assert!(control.share(9) > 0.08 && control.ejections == 0, "the control arm: {}", control.share(9));
}
