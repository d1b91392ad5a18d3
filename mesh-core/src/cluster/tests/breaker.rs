//! A breaker behind live requests.

use super::*;
use crate::config::BreakerConfig;
use crate::health::Standing;
use crate::telemetry::BreakerEvent::{Closed, GaveBack, HalfOpened, Opened, Probed, Reopened};

fn breaker() -> ClusterConfig {
    let breaker = BreakerConfig { jitter: 0.0, consecutive_failures: 3, ..BreakerConfig::default() };
    ClusterConfig { breaker: Some(breaker), ..config() }
}

/// A cluster of three, of which the first is open since `now`.
fn opened(now: Instant) -> Cluster<Readiness> {
    let cluster = with_readiness(&breaker());
    cluster.update(endpoints(3), now);
    for _ in 0..3 {
        any_of(&cluster, 0, now, FAILURE, ms(0));
    }
    let report = cluster.report(now).swap_remove(0);
    assert_eq!(report.ejected_until, Some(now + ms(1_000)));
    assert_eq!((report.reason, report.ejections), (Some(EjectReason::ConsecutiveFailures), 1));
    assert_eq!(picked(&cluster, 500, now)[0], 0);
    cluster
}

/// The one request that is sent there once its time is up; all others go elsewhere.
fn probe(cluster: &Cluster<Readiness>, now: Instant) -> Pick<Readiness> {
    let probe = of(cluster, 0, now);
    assert!(matches!(cluster.report(now)[0].standing, Standing::Probing { .. }));
    assert_eq!(picked(cluster, 500, now)[0], 0, "one request, not two");
    assert!(!cluster.endpoints()[0].available(now));
    probe
}

/// As many requests as come are sent there.
fn everybody(cluster: &Cluster<Readiness>, now: Instant) {
    let _all = [of(cluster, 0, now), of(cluster, 0, now), of(cluster, 0, now)];
    assert_eq!(cluster.report(now)[0].standing, Standing::In);
}

fn events(cluster: &Cluster<Readiness>) -> [u64; 6] {
    [Opened, HalfOpened, Probed, GaveBack, Reopened, Closed].map(|event| cluster.metrics().breaker.count(event))
}

#[tokio::test(start_paused = true)]
async fn one_live_request_proves_it_at_the_end_of_its_body() {
    let start = Instant::now();
    let cluster = opened(start);
    let now = start + ms(1_000);
    let mut pick = probe(&cluster, now);
    pick.headers(Outcome::Success, now);
    assert_eq!(picked(&cluster, 500, now)[0], 0, "headers are not the end");
    pick.finish(Outcome::Success, now + ms(5));
    assert_eq!(cluster.report(now)[0].standing, Standing::In);
    assert_eq!(cluster.report(now)[0].reason, None);
    everybody(&cluster, now + ms(5));
    assert_eq!(events(&cluster), [1, 1, 1, 0, 0, 1]);
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Ejected), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_it_for_longer_whenever_that_shows() {
    type End = fn(Pick<Readiness>, Instant);
    let ends: [(&str, End); 4] = [
        ("429 or 503 in the headers", |mut pick, now| pick.headers(FAILURE, now)),
        ("a timeout", |pick, now| pick.finish(Outcome::Timeout, now)),
        ("trailers that say no", |mut pick, now| {
            pick.headers(Outcome::Success, now);
            pick.finish(FAILURE, now);
        }),
        ("a body that breaks off", |mut pick, now| {
            pick.headers(Outcome::Success, now);
            pick.finish(Outcome::Unreachable, now);
        }),
    ];
    for (name, end) in ends {
        let start = Instant::now();
        let cluster = opened(start);
        let now = start + ms(1_000);
        end(probe(&cluster, now), now);
        let report = cluster.report(now).swap_remove(0);
        assert_eq!(report.ejected_until, Some(now + ms(2_000)), "{name}");
        assert_eq!((report.reason, report.ejections), (Some(EjectReason::ProbeFailed), 2), "{name}");
        assert_eq!(picked(&cluster, 500, now + ms(1_999))[0], 0, "{name}");
        probe(&cluster, now + ms(2_000)).finish(Outcome::Success, now + ms(2_001));
        assert_eq!(events(&cluster), [1, 2, 2, 0, 1, 1], "{name}");
        assert_eq!(cluster.metrics().ejections.count(EjectReason::ProbeFailed), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_gives_its_place_to_the_next() {
    let start = Instant::now();
    let cluster = opened(start);
    let now = start + ms(1_000);
    drop(probe(&cluster, now));
    let mut headers_only = probe(&cluster, now);
    headers_only.headers(Outcome::Success, now);
    drop(headers_only);
    probe(&cluster, now).finish(Outcome::Cancelled, now);
    probe(&cluster, now).finish(Outcome::Success, now);
    assert_eq!(events(&cluster), [1, 1, 4, 3, 0, 1]);
    assert_eq!(cluster.endpoints()[0].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_streams_for_a_whole_window_has_proved_it() {
    let start = Instant::now();
    let cluster = opened(start);
    let now = start + ms(1_000);
    let mut stream = probe(&cluster, now);
    stream.headers(Outcome::Success, now);
    assert_eq!(picked(&cluster, 500, now + ms(9_999))[0], 0);
    everybody(&cluster, now + ms(10_000));
    assert_eq!(events(&cluster), [1, 1, 1, 0, 0, 1]);
    // It ends badly later: one failure like any other, of nobody's probe.
    stream.finish(Outcome::Unreachable, now + ms(60_000));
    assert_eq!(cluster.report(now)[0].standing, Standing::In);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_configured_away_leaves_nobody_waiting() {
    let start = Instant::now();
    let cluster = opened(start);
    let pick = probe(&cluster, start + ms(1_000));
    cluster.reconfigure(&config());
    let now = start + ms(1_001);
    everybody(&cluster, now);
    pick.finish(FAILURE, now);
    assert_eq!(cluster.report(now)[0].standing, Standing::In, "a probe of nobody's");
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Ejected), 0);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_changes_keeps_the_breaker_and_forgets_the_gone() {
    let start = Instant::now();
    let cluster = opened(start);
    let now = start + ms(1_000);
    let held = probe(&cluster, now);
    cluster.update(endpoints(4), now);
    assert!(matches!(cluster.report(now)[0].standing, Standing::Probing { .. }));
    cluster.update(endpoints(4).split_off(1), now);
    held.finish(FAILURE, now);
    assert_eq!(cluster.metrics().endpoints.value(telemetry::EndpointState::Ejected), 0);
}
