//! Which endpoints a pick may choose, and what it gives back however it ends.

use super::*;

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

/// What is written twice is one: from the same numbers the ordinary choice is the general one, to its reason.
#[test]
fn the_ordinary_pick_chooses_what_the_general_one_would() {
    let (cluster, now, rng) = (cluster(&config()), Instant::now(), Rng::seeded(9));
    let core = &cluster.core;
    cluster.update(endpoints(7), now);
    let mut held = Vec::new();
    for step in 0..500 {
        let (now, tried) = (now + ms(step), Tried::default());
        let millis = endpoint::since(core.shared.epoch, now);
        let (numbers, same, set) = (core.rng.preview(), core.rng.preview(), core.set.load());
        let ordinary = set.choose_ordinarily(&tried, &numbers, millis).expect("all are in");
        let general = set.choose(&tried, PickRequest::new(&same), millis).unwrap();
        assert_eq!((ordinary.picked, PickScope::Planned), (general.drawn.picked, general.scope));
        let (pick, reason) = cluster.pick_for(None, &tried, now).unwrap();
        assert_eq!(reason, PickReason::new(&ordinary, PickScope::Planned, false));
        held.push(pick);
        if held.len() > 20 {
            held.swap_remove(rng.below(20)).finish(Outcome::Success, now + ms(rng.below(300) as u64));
        }
    }
    // Wherever more is to be asked, it says nothing.
    let ordinary = |cluster: &Cluster<SocketAddr>, tried: &Tried| {
        let set = cluster.core.set.load();
        set.choose_ordinarily(tried, &Rng::seeded(1), endpoint::since(cluster.core.shared.epoch, now)).is_some()
    };
    let mut tried = Tried::default();
    tried.insert(EndpointKey("003".into()));
    assert!(ordinary(&cluster, &Tried::default()) && !ordinary(&cluster, &tried), "a retry");
    let changed = |change: &dyn Fn(&mut ClusterConfig, &mut Vec<Endpoint>)| {
        let (mut config, mut endpoints) = (config(), endpoints(7));
        change(&mut config, &mut endpoints);
        let cluster = super::cluster(&config);
        cluster.update(endpoints, now);
        ordinary(&cluster, &Tried::default())
    };
    assert!(changed(&|_, _| ()));
    assert!(!changed(&|_, endpoints| endpoints[2].weight = 3), "weights");
    assert!(!changed(&|_, endpoints| endpoints[2].priority = 1), "priorities");
    assert!(!changed(&|_, endpoints| endpoints.truncate(1)), "nobody to compare with");
    assert!(!changed(&|config, _| config.balance.policy = crate::config::BalancePolicy::Random), "another policy");
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
