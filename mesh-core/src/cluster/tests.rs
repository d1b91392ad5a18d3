use std::net::SocketAddr;

use super::*;
use crate::config::{BalanceConfig, Node, Place, PlugConfig, yaml::Value};
use crate::discover::EndpointKey;
use crate::health::Outcome;
use crate::telemetry::EjectReason;

mod balance;
mod breaker;
mod checks;
mod explain;
mod probes;

/// The set is put in force before it is said to be known; whoever read the empty one before must not hold it for known.
#[test]
fn the_first_set_is_never_taken_for_none() {
    for _ in 0..3_000 {
        let cluster = Cluster::new("payments", &config(), Rng::seeded(1), Arc::default(), |_, _| ());
        let (now, begin) = (Instant::now(), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                cluster.update(vec![Endpoint::new(([127, 0, 0, 1], 1).into())], now);
            });
            begin.wait();
            while let Err(error) = cluster.pick(&Tried::default(), now) {
                assert_eq!(error, PickError::Unresolved);
            }
        });
    }
}

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

#[tokio::test(start_paused = true)]
async fn before_the_first_set_nothing_is_known_and_an_empty_set_is_known_to_be_empty() {
    let cluster = cluster(&config());
    let pick = || cluster.pick(&Tried::default(), Instant::now()).map(|_| ()).unwrap_err();
    assert_eq!((pick(), cluster.resolved()), (PickError::Unresolved, false));
    let mut waiting = Box::pin(cluster.until_resolved());
    assert!(tokio::time::timeout(ms(1), &mut waiting).await.is_err());
    cluster.update(Vec::new(), Instant::now());
    waiting.await;
    assert_eq!((pick(), cluster.resolved()), (PickError::Empty, true));
}

