//! Breakers, ejections and health checks under every policy, and the plan that follows them.

use super::balance::{balanced, even, of_policy, placed, policies, with_custom};
use super::*;
use crate::balance::{Candidates, xxh64};
use crate::config::{
    BalancePolicy, BreakerConfig, HealthCheckConfig, LocalityConfig, PanicConfig, SlowStartConfig, ZoneAwareConfig,
};
use crate::health::CheckVerdict::{Healthy, Unhealthy};
use crate::health::Standing;
use crate::telemetry::BreakerEvent::{Closed, Probed};

fn breaker() -> BreakerConfig {
    BreakerConfig { jitter: 0.0, consecutive_failures: 3, ..BreakerConfig::default() }
}

fn behind_breakers(balance: BalanceConfig) -> ClusterConfig {
    ClusterConfig { breaker: Some(breaker()), ..config().balance(balance) }
}

fn fail(cluster: &Cluster<Readiness>, name: usize, times: usize, now: Instant) {
    (0..times).for_each(|_| any_of(cluster, name, now, FAILURE, ms(0)));
}

/// Picks of four threads at once, each with a key of its own; all are held.
fn crowd(cluster: &Cluster<Readiness>, now: Instant) -> Vec<Pick<Readiness>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u32)
            .map(|thread| {
                let pick = move |n: u32| {
                    let hash = xxh64(&(thread * 1_000 + n).to_le_bytes(), 0);
                    cluster.pick_by(Some(hash), &Tried::default(), now).unwrap()
                };
                scope.spawn(move || (0..250).map(pick).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Parts the picks of the first endpoint from the others.
fn of_the_first(cluster: &Cluster<Readiness>, picks: Vec<Pick<Readiness>>) -> Vec<Pick<Readiness>> {
    let first = Arc::clone(&cluster.endpoints()[0]);
    picks.into_iter().filter(|pick| Arc::ptr_eq(pick.endpoint(), &first)).collect()
}

#[test]
fn a_half_open_endpoint_gets_one_probe_at_a_time_under_every_policy() {
    let custom = BalancePolicy::Custom(PlugConfig::new("fixed", &serde_json::Value::Null));
    for policy in policies().into_iter().chain([custom]) {
        let name = policy.name().to_owned();
        let cluster = with_custom(with_readiness(&behind_breakers(of_policy(policy))));
        let now = Instant::now();
        cluster.update(endpoints(3), now);
        fail(&cluster, 0, 3, now);
        let first = |now| of_the_first(&cluster, crowd(&cluster, now));
        assert_eq!(first(now).len(), 0, "{name}: open");
        let now = now + ms(1_000);
        // Given up, failed, given up, passed: each time one of a thousand.
        let mut given_up = first(now);
        assert_eq!(given_up.len(), 1, "{name}: half-open");
        assert_eq!(first(now).len(), 0, "{name}: its probe is under way");
        given_up.clear();
        let mut failing = first(now);
        assert_eq!(failing.len(), 1, "{name}: the next one");
        failing.pop().unwrap().finish(FAILURE, now);
        assert_eq!(first(now + ms(1_999)).len(), 0, "{name}: open again");
        let now = now + ms(2_000);
        let mut passing = first(now);
        assert_eq!(passing.len(), 1, "{name}: half-open again");
        passing.pop().unwrap().finish(Outcome::Success, now);
        assert!(first(now).len() > 100, "{name}: closed");
        let count = |event| cluster.metrics().breaker.count(event);
        assert_eq!((count(Probed), count(Closed)), (3, 1), "{name}");
        assert_eq!(cluster.metrics().panic_picks.get(), 0, "{name}");
    }
}

/// Takes the probe away after another request has chosen its endpoint and before that has claimed it, so many times: one
/// that looks at a second endpoint in between, as spilling does, gives it the chance.
#[derive(Debug, Default)]
struct Rival {
    cluster: std::sync::OnceLock<Cluster<Readiness>>,
    times: AtomicUsize,
    held: Mutex<Option<Pick<Readiness>>>,
}

impl Picker for Arc<Rival> {
    fn pick(&self, candidates: &dyn Candidates, _: &PickRequest<'_>) -> Option<usize> {
        let far = candidates.endpoint(0).is_some_and(|endpoint| endpoint.address.port() == 1);
        let again = self.times.load(Relaxed) > 0;
        if !far && again {
            // Given back before the next choice.
            let held = self.held.lock().unwrap().take();
            drop(held);
        } else if let Some(cluster) = self.cluster.get().filter(|_| far && again) {
            // Not in this very pick.
            let times = self.times.swap(0, Relaxed);
            let pick = any(cluster, Instant::now());
            assert_eq!(pick.endpoint().endpoint().address.port(), 0);
            *self.held.lock().unwrap() = Some(pick);
            self.times.store(times - 1, Relaxed);
        }
        Some(0)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_the_probe_chooses_anew_but_not_for_ever() {
    let lost_at_most = LOST_CLAIMS as usize;
    for (times, probed, to) in [(1, 1, 1), (2, 2, 1), (lost_at_most, lost_at_most, 1), (1_000, lost_at_most + 1, 0)] {
        let custom = BalancePolicy::Custom(PlugConfig::new("rival", &serde_json::Value::Null));
        let zones = LocalityConfig::ZoneAware(ZoneAwareConfig::default().min_endpoints(0));
        let here = Locality { region: "eu".into(), zone: "a".into() };
        let rival = Arc::new(Rival::default());
        let cluster = with_readiness(&behind_breakers(of_policy(custom).locality(zones)))
            .located(here)
            .balanced_by(Some(Arc::new(Arc::clone(&rival))));
        let now = Instant::now();
        cluster.update(placed(&[("eu/a", 0), ("eu/b", 0)]), now);
        // So busy that it is compared with the other, and less busy than that.
        let _busy: Vec<_> = (0..10).map(|n| of(&cluster, usize::from(n > 3), now)).collect();
        fail(&cluster, 0, 3, now);
        tokio::time::advance(ms(1_000)).await;
        rival.times.store(times, Relaxed);
        assert!(rival.cluster.set(cluster.clone()).is_ok());
        let pick = any(&cluster, Instant::now());
        assert_eq!(pick.endpoint().endpoint().address.port(), to, "{times}");
        assert_eq!(cluster.metrics().breaker.count(Probed), probed as u64, "{times}");
        assert_eq!(cluster.metrics().panic_picks.get(), 0, "{times}");
    }
}

/// What each of two priorities gets, when whoever is due to look has looked.
fn percents(cluster: &Cluster<Readiness>, now: Instant) -> (u32, u32) {
    let core = &cluster.core;
    if core.shared.next_return.due(since(core.shared.epoch, now)).is_some() {
        core.look(now);
    }
    let report = cluster.report(now);
    (report[0].priority_percent, report[2].priority_percent)
}

/// One of the two of the first priority is away: 50 % x 140 %.
const AWAY: (u32, u32) = (70, 30);
const BACK: (u32, u32) = (100, 0);

fn two_and_two() -> Vec<Endpoint> {
    placed(&[("a", 0), ("a", 0), ("b", 1), ("b", 1)])
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_out_or_comes_back_changes_the_plan() {
    for policy in even() {
        let (name, start) = (policy.name().to_owned(), Instant::now());
        let timed = balanced(of_policy(policy.clone()));
        timed.update(two_and_two(), start);
        assert_eq!(percents(&timed, start), BACK, "{name}");
        fail(&timed, 0, 5, start);
        assert_eq!(percents(&timed, start), AWAY, "{name}: ejected");
        let now = start + Duration::from_secs(30);
        assert_eq!(percents(&timed, now - ms(1)), AWAY, "{name}");
        assert_eq!(percents(&timed, now), BACK, "{name}: let in");
        timed.endpoints()[0].transport().unready();
        assert_eq!(percents(&timed, now), AWAY, "{name}: unready");
        timed.endpoints()[0].transport().ready();
        assert_eq!(percents(&timed, now), BACK, "{name}: ready");

        let probed = with_readiness(&behind_breakers(of_policy(policy)));
        probed.update(two_and_two(), start);
        fail(&probed, 0, 3, start);
        assert_eq!(percents(&probed, start), AWAY, "{name}: open");
        let now = start + ms(1_000);
        assert_eq!(percents(&probed, now), BACK, "{name}: it takes a request");
        let probe = of(&probed, 0, now);
        assert_eq!(percents(&probed, now), AWAY, "{name}: one");
        drop(probe);
        assert_eq!(percents(&probed, now), BACK, "{name}: given back");
        of(&probed, 0, now).finish(FAILURE, now);
        assert_eq!(percents(&probed, now), AWAY, "{name}: open again");
        let now = now + ms(2_000);
        assert_eq!(percents(&probed, now), BACK, "{name}: half-open again");
        let mut stream = of(&probed, 0, now);
        assert_eq!(percents(&probed, now), AWAY, "{name}: its probe streams");
        stream.headers(Outcome::Success, now);
        assert_eq!(percents(&probed, now + ms(9_999)), AWAY, "{name}");
        let now = now + ms(10_000);
        assert_eq!(percents(&probed, now), BACK, "{name}: long enough");
        drop(stream);
        fail(&probed, 0, 3, now);
        assert_eq!(percents(&probed, now), AWAY, "{name}");
        let now = now + ms(60_000);
        assert_eq!(percents(&probed, now), BACK, "{name}");
        let probe = of(&probed, 0, now);
        assert_eq!(percents(&probed, now), AWAY, "{name}");
        probe.finish(Outcome::Success, now);
        assert_eq!(percents(&probed, now), BACK, "{name}: closed");
    }
}

fn checks(ends_ejection: bool) -> HealthCheckConfig {
    let checks = HealthCheckConfig::new(PlugConfig::new("http", &serde_json::json!({ "path": "/readyz" })));
    HealthCheckConfig { ends_ejection, ..checks }
}

#[tokio::test(start_paused = true)]
async fn health_checks_change_the_plan() {
    let now = Instant::now();
    let cluster = balanced(BalanceConfig::default());
    cluster.update(two_and_two(), now);
    let first = Arc::clone(&cluster.endpoints()[0]);
    let bad = || Unhealthy("503".into());
    (0..3).for_each(|_| cluster.checked(&first, &bad(), &checks(false), now));
    assert_eq!(percents(&cluster, now), AWAY, "unhealthy");
    (0..2).for_each(|_| cluster.checked(&first, &Healthy, &checks(false), now));
    assert_eq!(percents(&cluster, now), BACK, "healthy");
    fail(&cluster, 0, 5, now);
    cluster.checked(&first, &Healthy, &checks(false), now);
    assert_eq!(percents(&cluster, now), AWAY, "ejected, whatever its check says");
    cluster.checked(&first, &Healthy, &checks(true), now);
    assert_eq!(percents(&cluster, now), BACK, "its check ends that");
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_starts_slowly_however_it_does() {
    let slow = of_policy(BalancePolicy::RoundRobin).slow_start(SlowStartConfig::over(Duration::from_secs(30)));
    let begin = |config: &ClusterConfig| {
        let (cluster, start) = (with_readiness(config), Instant::now());
        cluster.update(endpoints(3), start);
        (cluster, start + Duration::from_secs(100))
    };
    let warmth = |cluster: &Cluster<Readiness>, now| {
        cluster.core.look(now);
        cluster.report(now)[0].warmth_percent
    };
    let (timed, now) = begin(&config().balance(slow.clone()));
    fail(&timed, 0, 5, now);
    assert_eq!(warmth(&timed, now), 100);
    let now = now + Duration::from_secs(30);
    assert_eq!((warmth(&timed, now), warmth(&timed, now + Duration::from_secs(15))), (10, 50), "its time is up");

    for streams in [false, true] {
        let (probed, now) = begin(&behind_breakers(slow.clone()));
        fail(&probed, 0, 3, now);
        let now = now + ms(1_000);
        let mut probe = of(&probed, 0, now);
        assert_eq!(warmth(&probed, now), 100, "the probe is not held up");
        probe.headers(Outcome::Success, now);
        let now = now + ms(10_000);
        if !streams {
            probe.finish(Outcome::Success, now);
        }
        assert_eq!(warmth(&probed, now), 10, "proven; streams: {streams}");
        assert_eq!(probed.report(now)[0].standing, Standing::In);
    }

    let (checked, now) = begin(&config().balance(slow));
    let first = Arc::clone(&checked.endpoints()[0]);
    (0..3).for_each(|_| checked.checked(&first, &Unhealthy("503".into()), &checks(false), now));
    assert_eq!(warmth(&checked, now), 100);
    (0..2).for_each(|_| checked.checked(&first, &Healthy, &checks(false), now));
    assert_eq!(warmth(&checked, now), 10, "healthy again");
    let now = now + Duration::from_secs(100);
    fail(&checked, 0, 5, now);
    checked.checked(&first, &Healthy, &checks(true), now);
    assert_eq!(warmth(&checked, now), 10, "its check ended an ejection");
}

/// In panic everybody reachable is used, and one that waits for its probe is not used without becoming proven by it.
#[tokio::test(start_paused = true)]
async fn a_probe_counts_in_panic_too() {
    let start = Instant::now();
    let cluster = with_readiness(&behind_breakers(BalanceConfig::default()));
    cluster.update(endpoints(5), start);
    fail(&cluster, 0, 3, start);
    (1..4).for_each(|name| cluster.endpoints()[name].transport().unready());
    let now = start + ms(1_000);
    let picks: Vec<_> = (0..100).map(|_| any(&cluster, now)).collect();
    assert_eq!(cluster.metrics().panic_picks.get(), 100, "two of five are too few");
    assert!(cluster.endpoints()[0].in_flight() > 10, "nobody is spared");
    assert_eq!(cluster.metrics().breaker.count(Probed), 1);
    picks.into_iter().for_each(|pick| pick.finish(Outcome::Success, now));
    assert_eq!(cluster.report(now)[0].standing, Standing::In);
}

/// Panic because few are left is balancing's affair; the source of endpoints is asked when there is nobody.
#[tokio::test(start_paused = true)]
async fn the_source_is_hurried_when_all_are_out_and_not_before() {
    for action in [PanicAction::Route, PanicAction::Fail] {
        let now = Instant::now();
        let cluster = balanced(BalanceConfig::default().panic(PanicConfig::default().action(action)));
        cluster.update(endpoints(3), now);
        let hurried = || tokio::time::timeout(ms(1), cluster.core.out_of_reach.notified());
        for (name, all) in [(0, false), (1, false), (2, true)] {
            cluster.endpoints()[name].transport().unready();
            for _ in 0..10 {
                let picked = cluster.pick(&Tried::default(), now);
                assert_eq!(picked.is_err(), name > 0 && action == PanicAction::Fail, "{name}");
            }
            assert_eq!(hurried().await.is_ok(), all, "{action:?}, {} of 3 are out", name + 1);
        }
    }
}
