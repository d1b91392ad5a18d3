//! What is foreseen is what happens, and looking changes nothing.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::balance::{balanced, of_policy, placed, policies};
use super::*;
use crate::config::{BreakerConfig, LocalityConfig, PanicConfig, SlowStartConfig, WeightedConfig};

fn explain(cluster: &Cluster<Readiness>, hash: Option<u64>, now: Instant) -> ClusterExplanation {
    cluster.explain(hash, now, |_| TransportReport::default())
}

/// Everything that a cluster shows of itself.
fn shown(cluster: &Cluster<Readiness>, now: Instant) -> String {
    format!("{:?} {:?}", cluster.report(now), cluster.metrics())
}

proptest! {
    /// Whatever the policy and however endpoints fare: what is foreseen is what the next pick does, and looking leaves
    /// everything as it was. The control arm is the number of different endpoints that are foreseen.
    #[test]
    fn what_is_foreseen_is_what_the_next_pick_chooses(
        policy in 0..6_usize,
        locality: bool,
        slow: bool,
        seed: u64,
        steps in proptest::collection::vec((any::<u64>(), 0..6_u8), 40..120),
    ) {
        let locality = if locality { LocalityConfig::Weighted(WeightedConfig::default()) } else { LocalityConfig::Off };
        let mut balance = of_policy(policies()[policy].clone()).locality(locality);
        if slow {
            balance = balance.slow_start(SlowStartConfig::over(Duration::from_secs(30)));
        }
        let cluster = balanced(balance);
        let mut now = Instant::now();
        cluster.update(placed(&[("a/1", 0), ("a/1", 0), ("a/2", 0), ("b/1", 0), ("a/1", 1), ("b/2", 1)]), now);
        let chance = Rng::seeded(seed);
        let (mut held, mut foreseen, mut seen) = (Vec::new(), 0, std::collections::BTreeSet::new());
        for (hash, step) in steps {
            now += Duration::from_millis(1 + hash % 300);
            let hash = (hash % 3 > 0).then_some(hash);
            let before = shown(&cluster, now);
            let told = explain(&cluster, hash, now);
            prop_assert_eq!(&explain(&cluster, hash, now), &told, "twice the same");
            prop_assert_eq!(shown(&cluster, now), before, "nothing is changed");
            let picked = cluster.pick_for(hash, &Tried::default(), now);
            match (picked, told.pick) {
                (Ok((pick, why)), Foreseen::Endpoint { key, reason, .. }) => {
                    if !told.plans_anew {
                        foreseen += 1;
                        prop_assert_eq!(&pick.endpoint().endpoint().key, &key);
                        prop_assert_eq!(why, reason);
                        seen.insert(key.to_string());
                    }
                    match step {
                        0..3 => pick.finish(if step == 0 { FAILURE } else { Outcome::Success }, now),
                        3 => pick.endpoint().transport().unready(),
                        4 => pick.endpoint().transport().ready(),
                        _ => held.push(pick),
                    }
                    if held.len() > 8 {
                        held.remove(chance.below(8));
                    }
                }
                (Err(error), Foreseen::Nobody(told)) => prop_assert_eq!(error, told),
                (picked, told) => prop_assert!(false, "{:?} {:?}", picked.map(|(pick, _)| pick), told),
            }
        }
        prop_assert!(foreseen > 5 && seen.len() > 1, "{foreseen} {seen:?}");
    }
}

fn eject(cluster: &Cluster<Readiness>, key: &str, now: Instant) {
    let mut tried = Tried::default();
    for state in cluster.endpoints().iter().filter(|state| &*state.endpoint().key.0 != key) {
        tried.insert(state.endpoint().key.clone());
    }
    for _ in 0..5 {
        cluster.pick(&tried, now).unwrap().finish(FAILURE, now);
    }
}