#[tokio::test(start_paused = true)]
async fn every_counter_is_a_drop_guard() {
    let cluster = cluster(&config());
    let now = Instant::now();
    cluster.update(endpoints(5), now);
    let rng = Rng::seeded(7);
    let mut held = Vec::new();
    for _ in 0..100_000 {
        let mut pick = any(&cluster, now);
        if rng.below(3) == 0 {
            pick.headers(Outcome::Success, now);
        }
        held.push(pick);
        while held.len() > 50 || (!held.is_empty() && rng.below(2) == 0) {
            drop(held.swap_remove(rng.below(held.len())));
        }
    }
    assert_eq!(cluster.endpoints().iter().map(|state| state.in_flight()).sum::<usize>(), held.len());
    held.clear();
    assert!(cluster.endpoints().iter().all(|state| state.in_flight() == 0 && state.available(now)));
    let attempts = &cluster.metrics().attempts;
    use telemetry::AttemptOutcome::{Cancelled, Success};
    assert_eq!(attempts.count(Cancelled) + attempts.count(Success), 100_000);
    assert!((30_000..37_000).contains(&attempts.count(Success)), "answered, then dropped");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_does_not_count_as_fast_nor_a_timeout_as_nothing() {
    let cluster = cluster(&config());
    let start = Instant::now();
    cluster.update(endpoints(1), start);
    let latency = |now| cluster.report(now)[0].latency.as_secs_f64();
    any(&cluster, start).finish(Outcome::Success, start + ms(100));
    assert!((latency(start + ms(100)) - 0.1).abs() < 1e-3);
    let before = latency(start + ms(101));
    any(&cluster, start + ms(100)).finish(Outcome::Cancelled, start + ms(101));
    assert!((latency(start + ms(101)) - before).abs() < 1e-4, "cancelled at once: nothing learnt");
    any(&cluster, start).finish(Outcome::Cancelled, start + ms(700));
    assert!((latency(start + ms(700)) - 0.7).abs() < 1e-3, "cancelled late: at least that slow");
    any(&cluster, start).finish(FAILURE, start + ms(701));
    assert!((latency(start + ms(701)) - 5.0).abs() < 1e-2, "the penalty");
    any(&cluster, start).finish(Outcome::Timeout, start + ms(3_000));
    assert!((latency(start + ms(3_000)) - 9.0).abs() < 1e-2, "three times what was waited");
    let asked = Outcome::Failure { retry_after: Some(Duration::from_secs(3_600)) };
    any(&cluster, start).finish(asked, start + ms(3_001));
    assert!((latency(start + ms(3_001)) - 300.0).abs() < 0.1, "capped");
}

#[tokio::test(start_paused = true)]
async fn picks_avoid_the_tried_then_the_ejected_and_panic_last() {
    let cluster = with_readiness(&config());
    let now = Instant::now();
    cluster.update(endpoints(4), now);
    let states = cluster.endpoints();
    let mut tried = Tried::default();
    assert!(tried.is_empty());
    for _ in 0..4 {
        let pick = cluster.pick(&tried, now).unwrap();
        let key = pick.endpoint().endpoint().key.clone();
        assert!(!tried.contains(&key), "an untried one was left");
        tried.insert(key);
    }
    assert!(!tried.is_empty());
    cluster.pick(&tried, now).unwrap();
    states[0].transport().unready();
    states[1].transport().unready();
    let counts = picked(&cluster, 1_000, now);
    assert_eq!((counts[0], counts[1]), (0, 0));
    let mut tried = Tried::default();
    tried.insert(states[2].endpoint().key.clone());
    tried.insert(states[3].endpoint().key.clone());
    let index = cluster.pick(&tried, now).unwrap().endpoint().endpoint().address.port();
    assert!(index >= 2, "a tried one that is in comes before an untried one that is out");
    assert_eq!(cluster.metrics().panic_picks.get(), 0);
    states[2].transport().unready();
    states[3].transport().unready();
    assert!(picked(&cluster, 1_000, now).iter().all(|count| *count > 100));
    assert_eq!(cluster.metrics().panic_picks.get(), 1_000);
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Unready), 4);
    drop(states);
    cluster.update(Vec::new(), now);
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Unready), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_ejected_comes_back_once_and_starts_from_the_median() {
    let cluster = cluster(&config());
    let start = Instant::now();
    cluster.update(endpoints(3), start);
    for (name, latency) in [(0, 10), (1, 20), (2, 30)] {
        any_of(&cluster, name, start, Outcome::Success, ms(latency + 30));
    }
    for _ in 0..5 {
        any_of(&cluster, 1, start + ms(60), FAILURE, ms(1));
    }
    let ejected = |now| cluster.endpoints()[1].ejected(now);
    let metrics = cluster.metrics();
    let now = start + ms(61);
    assert!(ejected(now));
    assert_eq!(cluster.report(now)[1].ejected_until, Some(now + Duration::from_secs(30)));
    assert_eq!(metrics.ejections.count(EjectReason::ConsecutiveFailures), 1);
    assert_eq!(metrics.endpoints.value(telemetry::EndpointState::Ejected), 1);
    assert_eq!(picked(&cluster, 1_000, now)[1], 0);
    for _ in 0..5 {
        any_of(&cluster, 2, now, FAILURE, ms(1));
    }
    assert!(!cluster.endpoints()[2].ejected(now), "two of three would be more than half");
    assert_eq!(metrics.ejections_withheld.count(EjectReason::ConsecutiveFailures), 1);
    let later = now + Duration::from_secs(30);
    assert!(!ejected(later), "its time is up, even if nobody has noticed");
    drop(any(&cluster, later));
    assert_eq!(metrics.endpoints.value(telemetry::EndpointState::Ejected), 0);
    let report = cluster.report(later);
    assert_eq!(report[1].latency.max(report[0].latency), report[1].latency);
    assert!(report[1].latency < ms(400), "not its own penalty: {:?}", report[1].latency);
}

/// One whole attempt at this endpoint.
fn any_of<T: Send + Sync + 'static>(cluster: &Cluster<T>, name: usize, now: Instant, outcome: Outcome, took: Duration) {
    of(cluster, name, now).finish(outcome, now + took);
}

