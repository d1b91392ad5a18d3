//! Who is taken out, by whom, and how they come back.

use super::*;

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

/// Who is out fails: otherwise each ejection would make the next one easier.
#[tokio::test(start_paused = true)]
async fn whoever_is_ejected_already_counts_among_those_that_fail() {
    for (failing, ejected) in [(1, false), (0, true)] {
        let (cluster, now) = (cluster(&config()), Instant::now());
        cluster.update(endpoints(6), now);
        for name in [4, 5] {
            (0..5).for_each(|_| any_of(&cluster, name, now, FAILURE, ms(1)));
            assert!(cluster.endpoints()[name].ejected(now + ms(2)));
        }
        // Of the others that are in, one of three at most: less than half. With the two that are out it is three of five.
        (1..=failing).for_each(|name| any_of(&cluster, name, now, FAILURE, ms(1)));
        (0..5).for_each(|_| any_of(&cluster, 0, now, FAILURE, ms(1)));
        assert_eq!(cluster.endpoints()[0].ejected(now + ms(2)), ejected, "{failing} of 3 fail");
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
