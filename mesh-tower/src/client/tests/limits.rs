//! What one cluster may hold of this process.

use mesh_core::config::{BreakerConfig, MaxRetries};
use mesh_core::health::Standing;
use mesh_core::retry::StopReason;
use mesh_core::telemetry::{BreakerEvent, ClusterLimit};

use super::*;
use crate::client::attempts::AttemptNext;

/// Two of two places are held by bodies that nobody has read.
#[tokio::test(start_paused = true)]
async fn a_request_holds_its_place_to_the_end_of_its_body() {
    for (limit, refused) in [(2, true), (3, false)] {
        let net = Net::default();
        let rig = Rig::with(&net, &[net.host(1, ok)], Some(retry(|_| {})), |config| {
            config.limits.max_requests = limit;
        });
        let (one, two) = (rig.get().await.unwrap(), rig.get().await.unwrap());
        let third = rig.get().await;
        let overflows = || rig.cluster.cluster.metrics().limit_overflows.count(ClusterLimit::MaxRequests);
        assert_eq!(overflows(), u64::from(refused));
        if refused {
            let error = third.as_ref().unwrap_err();
            assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::LimitReached, true), "{error}");
            assert_eq!(error.attempts().len(), 0, "refused, and not repeated");
            assert!(error.to_string().contains("limits.max_requests"), "{error}");
        }
        drop(third);
        assert_eq!(text(one).await, "ok");
        assert!(rig.get().await.is_ok(), "read to its end, it gave its place back");
        drop(two);
        // Callers that go away before any answer give theirs back too.
        net.edit(rig.cluster.cluster.endpoints()[0].endpoint().address, |host| host.frozen = true);
        for _ in 0..50 {
            let _ = timeout(Duration::from_millis(1), rig.get()).await;
        }
        assert_eq!((rig.in_flight(), overflows()), (0, u64::from(refused)), "limit {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_have_places_of_their_own() {
    for (limit, expected) in [
        (None, "10.0.0.1:80 503, 10.0.0.2:80 200"),
        (Some(MaxRetries::Share(0.0)), "10.0.0.1:80 503, 10.0.0.2:80 200"),
        (Some(MaxRetries::Count(0)), "10.0.0.1:80 503"),
    ] {
        let net = Net::default();
        let bad = net.host(1, |_| answer(503, ""));
        let rig = Rig::with(&net, &[bad], Some(retry(|_| {})), |config| config.limits.max_retries = limit);
        let (one, mut two) = (Address::new(bad), Address::new(net.host(2, ok)));
        // The first attempt goes to the first, because it is the only one of its priority.
        two.priority = 1;
        rig.cluster.cluster.update(vec![one, two], Instant::now());
        let response = rig.get().await.unwrap();
        assert_eq!(attempts(&response), expected, "{limit:?}");
        let metrics = rig.cluster.cluster.metrics();
        // What found no place has paid nothing.
        let refused = limit == Some(MaxRetries::Count(0));
        assert_eq!(rig.route.budget.state(Instant::now()).retries, u64::from(!refused), "{limit:?}");
        assert_eq!(
            metrics.limit_overflows.count(ClusterLimit::MaxRetries),
            u64::from(limit == Some(MaxRetries::Count(0)))
        );
    }
}