#[tokio::test(start_paused = true)]
async fn one_attempt_has_one_verdict() {
    let cluster = cluster(&ClusterConfig {
        outlier: OutlierConfig { consecutive_failures: 1_000, ..OutlierConfig::default() },
        ..config()
    });
    let now = Instant::now();
    cluster.update(endpoints(1), now);
    use telemetry::AttemptOutcome as A;
    let cases = [
        (Some(Outcome::Success), Some(Outcome::Success), A::Success),
        (Some(Outcome::Success), Some(FAILURE), A::Failure),
        (Some(Outcome::Success), Some(Outcome::Unreachable), A::Unreachable),
        (Some(Outcome::Success), None, A::Success),
        (Some(FAILURE), Some(Outcome::Success), A::Failure),
        (Some(FAILURE), Some(Outcome::Unreachable), A::Failure),
        (Some(FAILURE), None, A::Failure),
        (None, Some(Outcome::Timeout), A::Timeout),
        (None, None, A::Cancelled),
    ];
    for (headers, end, expected) in cases {
        let before = cluster.metrics().attempts.count(expected);
        let mut pick = any(&cluster, now);
        if let Some(outcome) = headers {
            pick.headers(outcome, now);
        }
        match end {
            Some(outcome) => pick.finish(outcome, now),
            None => drop(pick),
        }
        assert_eq!(cluster.metrics().attempts.count(expected), before + 1, "{headers:?} then {end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ejects_and_a_returned_transport_forgets() {
    let cluster = with_readiness(&config());
    let start = Instant::now();
    cluster.update(endpoints(4), start);
    let ejected = || cluster.endpoints()[0].ejected(start + ms(100));
    let (first, second) = (of(&cluster, 0, start), of(&cluster, 0, start));
    any_of(&cluster, 0, start, Outcome::Success, ms(50));
    first.finish(Outcome::Timeout, start + ms(100));
    assert!(!ejected(), "another attempt is under way");
    second.finish(Outcome::Success, start + ms(100));
    let slow = of(&cluster, 0, start);
    any_of(&cluster, 0, start + ms(40), Outcome::Success, ms(50));
    slow.finish(Outcome::Timeout, start + ms(100));
    assert!(!ejected(), "it answered others meanwhile");
    any_of(&cluster, 0, start + ms(100), Outcome::Success, ms(0));
    of(&cluster, 0, start + ms(100)).finish(Outcome::Timeout, start + ms(100));
    assert!(ejected(), "nothing but silence");
    assert_eq!(cluster.metrics().ejections.count(EjectReason::Timeouts), 1);
    any_of(&cluster, 1, start, Outcome::Unreachable, ms(1));
    let now = start + ms(100);
    let lost = Arc::clone(&cluster.endpoints()[1]);
    lost.transport().unready();
    assert!(!lost.available(now));
    assert_eq!(picked(&cluster, 1_000, now)[1], 0);
    lost.transport().ready();
    assert!(lost.available(now));
    let counts = picked(&cluster, 3_000, now);
    assert!(counts[1] > 500, "its penalty is forgotten: {counts:?}");
}

/// The diagram of [`Readiness`], and what of it the metrics say.
#[tokio::test(start_paused = true)]
async fn readiness_goes_where_its_diagram_says() {
    type Step = fn(&Cluster<Readiness>);
    const READY: Step = |cluster| cluster.endpoints()[0].transport().ready();
    const UNREADY: Step = |cluster| cluster.endpoints()[0].transport().unready();
    const PICK: Step = |cluster| drop(any(cluster, Instant::now()));
    let cases: &[(&[Step], &str)] = &[
        (&[PICK], "unknown"),
        (&[READY], "ready"),
        (&[READY, READY], "ready"),
        (&[UNREADY], "unready"),
        (&[READY, UNREADY, UNREADY], "unready"),
        (&[UNREADY, PICK], "unready"),
        (&[UNREADY, READY], "returned"),
        (&[UNREADY, READY, READY], "returned"),
        (&[UNREADY, READY, PICK], "ready"),
        (&[UNREADY, READY, UNREADY, PICK], "unready"),
    ];
    for (steps, expected) in cases {
        let cluster = with_readiness(&config());
        cluster.update(endpoints(2), Instant::now());
        steps.iter().for_each(|step| step(&cluster));
        let found = cluster.endpoints()[0].transport().clone();
        assert_eq!(format!("{found:?}"), format!("Readiness({expected:?})"));
        let unready = *expected == "unready";
        assert_eq!(found.is_usable(), !unready, "{expected}");
        let gauge = || cluster.metrics().endpoints.value(telemetry::EndpointState::Unready);
        assert_eq!(gauge(), i64::from(unready), "{expected}");
    }
}

/// What befalls most of them is no fault of each; what befalls one is.
#[tokio::test(start_paused = true)]
async fn nobody_is_ejected_for_what_befalls_most() {
    for (others_fail, ejected) in [(3, false), (2, true), (0, true)] {
        let cluster = cluster(&config());
        let now = Instant::now();
        cluster.update(endpoints(5), now);
        for name in 1..=others_fail {
            any_of(&cluster, name, now, FAILURE, ms(1));
        }
        for _ in 0..5 {
            any_of(&cluster, 0, now, FAILURE, ms(1));
        }
        assert_eq!(cluster.endpoints()[0].ejected(now + ms(2)), ejected, "{others_fail} of 4 others fail");
        let withheld = cluster.metrics().ejections_withheld.count(EjectReason::ConsecutiveFailures);
        assert_eq!(withheld, u64::from(!ejected));
        // It is asked about again, and goes out when the others are well.
        (1..5).for_each(|name| any_of(&cluster, name, now, Outcome::Success, ms(1)));
        if !ejected {
            (0..4).for_each(|_| any_of(&cluster, 0, now, FAILURE, ms(1)));
            assert!(cluster.endpoints()[0].ejected(now + ms(2)));
        }
    }
}

/// Peers fail as well if they fail a third as often, though their last attempts may have succeeded.
#[tokio::test(start_paused = true)]
async fn peers_that_fail_now_and_then_fail_as_well_if_it_is_often_enough() {
    // Failures of the others' last sixteen attempts, and in a row then of one, whose ejection may be asked for by each.
    for (others, in_a_row, ejected) in [(2, 5, false), (1, 5, true), (2, 9, true), (4, 9, false), (4, 13, true)] {
        let cluster = cluster(&config());
        let now = Instant::now();
        cluster.update(endpoints(5), now);
        let all = |name: usize, outcome, times| (0..times).for_each(|_| any_of(&cluster, name, now, outcome, ms(1)));
        for name in 1..5 {
            all(name, FAILURE, others);
            all(name, Outcome::Success, 16 - others);
        }
        all(0, FAILURE, in_a_row);
        assert_eq!(cluster.endpoints()[0].ejected(now + ms(2)), ejected, "{others} of 16, {in_a_row} in a row");
    }
}

/// Where nearly everybody fails nearly always, a share of failures ejects nobody either; one alone it does.
#[tokio::test(start_paused = true)]
async fn a_share_of_failures_that_most_have_ejects_nobody() {
    for (sick, out) in [(5, 0), (1, 1)] {
        let mut config = config();
        config.outlier.consecutive_failures = 0;
        let cluster = cluster(&config);
        let start = Instant::now();
        cluster.update(endpoints(6), start);
        for (name, n) in (0..6).flat_map(|name| (0..200).map(move |n| (name, n))) {
            let outcome = if name < sick && n % 10 != 9 { FAILURE } else { Outcome::Success };
            any_of(&cluster, name, start + ms(9_000), outcome, ms(1));
        }
        let later = start + ms(10_001);
        drop(any(&cluster, later));
        assert_eq!(cluster.endpoints().iter().filter(|state| state.ejected(later)).count(), out, "{sick} sick");
        let withheld = cluster.metrics().ejections_withheld.count(EjectReason::FailurePercentage);
        assert_eq!(withheld, if out == 0 { sick as u64 } else { 0 });
    }
}

/// Whoever breaks its own connections all the time is compared by what it answered.
#[tokio::test(start_paused = true)]
async fn breaking_connections_hides_no_bad_answers() {
    let cluster = with_readiness(&config());
    let start = Instant::now();
    cluster.update(endpoints(6), start);
    let endpoint = Arc::clone(&cluster.endpoints()[0]);
    for second in 0..10 {
        let now = start + ms(1_000 * second);
        (1..6).for_each(|name| (0..20).for_each(|_| any_of(&cluster, name, now, Outcome::Success, ms(1))));
        for _ in 0..10 {
            any_of(&cluster, 0, now, FAILURE, ms(1));
            any_of(&cluster, 0, now, Outcome::Success, ms(1));
        }
        endpoint.transport().unready();
        endpoint.transport().ready();
    }
    // Not there when the others are compared, either.
    endpoint.transport().unready();
    drop(any(&cluster, start + ms(10_001)));
    assert!(!endpoint.ejected(start + ms(10_001)));
    endpoint.transport().ready();
    let later = start + ms(20_002);
    (1..6).for_each(|name| (0..120).for_each(|_| any_of(&cluster, name, start + ms(15_000), Outcome::Success, ms(1))));
    drop(any(&cluster, later));
    assert!(endpoint.ejected(later), "{:?}", cluster.endpoints()[0]);
}

/// A failure of long ago, or of a standby that gets no load, keeps nobody in.
#[tokio::test(start_paused = true)]
async fn what_others_failed_long_ago_or_in_reserve_keeps_nobody_in() {
    for (standby, age, ejected) in [(false, ms(0), false), (false, ms(3_600_000), true), (true, ms(0), true)] {
        let cluster = cluster(&config());
        let start = Instant::now() + ms(60_000);
        let mut set = endpoints(4);
        set.iter_mut().skip(1).for_each(|endpoint| endpoint.priority = u32::from(standby));
        cluster.update(set.clone(), start);
        if standby {
            // Failed over to once, when the primary was not there.
            cluster.update(set.split_off(1), start);
        }
        (1..4).for_each(|name| any_of(&cluster, name - usize::from(standby), start, FAILURE, ms(1)));
        if standby {
            let mut all = endpoints(4);
            all.iter_mut().skip(1).for_each(|endpoint| endpoint.priority = 1);
            cluster.update(all, start);
        }
        let now = start + age;
        (0..5).for_each(|_| any_of(&cluster, 0, now, FAILURE, ms(1)));
        assert_eq!(cluster.endpoints()[0].ejected(now + ms(2)), ejected, "standby {standby}, {age:?} ago");
    }
}

/// Requests that broke with the connections of a process that died say nothing of the one that is there now.
#[tokio::test(start_paused = true)]
async fn whoever_is_unreachable_or_came_back_is_not_compared_by_what_broke() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Transport {
        Silent,
        Lost,
        Returned,
    }
    for transport in [Transport::Silent, Transport::Lost, Transport::Returned] {
        let cluster = with_readiness(&config());
        let start = Instant::now();
        cluster.update(endpoints(6), start);
        for name in 0..6 {
            (0..200).for_each(|_| any_of(&cluster, name, start, Outcome::Success, ms(1)));
        }
        for _ in 0..10 {
            (0..4).for_each(|_| any_of(&cluster, 0, start, Outcome::Unreachable, ms(1)));
            any_of(&cluster, 0, start, Outcome::Success, ms(1));
        }
        let endpoint = Arc::clone(&cluster.endpoints()[0]);
        if transport != Transport::Silent {
            endpoint.transport().unready();
        }
        if transport == Transport::Returned {
            endpoint.transport().ready();
            drop(any(&cluster, start + ms(1_000)));
        }
        let later = start + ms(10_001);
        drop(any(&cluster, later));
        assert_eq!(endpoint.ejected(later), transport == Transport::Silent, "{transport:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn state_is_kept_by_key_and_address_and_transports_die_with_their_last_pick() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let cluster = Cluster::new("payments", &config(), Rng::seeded(1), Arc::default(), move |_, _| {
        counter.fetch_add(1, Relaxed);
        Counted(Arc::clone(&counter))
    });
    let now = Instant::now();
    cluster.update(vec![endpoint(0, 1), endpoint(1, 2)], now);
    let held = of(&cluster, 0, now);
    cluster.update(vec![Endpoint { weight: 7, ..endpoint(0, 1) }, endpoint(1, 2), endpoint(1, 9)], now);
    assert_eq!(alive.load(Relaxed), 2, "nothing was made anew; of two with one key the first stays");
    assert_eq!((cluster.endpoints()[0].in_flight(), cluster.endpoints()[0].endpoint().weight), (1, 7));
    cluster.update(vec![endpoint(0, 5), endpoint(1, 2)], now);
    assert_eq!(alive.load(Relaxed), 3, "another address is another endpoint; the old one is held by its pick");
    assert_eq!(cluster.endpoints()[0].in_flight(), 0);
    held.finish(Outcome::Success, now);
    assert_eq!(alive.load(Relaxed), 2);
    let held = of(&cluster, 1, now);
    drop(cluster);
    assert_eq!(alive.load(Relaxed), 1, "picks do not keep the cluster");
    drop(held);
    assert_eq!(alive.load(Relaxed), 0);
}

/// F37: selection is keyed, not indexed (tower-rs/tower#856). `MESH_CHURN_STEPS=1000000` runs it in full.
#[tokio::test(start_paused = true)]
async fn churn_never_misroutes() {
    let steps = std::env::var("MESH_CHURN_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(20_000_u32);
    for policy in balance::policies() {
        churn(config().balance(BalanceConfig::default().policy(policy)), steps);
    }
}

fn churn(config: ClusterConfig, steps: u32) {
    let cluster = cluster(&config);
    let (rng, mut now) = (Rng::seeded(11), Instant::now());
    let mut model: BTreeMap<usize, u16> = BTreeMap::new();
    let (mut held, mut picks) = (Vec::new(), 0);
    for step in 0..steps {
        now += ms(1);
        match rng.below(8) {
            0 => _ = model.insert(rng.below(20), rng.below(1_000) as u16),
            1 => _ = model.remove(&rng.below(20)),
            _ => {
                match cluster.pick_by(Some(rng.next_u64()), &Tried::default(), now) {
                    Ok(pick) => {
                        let state = Arc::clone(pick.endpoint());
                        let Endpoint { key, address, .. } = state.endpoint();
                        assert_eq!(state.transport(), address, "step {step}");
                        assert_eq!(model.get(&key.0.parse().unwrap()), Some(&address.port()), "step {step}");
                        held.push(pick);
                        picks += 1;
                    }
                    Err(_) => assert!(model.is_empty(), "step {step}"),
                }
                if held.len() > 8 {
                    let outcome = [Outcome::Success, FAILURE, Outcome::Timeout, Outcome::Cancelled][rng.below(4)];
                    held.swap_remove(rng.below(held.len())).finish(outcome, now);
                }
                continue;
            }
        }
        cluster.update(model.iter().map(|(name, port)| endpoint(*name, *port)).collect(), now);
    }
    assert!(picks > steps / 2, "{picks}");
    drop(held);
    assert!(cluster.endpoints().iter().all(|state| state.in_flight() == 0));
}

/// F1: ejected at once, and back as soon as the restarted process is reconnected.
#[tokio::test(start_paused = true)]
async fn a_restarted_endpoint_is_back_before_its_ejection_ends() {
    let cluster = with_readiness(&config());
    let now = Instant::now();
    cluster.update(endpoints(4), now);
    let broken: Vec<_> = (0..5).map(|_| of(&cluster, 2, now)).collect();
    for pick in broken {
        pick.finish(Outcome::Unreachable, now + ms(1));
    }
    let state = Arc::clone(&cluster.endpoints()[2]);
    assert!(state.ejected(now + ms(1)));
    state.transport().unready();
    let later = now + ms(1_500);
    assert_eq!(picked(&cluster, 1_000, later)[2], 0);
    state.transport().ready();
    let (rng, mut back) = (Rng::seeded(2), 0);
    for step in 0..500 {
        let now = later + ms(step);
        let pick = any(&cluster, now);
        back += u32::from(Arc::ptr_eq(pick.endpoint(), &state));
        pick.finish(Outcome::Success, now + ms(rng.below(30) as u64));
    }
    assert!(back > 50, "{back} of 500 in half a second");
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Ejected), 0);
}

