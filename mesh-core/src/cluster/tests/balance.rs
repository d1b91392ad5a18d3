//! Policies, priorities, localities, residency and slow start, as a cluster applies them.

use std::collections::BTreeMap;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::super::Readiness;
use super::*;
use crate::balance::{Candidates, xxh64};
use crate::config::{
    BalancePolicy, HashKey, LeastRequestConfig, Locality, LocalityConfig, PanicConfig, RingHashConfig, SlowStartConfig,
    WeightedConfig, ZoneAwareConfig,
};
use crate::telemetry::{Distance, PriorityLabel};

/// One of each that this crate brings.
pub(super) fn policies() -> [BalancePolicy; 6] {
    let ring = RingHashConfig::by(vec![HashKey::Principal]);
    [
        BalancePolicy::PeakEwma,
        BalancePolicy::LeastRequest(LeastRequestConfig::default().choices(3)),
        BalancePolicy::RoundRobin,
        BalancePolicy::Random,
        BalancePolicy::RingHash(ring.clone()),
        BalancePolicy::RingHash(ring.balance_factor(125)),
    ]
}

pub(super) fn balanced(balance: BalanceConfig) -> Cluster<Readiness> {
    with_readiness(&config().balance(balance))
}

pub(super) fn of_policy(policy: BalancePolicy) -> BalanceConfig {
    BalanceConfig::default().policy(policy)
}

/// Endpoints of these localities, by `REGION/ZONE`.
pub(super) fn placed(all: &[(&str, u32)]) -> Vec<Endpoint> {
    let places = all.iter().enumerate().map(|(name, (place, priority))| {
        let (region, zone) = place.split_once('/').unwrap_or((place, ""));
        let locality = Locality { region: region.into(), zone: zone.into() };
        Endpoint { locality, priority: *priority, ..endpoint(name, name as u16) }
    });
    places.collect()
}

/// The share of picks of each endpoint, in percent, with a new key each time and nothing in flight.
fn shares<T: Send + Sync + 'static>(cluster: &Cluster<T>, now: Instant) -> Vec<f64> {
    const PICKS: u32 = 20_000;
    let states = cluster.endpoints();
    let mut counts = vec![0.0; states.len()];
    for key in 0..PICKS {
        let hash = xxh64(&key.to_le_bytes(), 0);
        let pick = cluster.pick_by(Some(hash), &Tried::default(), now).unwrap();
        counts[states.iter().position(|state| Arc::ptr_eq(state, pick.endpoint())).unwrap()] +=
            100.0 / f64::from(PICKS);
    }
    counts
}

fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1.0 + b * 0.1);
    assert!(near && found.len() == expected.len(), "{what}: {found:.1?} instead of {expected:.1?}");
}

/// The policies where equal endpoints get equal shares up to chance; a ring is only as even as it is long.
pub(super) fn even() -> impl Iterator<Item = BalancePolicy> {
    policies().into_iter().map(|policy| match policy {
        BalancePolicy::RingHash(ring) => BalancePolicy::RingHash(ring.min_ring_size(200_000)),
        policy => policy,
    })
}

#[tokio::test(start_paused = true)]
async fn weights_count_in_every_policy() {
    let now = Instant::now();
    for policy in even() {
        let cluster = balanced(of_policy(policy.clone()));
        let weighted = [1, 2, 5, 2].into_iter().enumerate();
        cluster
            .update(weighted.map(|(name, weight)| Endpoint { weight, ..endpoint(name, name as u16) }).collect(), now);
        // Two distinct ones are drawn for a choice of the better, and with equal costs the first stands.
        assert_near(&shares(&cluster, now), &[10.0, 20.0, 50.0, 20.0], policy.name());
        cluster.endpoints()[2].transport().unready();
        assert_near(&shares(&cluster, now), &[20.0, 40.0, 0.0, 40.0], policy.name());
    }
}

#[tokio::test(start_paused = true)]
async fn least_request_and_peak_ewma_avoid_the_busy_one_and_load_counts_against_weight() {
    let now = Instant::now();
    for policy in [BalancePolicy::PeakEwma, BalancePolicy::LeastRequest(LeastRequestConfig::default())] {
        let cluster = balanced(of_policy(policy.clone()));
        let weighted = [1, 3].into_iter().enumerate();
        cluster
            .update(weighted.map(|(name, weight)| Endpoint { weight, ..endpoint(name, name as u16) }).collect(), now);
        let held: Vec<_> = (0..400).map(|_| any_of_all(&cluster, now)).collect();
        let first = cluster.endpoints()[0].in_flight();
        assert!((95..=105).contains(&first), "{}: a quarter of what is under way: {first}", policy.name());
        drop(held);
    }
}