#[test]
fn each_standing_has_its_words() {
    let mut config = config().balance(BalanceConfig::default());
    config.breaker = Some(BreakerConfig::default());
    config.outlier.max_ejection_percent = 100;
    let cluster =
        Cluster::new("payments", &config, Rng::seeded(1), Arc::default(), |_, readiness: Readiness| readiness);
    let now = Instant::now();
    assert_eq!(explain(&cluster, None, now).pick, Foreseen::Nobody(PickError::Unresolved));
    cluster.update(Vec::new(), now);
    assert!(explain(&cluster, None, now).to_string().ends_with("pick: nobody - the cluster has no endpoints"));
    cluster.update(placed(&[("eu/a", 0), ("eu/a", 0), ("eu/b", 0)]), now);
    eject(&cluster, "000", now);
    cluster.endpoints()[1].transport().unready();
    let _ = cluster.pick(&Tried::default(), now);
    let told = cluster.explain(None, now, |_| TransportReport {
        failure: Some("refused\u{1b}[2J".to_owned()),
        ..TransportReport::default()
    });
    let text = told.to_string();
    assert!(text.starts_with("cluster payments: peak_ewma, 1 of 3 endpoints in"), "{text}");
    for line in [
        "  000  out (window_success_rate, ejection 1), back in ",
        "  001  unreachable, 0 under way, latency 30.00ms, cost 30.00ms, eu/a, 0 connections, last connect failed: refused\\u{1b}[2J",
        "> 002  in, ",
        "pick: 002 - ",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert_eq!(told.priorities[0].available, 1);

    // The breaker's time is up: before anybody looks, and after.
    let later = now + Duration::from_secs(20);
    let told = explain(&cluster, None, later);
    assert!(told.plans_anew && told.to_string().contains("000  out (window_success_rate, ejection 1), its time is up"));
    let _ = cluster.pick(&Tried::default(), later);
    let text = explain(&cluster, None, later).to_string();
    assert!(text.contains("half-open"), "{text}");
    let json = serde_json::to_value(explain(&cluster, None, later)).unwrap();
    assert_eq!((&json["policy"], &json["known"]), (&"peak_ewma".into(), &3.into()), "{json}");
    assert!(json["endpoints"][0]["latency_ms"].is_f64(), "{json}");
}

#[test]
fn panic_residency_and_many_endpoints_are_told_and_bounded() {
    let now = Instant::now();
    let cluster = balanced(BalanceConfig::default().panic(PanicConfig::default()));
    cluster.update(placed(&[("eu/a", 0), ("eu/a", 0), ("eu/b", 0), ("eu/b", 1)]), now);
    cluster.endpoints().iter().take(2).for_each(|state| state.transport().unready());
    eject(&cluster, "002", now);
    cluster.endpoints()[3].transport().unready();
    let _ = cluster.pick(&Tried::default(), now);
    let told = explain(&cluster, None, now);
    assert!(told.priorities.iter().any(|priority| priority.panic), "{told}");
    assert!(told.to_string().contains("panic: ejections do not count"), "{told}");

    let many: Vec<_> = (0..2_000).map(|n| if n % 2 == 0 { ("eu/a", n % 100) } else { ("us/a", n % 100) }).collect();
    let cluster =
        Cluster::new("p", &config().residency(["eu"]), Rng::seeded(1), Arc::default(), |_, ready: Readiness| ready);
    cluster.update(placed(&many), now);
    let told = explain(&cluster, None, now);
    assert_eq!((told.known, told.outside_residency, told.endpoints.len(), told.unlisted), (1_000, 1_000, 32, 968));
    assert_eq!(told.priorities.len(), 32);
    assert!(matches!(&told.pick, Foreseen::Endpoint { key, .. } if *key == told.endpoints[0].key), "listed first");
}

#[test]
fn whoever_matters_for_the_pick_comes_first_and_only_what_differs_is_told() {
    let (cluster, now) = (with_readiness(&config()), Instant::now());
    cluster.update(placed(&[("", 0), ("", 0), ("", 0), ("", 0), ("", 0), ("", 0), ("", 0), ("", 1)]), now);
    let check = crate::config::HealthCheckConfig::new(PlugConfig::new("http", &serde_json::json!({})));
    let (sick, gone) = (Arc::clone(&cluster.endpoints()[6]), Arc::clone(&cluster.endpoints()[5]));
    for _ in 0..3 {
        cluster.checked(&sick, &crate::health::CheckVerdict::Unhealthy("503".into()), &check, now);
    }
    gone.transport().unready();
    let _ = cluster.pick(&Tried::default(), now);
    let told = explain(&cluster, None, now);
    let Foreseen::Endpoint { key, reason, .. } = &told.pick else { panic!("{told}") };
    let order: Vec<_> = told.endpoints.iter().map(|endpoint| endpoint.key.clone()).collect();
    assert_eq!((&order[0], told.endpoints[1].address), (key, reason.rival.unwrap().address), "{told}");
    assert_eq!(order[2..4], [gone.endpoint().key.clone(), sick.endpoint().key.clone()], "{told}");
    assert!(order[4..].is_sorted(), "{told}");
    let text = told.to_string();
    assert!(text.contains("006  unhealthy by its checks"), "{text}");
    assert!(text.contains("priority 1: 0 % of requests, 1 of 1 in") && !text.contains("weight"), "{text}");
    cluster.update(placed(&[("", 0), ("", 0)]), now);
    let text = explain(&cluster, None, now).to_string();
    assert!(!text.contains("priority"), "one priority like any other: {text}");
}
