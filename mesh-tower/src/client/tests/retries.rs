//! What is sent again, and what is not.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_under_load_costs_no_idempotent_request() {
    for http2 in [true, false] {
        let net = Net::default();
        let slow = |_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answer(200, "ok")
        };
        let hosts = [net.slow_host(1, slow), net.slow_host(2, slow), net.slow_host(3, slow)];
        hosts.iter().for_each(|host| net.edit(*host, |host| host.http2 = http2));
        let budget = BudgetConfig::default().min_per_second(100);
        let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.budget = budget)));

        let mut calls = tokio::task::JoinSet::new();
        for i in 0..300_u64 {
            let rig = rig.clone();
            calls.spawn(async move {
                tokio::time::sleep(Duration::from_millis(i)).await;
                let response = rig.get().await?;
                let (status, attempts) = (response.status(), attempts(&response));
                text(response).await;
                Ok::<_, Error>((status, attempts.matches(',').count()))
            });
            if i == 150 {
                let net = net.clone();
                calls.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(152)).await;
                    net.kill(hosts[0]);
                    Ok((StatusCode::OK, 0))
                });
            }
        }
        let mut repeated = 0;
        while let Some(result) = calls.join_next().await {
            let (status, retries) = result.unwrap().expect("a call failed");
            assert_eq!(status, 200);
            repeated += retries;
        }
        assert!(repeated > 0, "the kill hit requests under way, or this test shows nothing");
        let dead = &rig.cluster.cluster.endpoints()[0];
        assert!(!dead.available(Instant::now()), "a dead endpoint is not picked");

        rig.net.revive(hosts[0]);
        rig.until(|rig| rig.cluster.cluster.endpoints()[0].available(Instant::now())).await;
        assert_eq!(rig.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_once_is_never_called_unsent() {
    let net = Net::default();
    let host = net.slow_host(1, frozen);
    let rig = Rig::new(&net, &[host], Some(retry(|_| {})));
    let calling = rig.clone();
    let call = tokio::spawn(async move { calling.get().await });
    rig.until(|rig| rig.in_flight() == 1 && rig.net.dialed(host) == 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    net.kill(host);
    let error = call.await.unwrap().unwrap_err();
    assert!(error.attempts().len() > 1 && error.kind() == ErrorKind::Connect, "{error:?}");
    assert!(!error.is_never_sent(), "the first attempt reached its server");
    let error = rig.get().await.unwrap_err();
    assert!(error.is_never_sent(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_endpoint_costs_one_attempt_timeout() {
    let net = Net::default();
    let hosts = [net.slow_host(1, frozen), net.host(2, ok)];
    let config = retry(|retry| retry.per_try_timeout = Some(Duration::from_millis(100)));
    let rig = Rig::new(&net, &hosts, Some(config));
    let mut timed_out = 0;
    for _ in 0..20 {
        let started = Instant::now();
        let response = rig.get().await.unwrap();
        let log = attempts(&response);
        assert_eq!(text(response).await, "ok");
        if log == "10.0.0.1:80 timeout, 10.0.0.2:80 200" {
            timed_out += 1;
            assert!((100..200).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        } else {
            assert_eq!(log, "10.0.0.2:80 200");
        }
    }
    assert!((1..=5).contains(&timed_out), "{timed_out} of 20: the frozen endpoint must lose its good name");
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_sent_once_and_what_was_not_is_sent_again() {
    let net = Net::default();
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, killer) = (Arc::clone(&seen), net.clone());
    let first = SocketAddr::from(([10, 0, 0, 1], 80));
    net.slow_host(1, move |_| {
        count.fetch_add(1, SeqCst);
        killer.kill(first);
        std::future::pending::<Answer>()
    });
    let rig = Rig::new(&net, &[first], Some(retry(|_| {})));
    let error = rig.send(post("charge")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_never_sent(), seen.load(SeqCst)), (ErrorKind::Connection, false, 1), "{error}");
    assert_eq!(error.attempts().len(), 1);

    // Dead from the start: provably never sent, so even a POST without retry rules goes elsewhere.
    let second = net.host(2, ok);
    let rig = Rig::new(&net, &[first, second], None);
    for _ in 0..10 {
        assert_eq!(rig.send(post("charge")).await.unwrap().status(), 200);
    }
    assert_eq!(seen.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_declared_post_is_repeated_with_the_same_body_and_one_over_the_cap_is_not() {
    let net = Net::default();
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let handler = |log: &Arc<Mutex<Vec<Bytes>>>, status| {
        let log = Arc::clone(log);
        move |request: Request<Incoming>| {
            let log = Arc::clone(&log);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                log.lock().unwrap().push(body);
                answer(status, "")
            }
        }
    };
    let hosts = [net.slow_host(1, handler(&bodies, 503)), net.slow_host(2, handler(&bodies, 503))];
    let rig = Rig::new(&net, &hosts, Some(retry(|retry| (retry.attempts, retry.max_replay_bytes) = (2, 6))));
    for (body, sent) in [("charge", 2), ("charges", 1)] {
        let mut request = post(body);
        request.extensions_mut().insert(Idempotent);
        let response = rig.send(request).await.unwrap();
        assert_eq!(response.status(), 503, "the last answer is the caller's");
        assert_eq!(std::mem::take(&mut *bodies.lock().unwrap()), vec![Bytes::from_static(body.as_bytes()); sent]);
    }
    // Nobody declared this one.
    assert_eq!(rig.send(post("x")).await.unwrap().status(), 503);
    assert_eq!(bodies.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_ends_retries() {
    let net = Net::default();
    let hosts = [net.host(1, |_| answer(503, "")), net.host(2, |_| answer(503, ""))];
    let budget = BudgetConfig::default().ratio(0.1).min_per_second(0);
    let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.budget = budget)));
    let mut made = 0;
    for _ in 0..100 {
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), 503);
        // Whoever is answered with this must not spend a budget of its own on it.
        assert!(response.headers().contains_key(crate::classify::NO_RETRY));
        made += response.extensions().get::<Attempts>().unwrap().len();
    }
    assert_eq!(made, 110, "a tenth more, and no more");
    let metrics = rig.cluster.cluster.metrics();
    assert_eq!(metrics.retries.count(RetryReason::Failure), 10);
    assert!(metrics.budget_exhausted.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_above_is_told_when_repeating_is_of_no_use() {
    let poor = BudgetConfig::default().ratio(0.0).min_per_second(0);
    let rules = |attempts, budget: &BudgetConfig| {
        Some(retry(|retry| (retry.attempts, retry.budget) = (attempts, budget.clone())))
    };
    let (rich, told) = (BudgetConfig::default(), &["mesh-no-retry"][..]);
    for (what, status, marks, rules, post_it, attempts, spent) in [
        ("nothing to repeat", 200, &[][..], rules(3, &rich), false, 1, false),
        ("repeated in vain", 503, &[], rules(3, &rich), false, 3, true),
        ("the budget is exhausted", 503, &[], rules(3, &poor), false, 1, true),
        ("no rules of ours", 503, &[], None, false, 1, false),
        ("one attempt by our rules", 503, &[], rules(1, &rich), false, 1, false),
        ("not ours to repeat", 503, &[], rules(3, &rich), true, 1, false),
        ("the endpoint said so", 502, told, rules(3, &rich), false, 1, true),
        ("it said so, and we never would", 502, told, None, false, 1, true),
        ("it said so, of a charge", 500, told, rules(3, &rich), true, 1, true),
    ] {
        let net = Net::default();
        let host = net.host(1, move |_| {
            let mut response = answer(status, "");
            for mark in marks {
                response.headers_mut().insert(*mark, http::HeaderValue::from_static("1"));
            }
            response
        });
        let rig = Rig::new(&net, &[host], rules);
        let response = rig.send(if post_it { post("charge") } else { get() }).await.unwrap();
        let made = response.extensions().get::<Attempts>().unwrap();
        assert_eq!((made.len(), made.is_in_vain()), (attempts, spent), "{what}");
    }
    // What was repeated and came to something was not in vain, whatever it is.
    let (net, calls) = (Net::default(), AtomicUsize::new(0));
    let host = net.host(1, move |_| answer(if calls.fetch_add(1, SeqCst) == 0 { 503 } else { 404 }, ""));
    let response = Rig::new(&net, &[host], rules(3, &rich)).get().await.unwrap();
    let made = response.extensions().get::<Attempts>().unwrap();
    assert_eq!((response.status().as_u16(), made.len(), made.is_in_vain()), (404, 2, false));
    assert!(!response.headers().contains_key(crate::classify::NO_RETRY));
}

#[tokio::test(start_paused = true)]
async fn grpc_unavailable_is_repeated_wherever_it_stands() {
    for trailers_only in [true, false] {
        let net = Net::default();
        let hosts = [
            net.host(1, move |_| grpc_answer(trailers_only, "14")),
            net.host(2, |_| grpc_answer(true, "0")),
            net.host(3, move |_| grpc_answer(trailers_only, "14")),
        ];
        let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.idempotent = Some(true))));
        let mut repeated = 0;
        for _ in 0..10 {
            let response = rig.send(grpc_call()).await.unwrap();
            let log = attempts(&response);
            assert!(log.ends_with("10.0.0.2:80 grpc-status 0"), "{log}");
            repeated += usize::from(log.contains("grpc-status 14"));
        }
        assert!(repeated > 0);
        rig.until(|rig| rig.in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bidirectional_stream_is_not_held_back_by_the_peek() {
    let net = Net::default();
    // Answers with headers at once, and with a message only after it has one.
    let echo = |request: Request<Incoming>| {
        Response::builder()
            .header("content-type", "application/grpc")
            .body(RequestBody::new(request.into_body()))
            .unwrap()
    };
    let host = net.host(1, echo);
    let rig = Rig::new(&net, &[host], Some(retry(|retry| retry.idempotent = Some(true))));
    let (send, mut receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| {
        receive.poll_recv(cx).map(|data| data.map(|data| Ok::<_, Error>(Frame::data(data))))
    });
    let request = request(Method::POST).header("content-type", "application/grpc");
    let request = request.body(RequestBody::new(StreamBody::new(stream))).unwrap();
    let mut response = timeout(Duration::from_secs(1), rig.send(request)).await.expect("deadlock").unwrap();
    send.send(Bytes::from_static(b"ping")).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "ping");
}

/// A process that stalls finds its own deadlines passed, and no endpoint is asked or blamed.
#[tokio::test(start_paused = true)]
async fn whoever_is_late_himself_blames_no_endpoint() {
    let net = Net::default();
    let host = net.slow_host(1, frozen);
    let rig = Rig::new(&net, &[host], None);
    for stalled in [true, false] {
        let latency = || rig.cluster.cluster.report(Instant::now())[0].latency;
        let before = latency();
        // The call is made, and then not polled until its time is up; the control waits for an answer as long.
        let call = rig.stack().call(rig.mark(get()));
        if stalled {
            tokio::time::advance(Duration::from_secs(16)).await;
        }
        let error = call.await.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::Timeout, stalled), "{error}");
        let blamed = rig.cluster.cluster.metrics().attempts.count(mesh_core::telemetry::AttemptOutcome::Timeout);
        assert_eq!(blamed, u64::from(!stalled));
        assert_eq!(latency() > before, !stalled, "{before:?}, {:?}", latency());
    }
}