fn any_of_all<T: Send + Sync + 'static>(cluster: &Cluster<T>, now: Instant) -> Pick<T> {
    cluster.pick(&Tried::default(), now).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_endpoint_and_its_load_is_bounded_over_the_whole_cluster() {
    let now = Instant::now();
    let ring = RingHashConfig::by(vec![HashKey::Principal]).balance_factor(150);
    let cluster = balanced(of_policy(BalancePolicy::RingHash(ring)));
    cluster.update(endpoints(10), now);
    let pick = |hash| cluster.pick_by(Some(hash), &Tried::default(), now).unwrap();
    let own = Arc::clone(pick(7).endpoint());
    assert!((0..100).all(|_| Arc::ptr_eq(pick(7).endpoint(), &own)));
    let held: Vec<_> = (0..100).map(|_| pick(7)).collect();
    let most = cluster.endpoints().iter().map(|state| state.in_flight()).max().unwrap();
    assert!(most <= 15, "one hot key of 100 requests: {most}");
    drop(held);
    assert!(Arc::ptr_eq(pick(7).endpoint(), &own), "it is back as soon as there is room");
    let mut tried = Tried::default();
    tried.insert(own.endpoint().key.clone());
    assert!(!Arc::ptr_eq(cluster.pick_by(Some(7), &tried, now).unwrap().endpoint(), &own), "a retry goes elsewhere");
}

/// One ring holds all localities: chance must not choose among them first, or a key would have an endpoint in each.
#[tokio::test(start_paused = true)]
async fn a_key_has_one_endpoint_whatever_the_localities() {
    let now = Instant::now();
    let weights = [("eu/a".to_owned(), 3), ("us".to_owned(), 2)].into();
    let weighted = LocalityConfig::Weighted(WeightedConfig::default().weights(weights));
    let zones = LocalityConfig::ZoneAware(ZoneAwareConfig::default().min_endpoints(0));
    for locality in [weighted, zones] {
        let ring = RingHashConfig::by(vec![HashKey::Principal]);
        let cluster = balanced(of_policy(BalancePolicy::RingHash(ring)).locality(locality));
        let cluster = cluster.located(Locality { region: "eu".into(), zone: "a".into() });
        cluster.update(placed(&["eu/a", "eu/a", "eu/b", "us/x", "us/x"].map(|place| (place, 0))), now);
        cluster.endpoints()[0].transport().unready();
        let mut owners = [false; 5];
        for key in 0..200_u32 {
            let hash = Some(xxh64(&key.to_le_bytes(), 0));
            let owner = || cluster.pick_by(hash, &Tried::default(), now).unwrap().endpoint().endpoint().address.port();
            let own = owner();
            assert!((0..20).all(|_| owner() == own), "{key}");
            owners[usize::from(own)] = true;
        }
        assert_eq!(owners, [false, true, true, true, true], "everywhere but where one is out");
    }
}

#[tokio::test(start_paused = true)]
async fn priorities_spill_with_health_and_panic_is_the_last_resort() {
    let now = Instant::now();
    for policy in even() {
        let cluster = balanced(of_policy(policy.clone()));
        let percent = |label| cluster.metrics().balance.priority_percent.value(label);
        let panic = |label| cluster.metrics().balance.priority_panic.value(label);
        let unready = |names: &[usize]| names.iter().for_each(|name| cluster.endpoints()[*name].transport().unready());
        cluster.update(placed(&[("a", 0), ("a", 0), ("a", 0), ("a", 0), ("b", 3), ("b", 3)]), now);
        assert_near(&shares(&cluster, now), &[25.0, 25.0, 25.0, 25.0, 0.0, 0.0], policy.name());
        unready(&[0]);
        assert_near(&shares(&cluster, now), &[0.0, 33.3, 33.3, 33.3, 0.0, 0.0], "75 % x 140 % is enough");
        unready(&[1]);
        assert_near(&shares(&cluster, now), &[0.0, 0.0, 35.0, 35.0, 15.0, 15.0], "70 % stay");
        assert_eq!((percent(PriorityLabel::First), percent(PriorityLabel::Fourth)), (70, 30));
        let report = cluster.report(now);
        assert_eq!((report[2].priority_percent, report[4].priority_percent, report[4].priority), (70, 30, 3));
        unready(&[2, 3]);
        assert_near(&shares(&cluster, now), &[0.0, 0.0, 0.0, 0.0, 50.0, 50.0], "nothing is left of the first");
        assert_eq!(cluster.metrics().panic_picks.get(), 0);
        // Half of the second: health 70 in all, and the first, not the second, is in panic, without any load.
        unready(&[4]);
        assert_near(&shares(&cluster, now), &[0.0, 0.0, 0.0, 0.0, 0.0, 100.0], policy.name());
        assert_eq!((panic(PriorityLabel::First), panic(PriorityLabel::Fourth)), (1, 0));
        // Nobody: by the number of endpoints.
        unready(&[5]);
        assert_near(&shares(&cluster, now), &[16.7; 6], "all in panic");
        assert!(cluster.metrics().panic_picks.get() > 0 && cluster.report(now)[0].panic);
        cluster.endpoints().iter().for_each(|state| state.transport().ready());
        assert_near(&shares(&cluster, now), &[25.0, 25.0, 25.0, 25.0, 0.0, 0.0], "as if nothing had been");
    }
}