/// One endpoint asks for 10 s before a retry: that keeps no place from the retries of others, as a back-off of our own does.
#[tokio::test(start_paused = true)]
async fn a_retry_that_an_endpoint_postponed_holds_no_place() {
    for (asks, expected) in [(true, "10.0.0.2:80 503, 10.0.0.3:80 200"), (false, "10.0.0.2:80 503")] {
        let net = Net::default();
        let busy = net.host(1, move |_| {
            let mut answer = answer(503, "");
            if asks {
                answer.headers_mut().insert("retry-after", "10".parse().unwrap());
            }
            answer
        });
        let config =
            retry(|retry| (retry.backoff, retry.max_backoff) = (Duration::from_secs(10), Duration::from_secs(10)));
        let mut rig = Rig::with(&net, &[busy], Some(config), |config| {
            config.limits.max_retries = Some(MaxRetries::Count(1));
            config.limits.max_requests = 3;
        });
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let rig = rig.clone();
                tokio::spawn(async move { rig.get().await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.in_flight(), 0, "all have their first answer");
        let waiting = calls.iter().filter(|call| !call.is_finished()).count();
        assert_eq!(waiting, if asks { 3 } else { 1 }, "postponed by the endpoint: {asks}");
        // As many as `max_requests` may wait so.
        let refused = rig.get().await.unwrap();
        assert_eq!(attempts(&refused), "10.0.0.1:80 503");
        // Others have their retries.
        let (one, mut two) = (Address::new(net.host(2, |_| answer(503, ""))), Address::new(net.host(3, ok)));
        two.priority = 1;
        rig.cluster.cluster.update(vec![one, two], Instant::now());
        rig.route = Rig::new(&net, &[], Some(retry(|_| {}))).route;
        assert_eq!(attempts(&rig.get().await.unwrap()), expected);
        for call in calls {
            call.abort();
        }
    }
}

/// Three that an endpoint sent away to the same moment, and one place for them: the others learn that, and what was before.
#[tokio::test(start_paused = true)]
async fn postponed_retries_take_their_places_when_the_wait_is_over() {
    let net = Net::default();
    let first = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&first);
    let host = net.slow_host(1, move |_| {
        let early = count.fetch_add(1, SeqCst) < 3;
        async move {
            if early {
                let mut answer = answer(503, "");
                answer.headers_mut().insert("retry-after", "10".parse().unwrap());
                return answer;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer(200, "ok")
        }
    });
    let rig = Rig::with(&net, &[host], Some(retry(|_| {})), |config| {
        config.limits.max_retries = Some(MaxRetries::Count(1));
    });
    let ended = futures_util::future::join_all((0..3).map(|_| rig.get())).await;
    let (good, bad): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len(), first.load(SeqCst)), (1, 2, 4));
    for error in bad.into_iter().map(Result::unwrap_err) {
        assert_eq!((error.kind(), error.is_never_sent(), error.is_in_vain()), (ErrorKind::LimitReached, false, true));
        assert!(error.to_string().contains("limits.max_retries"), "{error}");
        assert_eq!(error.attempts().to_string(), "10.0.0.1:80 503");
        let next = error.attempts().iter().next().unwrap().next;
        assert_eq!(next, AttemptNext::Stopped(StopReason::Limit));
    }
    let metrics = rig.cluster.cluster.metrics();
    assert_eq!(metrics.retries.count(RetryReason::Failure), 1);
    assert_eq!(metrics.limit_overflows.count(ClusterLimit::MaxRetries), 2);
}

/// Three connections for two endpoints: whoever has none gets its first, and nobody opens a fourth.
#[tokio::test(start_paused = true)]
async fn connections_are_limited_for_the_cluster_and_nobody_is_left_without() {
    let net = Net::default();
    let hosts = [net.slow_host(1, frozen), net.slow_host(2, frozen), net.slow_host(3, frozen)];
    hosts.iter().for_each(|host| net.edit(*host, |host| host.http2 = false));
    let rig = Rig::with(&net, &hosts, None, |config| config.limits.max_connections = 2);
    let calls: Vec<_> = (0..30)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.get().await.map(drop) })
        })
        .collect();
    rig.until(|rig| rig.in_flight() == 30 && hosts.iter().all(|host| rig.net.dialed(*host) > 0)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hosts.map(|host| net.dialed(host)), [1; 3], "one each, beyond the limit of two");
    assert!(rig.cluster.cluster.metrics().limit_overflows.count(ClusterLimit::MaxConnections) > 0);
    for call in calls {
        call.abort();
    }
    rig.until(|rig| rig.in_flight() == 0).await;
}

/// The probe of a breaker is one live request, to the end of its body.
#[tokio::test(start_paused = true)]
async fn a_breaker_asks_with_one_live_request() {
    let net = Net::default();
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let sick = net.host(1, move |_| answer(if is_well.load(SeqCst) { 200 } else { 429 }, "ok"));
    let rig = Rig::with(&net, &[sick], None, |config| {
        config.breaker = Some(BreakerConfig::default());
        config.outlier.max_ejection_percent = 100;
    });
    for _ in 0..5 {
        text(rig.get().await.unwrap()).await;
    }
    let standing = || rig.cluster.cluster.report(Instant::now())[0].standing;
    let events = |event| rig.cluster.cluster.metrics().breaker.count(event);
    assert!(matches!(standing(), Standing::Out { .. }), "429 counts: five of five in the window");
    tokio::time::sleep(Duration::from_secs(2)).await;
    text(rig.get().await.unwrap()).await;
    assert_eq!((events(BreakerEvent::Probed), events(BreakerEvent::Reopened)), (1, 1), "429 on the probe fails it");
    well.store(true, SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let unread = rig.get().await.unwrap();
    assert!(matches!(standing(), Standing::Probing { .. }), "headers are not the end");
    drop(unread);
    assert_eq!((standing(), events(BreakerEvent::GaveBack)), (Standing::HalfOpen, 1));
    text(rig.get().await.unwrap()).await;
    assert_eq!((standing(), events(BreakerEvent::Closed)), (Standing::In, 1));
}