/// F5, F6 and races in between: threads pick, fail, lose and find endpoints while the set is replaced.
#[test]
fn concurrent_changes_leave_every_counter_whole() {
    let short = OutlierConfig { base_ejection: ms(1), max_ejection: ms(2), ..OutlierConfig::default() };
    let cluster = with_readiness(&ClusterConfig { outlier: short, ..config() });
    let start = Instant::now();
    cluster.update(endpoints(8), start);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let cluster = &cluster;
            scope.spawn(move || {
                let rng = Rng::seeded(seed);
                for step in 0..20_000 {
                    let now = start + Duration::from_micros(step * 10);
                    let pick = any(cluster, now);
                    match rng.below(40) {
                        0 => pick.endpoint().transport().unready(),
                        1 => cluster.endpoints().iter().for_each(|state| state.transport().ready()),
                        _ => {}
                    }
                    pick.finish([Outcome::Success, FAILURE, Outcome::Timeout][rng.below(3)], now);
                }
            });
        }
        for step in 0..200 {
            cluster.update(endpoints(6 + step % 3), start);
            cluster.reconfigure(&ClusterConfig { outlier: short, ..config() });
        }
        cluster.update(endpoints(8), start);
    });
    let end = start + Duration::from_secs(10);
    cluster.endpoints().iter().for_each(|state| state.transport().ready());
    drop(any(&cluster, end));
    for state in cluster.endpoints().iter() {
        assert_eq!(state.in_flight(), 0);
        assert!(state.available(end) && !state.live.vitals.has_returned(), "{state:?}");
    }
    for state in [telemetry::EndpointState::Ejected, telemetry::EndpointState::Unready] {
        assert_eq!(cluster.metrics().endpoints.value(state), 0, "{state:?}");
    }
    // Most are for a timeout: it ejects at once where nothing else is under way.
    let ejections = |reason| cluster.metrics().ejections.count(reason);
    assert!(ejections(EjectReason::ConsecutiveFailures) + ejections(EjectReason::Timeouts) > 50);
}
