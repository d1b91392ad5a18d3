//! Active health checks over the pools that requests use.

use std::sync::atomic::AtomicU16;

use mesh_core::config::HealthCheckConfig;
use mesh_core::health::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
use mesh_core::rng::Rng;
use mesh_core::telemetry::CheckResult;

use super::*;
use crate::client::checks::Checks;

#[derive(Debug)]
struct Ready;

impl HealthCheck for Ready {
    fn question(&self) -> CheckQuestion {
        CheckQuestion::new("GET", "/readyz").header("x-deep", "1")
    }

    fn judge(&self, answer: &CheckAnswer) -> CheckVerdict {
        assert_ne!(answer.status, 500, "a check that panics is one check less, and no more");
        match (answer.status, &*answer.body) {
            (200, b"ok") => CheckVerdict::Healthy,
            (status, _) => CheckVerdict::Unhealthy(format!("status {status}")),
        }
    }
}

fn start(rig: &Rig, edit: impl FnOnce(&mut HealthCheckConfig)) -> tokio::task::JoinHandle<()> {
    let mut config = HealthCheckConfig::new(PlugConfig::new("ready", &serde_json::json!({})));
    config.interval = Duration::from_secs(1);
    edit(&mut config);
    let checks = Checks { check: Arc::new(Ready), config, rng: Rng::seeded(3) };
    tokio::spawn(checks.run(Arc::downgrade(&rig.cluster)))
}

impl Rig {
    fn healthy(&self) -> Vec<bool> {
        self.cluster.cluster.report(Instant::now()).iter().map(|report| report.healthy).collect()
    }

