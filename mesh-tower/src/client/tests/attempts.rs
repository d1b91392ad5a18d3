//! What a caller is told of each attempt, and what nobody else is.

use std::collections::BTreeSet;

use mesh_core::cluster::PickScope;
use mesh_core::config::MaxRetries;
use mesh_core::retry::StopReason;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::client::attempts::{AttemptNext, AttemptReport};

fn reports(answer: &Result<Response<Body>, Error>) -> Vec<AttemptReport> {
    match answer {
        Ok(response) => response.extensions().get::<Attempts>().unwrap().iter().cloned().collect(),
        Err(error) => error.attempts().iter().cloned().collect(),
    }
}

/// The first host is the only one of its priority, so that attempts go there first.
fn in_order(rig: &Rig, hosts: &[SocketAddr]) {
    let ordered = hosts.iter().zip(0..).map(|(host, priority)| {
        let mut endpoint = Address::new(*host);
        endpoint.priority = priority;
        endpoint
    });
    rig.cluster.cluster.update(ordered.collect(), Instant::now());
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_where_it_went_why_how_long_and_what_followed() {
    let net = Net::default();
    let slow_503 = |_| async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        answer(503, "")
    };
    let hosts = [net.slow_host(1, slow_503), net.host(2, ok)];
    let rig = Rig::new(&net, &[], Some(retry(|_| {})));
    in_order(&rig, &hosts);
    let answer = rig.get().await;
    let [first, second] = &reports(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!((first.address, second.address), (Some(hosts[0]), Some(hosts[1])));
    assert!((40..50).contains(&first.took.as_millis()), "{first}");
    assert!(matches!(first.next, AttemptNext::Repeated { reason: RetryReason::Failure, .. }), "{first}");
    let scopes = [first, second].map(|report| report.reason.unwrap().scope);
    assert_eq!(scopes, [PickScope::Planned, PickScope::Untried]);
    assert!(first.wait.is_some_and(|wait| wait.connecting && wait.over), "the first request connects: {first}");
    assert_eq!(second.next, AttemptNext::Answered);
    assert!(first.to_string().starts_with("10.0.0.1:80: 503 after 40.0ms (the only one left); waited "), "{first}");
    assert!(first.to_string().contains(" to connect; repeated after ") && first.to_string().ends_with(": failure"));
    // The connections stand: nobody waits any more.
    assert!(reports(&rig.get().await).iter().all(|report| report.wait.is_none()));
    let json = serde_json::to_value(answer.unwrap().extensions().get::<Attempts>()).unwrap();
    assert_eq!((&json[0]["outcome"], &json[1]["reason"]["scope"]), (&"503".into(), &"untried".into()), "{json}");
    assert!(json[0]["next"]["repeated"]["after_ms"].is_f64() && json[1]["next"] == "answered", "{json}");
}

/// Whatever ends a call by its deadline, the caller learns which endpoint it hung at, and whether anything was sent.
#[tokio::test(start_paused = true)]
async fn a_call_that_ran_out_of_time_tells_where_it_hung() {
    for (connects, per_try) in [(true, false), (false, false), (true, true), (false, true)] {
        let net = Net::default();
        let host = net.slow_host(1, frozen);
        net.edit(host, |host| host.frozen = !connects);
        let config = retry(|retry| {
            retry.attempts = 1;
            retry.per_try_timeout = per_try.then(|| Duration::from_secs(2));
        });
        let rig =
            Rig::with(&net, &[host], Some(config), |config| config.pool.connect_timeout = Duration::from_secs(60));
        let started = Instant::now();
        let answer = rig.send(post("charge")).await;
        let [report] = &reports(&answer)[..] else { panic!("{answer:?}") };
        let error = answer.as_ref().unwrap_err();
        let limit = if per_try { 2 } else { 15 };
        assert_eq!((error.kind(), started.elapsed().as_secs()), (ErrorKind::Timeout, limit), "{error}");
        assert!(per_try || error.to_string().contains("no answer within 15s (endpoint 10.0.0.1:80)"), "{error}");
        assert_eq!((report.address, report.took.as_secs()), (Some(host), limit));
        assert_eq!(error.is_never_sent(), !connects, "{error:?}");
        let waits = report.wait.map(|wait| (wait.connecting, wait.over));
        assert_eq!(waits, Some((true, connects)), "{report}");
        // The endpoint's name suffers, whoever noticed.
        assert!(!rig.cluster.cluster.report(Instant::now())[0].latency.is_zero());
        rig.until(|rig| rig.in_flight() == 0).await;
    }
}

/// Whose time is up while a connection waits for its turn to shake hands says nothing against the endpoint, whoever notices
/// it; whose time is up because the endpoint does not answer the handshake does.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_turn_is_not_the_endpoints_fault() {
    const LONG: Duration = Duration::from_secs(40);
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Ends {
        PerTry,
        Deadline,
        Dropped,
    }
    for ends in [Ends::PerTry, Ends::Deadline, Ends::Dropped] {
        for in_line in [true, false] {
            let net = Net::default();
            let host = net.host(1, ok);
            net.edit(host, |host| host.times = if in_line { (LONG, Duration::ZERO) } else { (Duration::ZERO, LONG) });
            let config = retry(|retry| {
                retry.attempts = 1;
                retry.per_try_timeout = (ends == Ends::PerTry).then(|| Duration::from_secs(2));
            });
            let rig = Rig::with(&net, &[host], Some(config), |config| config.pool.connect_timeout = 2 * LONG);
            if ends == Ends::Dropped {
                // Past its deadline, which nobody looked at.
                let mut call = Box::pin(rig.get());
                assert!(futures_util::poll!(&mut call).is_pending());
                tokio::time::sleep(Duration::from_secs(16)).await;
                drop(call);
            } else {
                let answer = rig.get().await;
                let [report] = &reports(&answer)[..] else { panic!("{answer:?}") };
                let error = answer.as_ref().unwrap_err();
                assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::Timeout, true), "{error}");
                assert_eq!(report.wait.map(|wait| (wait.over, wait.held_up)), Some((false, in_line)), "{report}");
                assert_eq!(report.to_string().contains("held up by limits of the cluster"), in_line, "{report}");
            }
            let blamed = rig.cluster.cluster.metrics().attempts.count(mesh_core::telemetry::AttemptOutcome::Timeout);
            assert_eq!(blamed, u64::from(!in_line), "{ends:?}, in line: {in_line}");
            rig.until(|rig| rig.in_flight() == 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_repeated_says_why() {
    type Edit = fn(&mut RetryConfig);
    type Case = (StopReason, fn() -> Request<RequestBody>, fn() -> Answer, Edit);
    fn declared() -> Request<RequestBody> {
        let mut request = post("charge");
        request.extensions_mut().insert(Idempotent);
        request
    }
    fn once() -> Request<RequestBody> {
        let mut request = get();
        request.extensions_mut().insert(NoRetry);
        request
    }
    fn with(name: &'static str, value: &'static str) -> Answer {
        let mut answer = answer(503, "");
        answer.headers_mut().insert(name, value.parse().unwrap());
        answer
    }
    let nothing: Edit = |_| {};
    let cases: [Case; 9] = [
        (StopReason::NotRetryable, get, || answer(500, ""), nothing),
        (StopReason::Once, once, || answer(503, ""), nothing),
        (StopReason::Committed, declared, || answer(503, ""), |retry| retry.max_replay_bytes = 3),
        (StopReason::MaybeProcessed, || post("charge"), || answer(503, ""), nothing),
        (StopReason::Attempts, get, || answer(503, ""), |retry| retry.attempts = 1),
        (StopReason::Marked, get, || with("mesh-no-retry", "1"), nothing),
        (StopReason::Pushback, get, || with("grpc-retry-pushback-ms", "-1"), nothing),
        (StopReason::Deadline, get, || with("retry-after", "60"), nothing),
        (
            StopReason::Budget,
            get,
            || answer(503, ""),
            |retry| {
                retry.budget = BudgetConfig::default().ratio(0.0).min_per_second(0);
            },
        ),
    ];
    for (reason, request, says, edit) in cases {
        let net = Net::default();
        let host = net.slow_host(1, move |request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            says()
        });
        let rig = Rig::new(&net, &[host], Some(retry(edit)));
        let answer = rig.send(request()).await;
        let [report] = &reports(&answer)[..] else { panic!("{reason}: {answer:?}") };
        assert_eq!(report.next, AttemptNext::Stopped(reason), "{report}");
        assert!(report.to_string().ends_with(&format!("; not repeated: {reason}")), "{report}");
    }
    let net = Net::default();
    let rig = Rig::with(&net, &[net.host(1, |_| answer(503, ""))], Some(retry(|_| {})), |config| {
        config.limits.max_retries = Some(MaxRetries::Count(0));
    });
    assert_eq!(reports(&rig.get().await)[0].next, AttemptNext::Stopped(StopReason::Limit));
}

/// Collects the fields of the events of one target.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<HashMap<&'static str, String>>>>);

struct Fields<'a>(&'a mut HashMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: tracing_subscriber::layer::Context<'_, S>) -> bool {
        metadata.target() == crate::client::events::TARGET
    }
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = HashMap::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push(fields);
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_one_event_for_each_attempt() {
    let net = Net::default();
    let hosts = [SocketAddr::from(([10, 0, 0, 9], 80)), net.host(1, |_| answer(503, "")), net.host(2, ok)];
    let rig = Rig::new(&net, &[], Some(retry(|_| {})));
    in_order(&rig, &hosts);
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(events.clone());
    let _subscribed = tracing::subscriber::set_default(subscriber);
    assert_eq!(attempts(&rig.get().await.unwrap()), "10.0.0.9:80 connect, 10.0.0.1:80 503, 10.0.0.2:80 200");
    let events = std::mem::take(&mut *events.0.lock().unwrap());
    let of = |name: &str| events.iter().map(|event| event.get(name).map_or("-", String::as_str)).collect::<Vec<_>>();
    assert_eq!(of("http.request.resend_count"), ["0", "1", "2"]);
    assert_eq!(of("server.address"), ["10.0.0.9", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(of("server.port"), ["80", "80", "80"]);
    assert_eq!(of("error.type"), ["connect", "-", "-"]);
    assert_eq!(of("http.response.status_code"), ["-", "503", "200"]);
    assert!(of("mesh.pick.reason").iter().all(|reason| reason.contains("the only one left")), "{events:?}");
    let next = of("mesh.attempt.next");
    assert!(next[0].ends_with(": not_sent") && next[1].ends_with(": failure") && next[2] == "answered", "{next:?}");
}

/// The record stays in this process: headers are those that the parties wrote, and the trace and the time limit.
#[tokio::test(start_paused = true)]
async fn nothing_of_it_is_on_the_wire() {
    let net = Net::default();
    let (seen, log) = <(Arc<Mutex<BTreeSet<String>>>, Arc<AtomicUsize>)>::default();
    let (names, count) = (Arc::clone(&seen), Arc::clone(&log));
    let handler = move |status: u16| {
        let (names, count) = (Arc::clone(&names), Arc::clone(&count));
        move |request: Request<Incoming>| {
            count.fetch_add(1, SeqCst);
            names.lock().unwrap().extend(request.headers().keys().map(ToString::to_string));
            answer(status, "ok")
        }
    };
    let hosts = [net.host(1, handler(503)), net.host(2, handler(200))];
    let rig = Rig::new(&net, &[], Some(retry(|_| {})));
    in_order(&rig, &hosts);
    let response = rig.get().await.unwrap();
    assert_eq!((log.load(SeqCst), response.extensions().get::<Attempts>().unwrap().len()), (2, 2));
    let sent: Vec<_> = seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(sent, ["traceparent", "x-envoy-expected-rq-timeout-ms"]);
    let got: BTreeSet<_> = response.headers().keys().map(ToString::to_string).collect();
    assert_eq!(got.into_iter().collect::<Vec<_>>(), ["content-length", "date"]);
}
