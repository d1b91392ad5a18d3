//! Sets that change while requests choose among them.

use super::*;

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
                    // Some do badly; did all, nobody would be ejected for it.
                    let sick = pick.endpoint().endpoint().address.port() < 3;
                    let outcome = if sick {
                        [Outcome::Success, FAILURE, Outcome::Timeout][rng.below(3)]
                    } else {
                        Outcome::Success
                    };
                    pick.finish(outcome, now);
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
    let ejected = ejections(EjectReason::ConsecutiveFailures) + ejections(EjectReason::Timeouts);
    assert!(ejected > 50, "{ejected}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longest_for_the_first_set_is_told_first() {
    let cluster = cluster(&config());
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (cluster, told) = (cluster.clone(), Arc::clone(&told));
        calls.spawn(async move {
            cluster.until_resolved().await;
            told.lock().unwrap().push(n);
        });
    }
    tokio::task::yield_now().await;
    cluster.update(endpoints(3), Instant::now());
    calls.join_all().await;
    assert_eq!(*told.lock().unwrap(), (0..16).collect::<Vec<_>>());
}