/// Ejection is a judgement and is ignored in panic; that nobody is reached there is a fact and is not.
#[tokio::test(start_paused = true)]
async fn panic_ignores_ejections_but_not_lost_connections_and_can_be_forbidden() {
    let now = Instant::now();
    let run = |panic: PanicConfig| {
        let outlier = OutlierConfig { max_ejection_percent: 100, ..OutlierConfig::default() };
        let cluster = with_readiness(&config().outlier(outlier).balance(BalanceConfig::default().panic(panic)));
        cluster.update(endpoints(5), now);
        for name in [0, 1] {
            (0..5).for_each(|_| super::any_of(&cluster, name, now, FAILURE, ms(1)));
        }
        assert_near(&shares(&cluster, now), &[0.0, 0.0, 33.3, 33.3, 33.3], "60 % are enough");
        cluster.endpoints()[2].transport().unready();
        cluster
    };
    let cluster = run(PanicConfig::default());
    let counts = picked(&cluster, 1_000, now);
    assert!(counts[2] == 0 && counts[0] + counts[1] > 0, "40 % are too few: the ejected help: {counts:?}");
    for panic in [PanicConfig::default().action(PanicAction::Fail), PanicConfig::default().threshold_percent(0)] {
        let cluster = run(panic);
        let pick = || cluster.pick(&Tried::default(), now).map(|_| ()).err();
        let fails = panic.action == PanicAction::Fail;
        assert_eq!(pick(), fails.then_some(PickError::Unavailable), "{panic:?}");
        cluster.endpoints()[3].transport().unready();
        cluster.endpoints()[4].transport().unready();
        assert_eq!(pick(), Some(PickError::Unavailable), "{panic:?}");
        assert!(cluster.metrics().balance.refused.count(PickRefusal::Panic) > 0);
        assert_eq!(cluster.metrics().panic_picks.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn localities_get_their_weight_as_far_as_their_endpoints_carry_it() {
    let now = Instant::now();
    let weights = [("eu/a".to_owned(), 3), ("us".to_owned(), 2)].into();
    let locality = LocalityConfig::Weighted(WeightedConfig::default().weights(weights));
    for policy in even() {
        let folded = matches!(policy, BalancePolicy::RingHash(_));
        let cluster = balanced(of_policy(policy.clone()).locality(locality.clone()));
        cluster.update(placed(&[("eu/a", 0), ("eu/a", 0), ("us/x", 0), ("us/x", 0), ("ap/q", 0), ("ap/q", 0)]), now);
        assert_near(&shares(&cluster, now), &[25.0, 25.0, 16.7, 16.7, 8.3, 8.3], policy.name());
        cluster.endpoints()[0].transport().unready();
        if folded {
            // On a ring the keys of one that is out go to whoever stands next.
            assert!(shares(&cluster, now)[0] < 0.1);
            continue;
        }
        // 3 x 70 % = 2.1 of 5.1
        assert_near(&shares(&cluster, now), &[0.0, 41.2, 19.6, 19.6, 9.8, 9.8], policy.name());
        assert_eq!(cluster.report(now)[1].locality_percent, 41);
        cluster.update(placed(&[("eu/a", 0), ("us/x", 0), ("us/x", 0), ("us/x", 0)]), now);
        assert_eq!(cluster.report(now)[0].locality_percent, 0, "the only one of them is out");
        cluster.endpoints()[0].transport().ready();
        assert_near(&shares(&cluster, now), &[60.0, 13.3, 13.3, 13.3], "two localities");
    }
}

#[tokio::test(start_paused = true)]
async fn the_own_zone_is_preferred_and_spills_with_health_and_with_load() {
    let now = Instant::now();
    let locality = LocalityConfig::ZoneAware(ZoneAwareConfig::default());
    let at_home = || Locality { region: "eu".into(), zone: "a".into() };
    for policy in even().filter(|policy| !matches!(policy, BalancePolicy::RingHash(_))) {
        let cluster = balanced(of_policy(policy.clone()).locality(locality.clone())).located(at_home());
        let all = [("eu/a", 0), ("eu/a", 0), ("eu/b", 0), ("eu/b", 0), ("us/a", 0), ("us/a", 0), ("eu/a", 1)];
        cluster.update(placed(&all), now);
        assert_near(&shares(&cluster, now), &[50.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0], policy.name());
        assert_eq!(cluster.metrics().balance.distance_percent.value(Distance::Zone), 100);
        // Requests that stay: the own zone takes them until it has twice as much to do as its region.
        let held: Vec<_> = (0..30).map(|_| any_of_all(&cluster, now)).collect();
        let there: Vec<usize> = cluster.endpoints().iter().map(|state| state.in_flight()).collect();
        assert!(there[0] + there[1] >= 18 && there[2] + there[3] >= 8, "{}: {there:?}", policy.name());
        assert_eq!(there[4] + there[5] + there[6], 0, "the next ring is enough");
        assert!(cluster.metrics().balance.spilled.get() > 0);
        drop(held);
        cluster.endpoints()[0].transport().unready();
        // Fewer than `min_endpoints` are left: everybody of the first priority counts the same.
        assert_near(&shares(&cluster, now), &[0.0, 20.0, 20.0, 20.0, 20.0, 20.0, 0.0], policy.name());
        let few = ZoneAwareConfig::default().min_endpoints(0);
        let locality = LocalityConfig::ZoneAware(few);
        cluster.reconfigure(&config().balance(of_policy(policy.clone()).locality(locality)));
        assert_near(&shares(&cluster, now), &[0.0, 70.0, 15.0, 15.0, 0.0, 0.0, 0.0], policy.name());
        assert_eq!(cluster.metrics().balance.distance_percent.value(Distance::Region), 30);
    }
}

/// Where the near one would have more than so many times what the far one would have, and not before.
#[tokio::test(start_paused = true)]
async fn load_spills_exactly_when_it_is_so_many_times_as_much() {
    let now = Instant::now();
    for factor in [1, 2, 3] {
        let zones = ZoneAwareConfig::default().min_endpoints(0).spill(factor);
        let cluster = balanced(BalanceConfig::default().locality(LocalityConfig::ZoneAware(zones)));
        let cluster = cluster.located(Locality { region: "eu".into(), zone: "a".into() });
        cluster.update(placed(&[("eu/a", 0), ("eu/b", 0)]), now);
        for (near, far) in (0..10).flat_map(|near| (0..4).map(move |far| (near, far))) {
            let hold = |name, count| (0..count).map(|_| of(&cluster, name, now)).collect::<Vec<_>>();
            let _held = (hold(0, near), hold(1, far));
            let spilled = cluster.metrics().balance.spilled.get();
            let there = any_of_all(&cluster, now).endpoint().endpoint().address.port();
            let expected = near + 1 > factor as usize * (far + 1);
            assert_eq!(there == 1, expected, "{factor}: {near} and {far}");
            assert_eq!(cluster.metrics().balance.spilled.get() - spilled, u64::from(expected));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn known_callers_split_a_zone_by_its_share() {
    let now = Instant::now();
    // Half of the callers are here, and a quarter of the endpoints.
    let callers: BTreeMap<String, u32> =
        [("eu/a".to_owned(), 2), ("eu/b".to_owned(), 1), ("eu/c".to_owned(), 1)].into();
    let locality = LocalityConfig::ZoneAware(ZoneAwareConfig::default().callers(callers));
    let cluster = balanced(BalanceConfig::default().locality(locality));
    let cluster = cluster.located(Locality { region: "eu".into(), zone: "a".into() });
    let all = ["eu/a", "eu/a", "eu/b", "eu/b", "eu/b", "eu/b", "eu/c", "eu/c"].map(|place| (place, 0));
    cluster.update(placed(&all), now);
    assert_near(&shares(&cluster, now), &[25.0, 25.0, 12.5, 12.5, 12.5, 12.5, 0.0, 0.0], "half stays, b has more");
    // Without endpoints in the own zone nothing is preferred.
    cluster.update(placed(&all[2..]), now);
    assert_near(&shares(&cluster, now), &[16.7; 6], "no endpoint here");
}

#[tokio::test(start_paused = true)]
async fn residency_holds_in_failover_and_in_panic_and_fails_with_its_reason() {
    let now = Instant::now();
    for policy in policies() {
        let pinned = config().balance(of_policy(policy.clone())).residency(["eu"]);
        let cluster = with_readiness(&pinned);
        let all = placed(&[("eu/a", 0), ("us/a", 0), ("eu/b", 1), ("us/b", 1), ("", 0)]);
        cluster.update(all.clone(), now);
        assert_eq!(cluster.endpoints().len(), 2, "nothing is made for those outside");
        assert_eq!(
            (
                cluster.metrics().balance.outside.get(),
                cluster.metrics().endpoints.value(telemetry::EndpointState::Known)
            ),
            (3, 5)
        );
        for step in 0..3 {
            let only_eu = |pick: &Pick<Readiness>| pick.endpoint().endpoint().locality.region == "eu";
            assert!((0..500).all(|_| only_eu(&any_of_all(&cluster, now))), "{} step {step}", policy.name());
            let mut tried = Tried::default();
            cluster.endpoints().iter().for_each(|state| tried.insert(state.endpoint().key.clone()));
            assert!(only_eu(&cluster.pick(&tried, now).unwrap()));
            if let Some(state) = cluster.endpoints().get(step) {
                state.transport().unready();
            }
        }
        cluster.update(placed(&[("us/a", 0), ("", 1)]), now);
        let pick = || cluster.pick(&Tried::default(), now).map(|_| ()).err();
        assert_eq!(pick(), Some(PickError::Residency));
        assert_eq!(cluster.metrics().balance.refused.count(PickRefusal::Residency), 1);
        assert!(PickError::Residency.to_string().contains("residency"));
        cluster.reconfigure(&config());
        assert_eq!(pick(), None, "those outside were not forgotten");
        cluster.reconfigure(&pinned);
        assert_eq!(pick(), Some(PickError::Residency), "and are out again");
        cluster.update(Vec::new(), now);
        assert_eq!(pick(), Some(PickError::Empty));
    }
}

#[tokio::test(start_paused = true)]
async fn new_and_returned_endpoints_start_slowly_and_are_not_starved() {
    let slow = SlowStartConfig::over(Duration::from_secs(30));
    for policy in even().filter(|policy| !matches!(policy, BalancePolicy::RingHash(_))) {
        let start = Instant::now();
        let cluster = balanced(of_policy(policy.clone()).slow_start(slow));
        cluster.update(endpoints(4), start);
        assert_near(&shares(&cluster, start), &[25.0; 4], "all are equally new");
        // Long enough for the latencies, which nobody measures here, to be alike.
        let later = start + Duration::from_secs(200);
        cluster.update(endpoints(5), later);
        for (secs, factor) in [(0, 0.1), (3, 0.1), (15, 0.5), (30, 1.0)] {
            let now = later + Duration::from_secs(secs);
            let new = 100.0 * factor / (4.0 + factor);
            let old = (100.0 - new) / 4.0;
            assert_near(&shares(&cluster, now), &[old, old, old, old, new], &format!("{} {secs} s", policy.name()));
            assert_eq!(cluster.report(now)[4].warmth_percent, (factor * 100.0) as u32);
        }
        let now = later + Duration::from_secs(100);
        cluster.endpoints()[1].transport().unready();
        drop(any_of_all(&cluster, now));
        cluster.endpoints()[1].transport().ready();
        let others = 100.0 / 4.1;
        let expected = [others, others * 0.1, others, others, others];
        assert_near(&shares(&cluster, now), &expected, policy.name());
        assert_near(&shares(&cluster, now + Duration::from_secs(30)), &[20.0; 5], policy.name());
    }
}

/// A picker that always answers the same, right or wrong.
#[derive(Debug)]
struct Fixed(usize);

impl Picker for Fixed {
    fn pick(&self, _candidates: &dyn Candidates, _request: &PickRequest<'_>) -> Option<usize> {
        Some(self.0)
    }

    fn renew(&self, group: &[&Endpoint]) -> Option<Arc<dyn Picker>> {
        let wanted = group.iter().position(|endpoint| endpoint.metadata.contains_key("wanted"));
        wanted.map(|index| Arc::new(Fixed(index)) as Arc<dyn Picker>)
    }
}

/// Balanced by one that always wants the first endpoint, where the configuration names a policy of the program's own.
pub(super) fn with_custom<T: Send + Sync + 'static>(cluster: Cluster<T>) -> Cluster<T> {
    cluster.balanced_by(Some(Arc::new(Fixed(0))))
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_programs_own_is_renewed_with_its_group_and_its_mistakes_harm_nobody() {
    let now = Instant::now();
    let custom = BalancePolicy::Custom(PlugConfig::new("fixed", &serde_json::Value::Null));
    let cluster = balanced(of_policy(custom)).balanced_by(Some(Arc::new(Fixed(99))));
    cluster.update(endpoints(4), now);
    assert_near(&shares(&cluster, now), &[25.0; 4], "an index that does not exist");
    let mut all = endpoints(4);
    all[2].metadata.insert("wanted".into(), String::new());
    cluster.update(all, now);
    assert_near(&shares(&cluster, now), &[0.0, 0.0, 100.0, 0.0], "the group's own picker");
    cluster.endpoints()[2].transport().unready();
    assert_near(&shares(&cluster, now), &[33.3, 33.3, 0.0, 33.3], "one that is out");
}

proptest! {
    /// Whatever is out, tried, or elsewhere: what is picked is what a naive reading of the rules allows.
    #[test]
    fn picks_keep_every_rule(
        given in proptest::collection::vec((0..3_u32, 0..3_usize, any::<bool>(), any::<bool>(), 1..5_u32), 1..14),
        policy in 0..6_usize,
        locality in 0..3_usize,
        pinned: bool,
        fail: bool,
        seed: u64,
    ) {
        let policy = policies()[policy].clone();
        let zones = LocalityConfig::ZoneAware(ZoneAwareConfig::default().min_endpoints(0));
        let locality = [LocalityConfig::Off, LocalityConfig::Weighted(WeightedConfig::default()), zones][locality].clone();
        let action = if fail { PanicAction::Fail } else { PanicAction::Route };
        let balance = of_policy(policy).locality(locality).panic(PanicConfig::default().action(action));
        let config = config().balance(balance).residency(if pinned { vec!["eu"] } else { Vec::new() });
        let now = Instant::now();
        let cluster = Cluster::new("x", &config, Rng::seeded(seed), Arc::default(), |_, readiness: Readiness| readiness)
            .located(Locality { region: "eu".into(), zone: "a".into() });
        let places = ["eu/a", "eu/b", "us/a"];
        let mut all = placed(&given.iter().map(|one| (places[one.1], one.0)).collect::<Vec<_>>());
        all.iter_mut().zip(&given).for_each(|(endpoint, one)| endpoint.weight = one.4);
        cluster.update(all, now);
        let mut tried = Tried::default();
        let name = |state: &EndpointState<Readiness>| state.endpoint().key.0.parse::<usize>().unwrap();
        for state in cluster.endpoints().iter() {
            let (_, _, out, was_tried, _) = given[name(state)];
            if out { state.transport().unready(); }
            if was_tried { tried.insert(state.endpoint().key.clone()); }
        }
        let known: Vec<usize> = cluster.endpoints().iter().map(|state| name(state)).collect();
        let is_in = |name: &usize| !given[*name].2;
        let untried = |name: &usize| !given[*name].3;
        // In and untried, else in, else untried, else anybody.
        let best = |name: &usize| (is_in(name), untried(name));
        let best_of_all = known.iter().map(best).max();
        for hash in 0..20 {
            match cluster.pick_by(Some(hash), &tried, now) {
                Ok(pick) => {
                    let name = name(pick.endpoint());
                    prop_assert_eq!(Some(best(&name)), best_of_all, "{} of {:?}", name, given);
                    prop_assert!(known.contains(&name) && (is_in(&name) || !fail));
                }
                Err(error) => {
                    let expected = if known.is_empty() { PickError::Residency } else { PickError::Unavailable };
                    prop_assert_eq!(error, expected);
                    prop_assert!(known.is_empty() || fail);
                }
            }
        }
    }
}