    fn checks(&self, result: CheckResult) -> u64 {
        self.cluster.cluster.metrics().health_checks.count(result)
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_it_is_not_ready_gets_no_requests_until_it_is() {
    for http2 in [true, false] {
        let net = Net::default();
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (says, count) = (Arc::clone(&status), Arc::clone(&asked));
        let moody = net.host(1, move |request| {
            if request.uri().path() != "/readyz" {
                return answer(200, "served");
            }
            assert!(request.headers().contains_key("x-deep") && request.headers()["user-agent"] == "mesh-health-check");
            count.fetch_add(1, SeqCst);
            answer(says.load(SeqCst), "ok")
        });
        let hosts = [moody, net.host(2, ok)];
        hosts.iter().for_each(|host| net.edit(*host, |host| host.http2 = http2));
        let rig = Rig::new(&net, &hosts, None);
        let task = start(&rig, |_| {});
        rig.until(|rig| rig.checks(CheckResult::Healthy) >= 4).await;
        assert_eq!(rig.healthy(), [true, true]);
        // 500 makes the check itself panic: nothing is learnt, and the next check is made all the same.
        for says in [500, 503] {
            status.store(says, SeqCst);
            let before = asked.load(SeqCst);
            rig.until(|_| asked.load(SeqCst) >= before + 4).await;
            assert_eq!(rig.healthy(), [says == 500, true], "{says}");
        }
        for _ in 0..20 {
            assert!(attempts(&rig.get().await.unwrap()).starts_with("10.0.0.2"), "unhealthy");
        }
        status.store(200, SeqCst);
        rig.until(|rig| rig.healthy() == [true, true]).await;
        // New endpoints are asked, those that went are not, and the task ends with its cluster.
        rig.cluster
            .cluster
            .update(vec![Address::new(hosts[1]), Address::new(net.host(3, |_| answer(503, "")))], Instant::now());
        let before = asked.load(SeqCst);
        rig.until(|rig| rig.healthy() == [true, false]).await;
        assert!(asked.load(SeqCst) <= before + 1, "at most the one under way");
        drop(rig);
        timeout(Duration::from_secs(3), task).await.expect("the task outlives its cluster").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_or_is_gone_is_unhealthy_and_what_is_busy_is_not() {
    let net = Net::default();
    let hosts = [net.slow_host(1, frozen), net.host(2, ok), net.slow_host(3, frozen)];
    net.kill(hosts[1]);
    net.edit(hosts[2], |host| (host.http2, host.streams) = (false, 1));
    let rig = Rig::with(&net, &[hosts[2]], None, |config| {
        config.pool.max_connections = 1;
        config.limits.max_connections = 1;
    });
    // The only connection of the third is taken by a request that takes its time.
    let taken = tokio::spawn({
        let rig = rig.clone();
        async move { rig.get().await.map(drop) }
    });
    rig.until(|rig| rig.in_flight() == 1 && net.dialed(hosts[2]) == 1).await;
    rig.cluster.cluster.update(hosts.map(Address::new).into(), Instant::now());
    let task = start(&rig, |config| config.timeout = Duration::from_millis(500));
    rig.until(|rig| rig.healthy() == [false, false, true] && rig.checks(CheckResult::Inconclusive) >= 3).await;
    assert_eq!(rig.healthy(), [false, false, true], "not answered; not reached; no stream free");
    taken.abort();
    task.abort();
}

/// A check that found no turn to shake hands has asked nobody; the same wait for the endpoint itself makes it unhealthy.
#[tokio::test(start_paused = true)]
async fn a_check_that_had_no_turn_to_connect_says_nothing() {
    const LONG: Duration = Duration::from_secs(40);
    for in_line in [true, false] {
        let net = Net::default();
        let host = net.host(1, ok);
        net.edit(host, |host| host.times = if in_line { (LONG, Duration::ZERO) } else { (Duration::ZERO, LONG) });
        let rig = Rig::with(&net, &[host], None, |config| config.pool.connect_timeout = 2 * LONG);
        let task = start(&rig, |config| config.timeout = Duration::from_millis(500));
        let result = if in_line { CheckResult::Inconclusive } else { CheckResult::Unhealthy };
        rig.until(|rig| rig.checks(result) >= 5).await;
        let other = if in_line { CheckResult::Unhealthy } else { CheckResult::Inconclusive };
        assert_eq!((rig.healthy(), rig.checks(other)), (vec![in_line], 0), "in line: {in_line}");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn checks_are_few_at_once_and_not_all_at_the_same_time() {
    let net = Net::default();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let hosts: Vec<_> = (1..=20)
        .map(|n| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            net.slow_host(n, move |_| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    now.fetch_sub(1, SeqCst);
                    answer(200, "ok")
                }
            })
        })
        .collect();
    let rig = Rig::new(&net, &hosts, None);
    let task = start(&rig, |config| config.concurrency = 4);
    rig.until(|rig| rig.checks(CheckResult::Healthy) >= 60).await;
    assert_eq!(most.load(SeqCst), 4);
    task.abort();
}

/// Nobody is there, so that a check costs little and the agenda is what is left: two rounds of 4,000.
#[tokio::test(start_paused = true)]
async fn thousands_of_endpoints_are_all_asked_in_each_round() {
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    let mut rig = Rig::new(&Net::default(), &[], None);
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(Net::default())));
    let endpoints = (0..4_000_u16).map(|n| Address::new(([10, 1, (n >> 8) as u8, n as u8], 80).into()));
    rig.cluster.cluster.update(endpoints.collect(), Instant::now());
    let started = Instant::now();
    let task = start(&rig, |config| config.unhealthy_threshold = 2);
    rig.until(|rig| rig.checks(CheckResult::Unhealthy) >= 8_000).await;
    assert!(rig.healthy().iter().all(|healthy| !healthy));
    assert!(started.elapsed() < Duration::from_secs(4), "two rounds of a second: {:?}", started.elapsed());
    task.abort();
}

/// Each turn is one endpoint's, in the order of time, however many there are and whoever comes and goes meanwhile.
#[tokio::test(start_paused = true)]
async fn an_agenda_has_one_turn_for_each() {
    use super::super::agenda::Agenda;
    const COUNT: usize = 4_000;
    let endpoints: Vec<_> = (0..COUNT).map(|n| Address::new(([10, 1, (n >> 8) as u8, n as u8], 80).into())).collect();
    let rig = Rig::new(&Net::default(), &[], None);
    rig.cluster.cluster.update(endpoints.clone(), Instant::now());
    let (start, chance) = (Instant::now(), Rng::seeded(5));
    let ms = |n: usize| start + Duration::from_millis(n as u64);
    let (mut agenda, mut model) = (Agenda::default(), std::collections::BTreeMap::new());
    let mut firsts = 0;
    agenda.renew(&rig.cluster.cluster.endpoints(), || {
        firsts += 1;
        ms(chance.below(1_000))
    });
    assert_eq!(firsts, COUNT);
    let mut order = Vec::new();
    for now in 0..5_000 {
        while let Some(endpoint) = agenda.due(ms(now)) {
            let key = endpoint.endpoint().key.clone();
            // In the order of time, a second apart for each endpoint.
            let last = model.insert(key.clone(), now);
            assert!(last.is_none_or(|last| now == last + 1_000), "{key} at {now} after {last:?}");
            order.push(key.clone());
            agenda.again(key, ms(now + 1_000));
        }
        if now % 1_000 == 999 {
            agenda.renew(&rig.cluster.cluster.endpoints(), || panic!("nobody is new"));
        }
    }
    assert_eq!((order.len(), model.len()), (5 * COUNT, COUNT));
    // Half of them leave, one of those in the midst of its turn, and come back: one turn each, again.
    let gone = agenda.due(ms(6_000)).unwrap().endpoint().key.clone();
    let stay: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.key != gone).take(COUNT / 2).cloned().collect();
    rig.cluster.cluster.update(stay, Instant::now());
    agenda.renew(&rig.cluster.cluster.endpoints(), || panic!("nobody is new"));
    agenda.again(gone.clone(), ms(6_001));
    rig.cluster.cluster.update(endpoints, Instant::now());
    agenda.renew(&rig.cluster.cluster.endpoints(), || ms(6_500));
    agenda.again(gone, ms(6_001));
    let turns: Vec<_> =
        std::iter::from_fn(|| agenda.due(ms(7_000))).map(|state| state.endpoint().key.clone()).collect();
    let distinct: std::collections::BTreeSet<_> = turns.iter().collect();
    assert_eq!((turns.len(), distinct.len()), (COUNT, COUNT));
}
