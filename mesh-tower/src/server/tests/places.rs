//! Places of requests, deadlines and quotas.

use super::*;

#[tokio::test]
async fn a_caller_that_leaves_gives_everything_back_and_is_recorded() {
    let kit = Kit::new("limits: { max_concurrent_requests: 1 }").await;
    let (alive, mut dropped) = oneshot::channel::<()>();
    let alive = Arc::new(Mutex::new(Some(alive)));
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let handler = service_fn(move |request: Request<Body>| {
        let guard = alive.lock().unwrap().take();
        // A handler may keep the extensions for as long as it likes: they hold no place.
        *keep.lock().unwrap() = Some(request.extensions().clone());
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(Response::new(Body::empty()))
        }
    });
    let mut call = Box::pin(stack(&kit.mesh, handler).oneshot(request(WEB, "/a")));
    assert!(call.as_mut().now_or_never().is_none());
    let called = Arc::new(AtomicUsize::new(0));
    let shed = stack(&kit.mesh, ok(&called)).oneshot(request(WEB, "/a")).await.unwrap();
    assert_eq!((shed.status().as_u16(), called.load(Ordering::Relaxed)), (503, 0));
    drop(shed);
    assert!(dropped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
    drop(call);
    assert!(dropped.await.is_err());
    assert_eq!(kit.metric("mesh_server_requests_in_flight").as_deref(), Some("0"));
    assert!(kept.lock().unwrap().is_some());
    let next = stack(&kit.mesh, ok(&called)).oneshot(request(WEB, "/a")).await.unwrap();
    assert_eq!(next.status(), 200);
    let statuses: Vec<_> = kit.records().await.iter().map(|record| (record.status, record.outcome)).collect();
    assert_eq!(statuses, [(503, AuditOutcome::Reject), (499, AuditOutcome::Allow), (200, AuditOutcome::Allow)]);
}

#[tokio::test]
async fn a_place_is_taken_until_the_body_ends_or_is_dropped() {
    let kit = Kit::new("limits: { max_concurrent_requests: 1 }").await;
    let called = Arc::new(AtomicUsize::new(0));
    let send = async || stack(&kit.mesh, ok(&called)).oneshot(request(WEB, "/a")).await.unwrap();
    let first = send().await;
    assert_eq!(send().await.status(), 503);
    drop(first);
    let second = send().await;
    assert_eq!(second.status(), 200);
    assert_eq!(send().await.status(), 503);
    let _ = second.into_body().collect().await;
    assert_eq!(send().await.status(), 200);
}

#[tokio::test]
async fn one_peer_gets_its_share_of_places_and_leaves_the_rest() {
    for (limits, share) in [
        ("max_concurrent_requests: 5", 3),
        ("max_concurrent_requests: 5, max_concurrent_requests_per_peer: 1", 1),
        ("max_concurrent_requests: 3, max_concurrent_requests_per_peer: 9", 3),
    ] {
        let kit = Kit::new(&format!("limits: {{ {limits} }}")).await;
        let called = Arc::new(AtomicUsize::new(0));
        let send = async |peer: &Arc<Connection>| {
            let request = Request::post("https://orders/a").extension(Arc::clone(peer)).body(Body::empty()).unwrap();
            stack(&kit.mesh, ok(&called)).oneshot(request).await.unwrap()
        };
        let (greedy, other) = (connection(WEB), connection(WEB));
        let mut held = Vec::new();
        while held.len() < 9 && held.last().is_none_or(|last: &Response<Body>| last.status() == 200) {
            held.push(send(&greedy).await);
        }
        let refused = held.pop().unwrap();
        assert_eq!((held.len(), refused.status().as_u16()), (share, 503), "{limits}");
        assert_eq!(send(&other).await.status() == 200, share < 5 && !limits.contains("9"), "{limits}");
        drop(held.pop());
        assert_eq!(send(&greedy).await.status(), 200, "{limits}: the place came back");
    }
}

#[tokio::test]
async fn a_refusal_that_nobody_reads_keeps_no_place() {
    let kit = Kit::new("limits: { max_concurrent_requests: 1 }").await;
    let called = Arc::new(AtomicUsize::new(0));
    let send = async |id| stack(&kit.mesh, ok(&called)).oneshot(request(id, "/a")).await.unwrap();
    let unread = send(BATCH).await;
    assert_eq!(unread.status(), 403);
    assert_eq!(send(WEB).await.status(), 200, "an unread refusal starves those who may call");
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_handlers_and_grpc_bodies() {
    let kit = Kit::new("").await;
    let timed = |request| with(request, "grpc-timeout", "100m");
    let slow = service_fn(|_| async {
        sleep(Duration::from_secs(9)).await;
        Ok(Response::new(Body::empty()))
    });
    let start = Instant::now();
    let response = stack(&kit.mesh, slow).oneshot(timed(request(WEB, "/a"))).await.unwrap();
    assert_eq!((response.status().as_u16(), start.elapsed().as_millis() / 10), (504, 10));

    let endless = service_fn(|_| async {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>();
        Ok(Response::new(Body::new(StreamBody::new(frames))))
    });
    let late = service_fn(|_| async {
        let frame = futures_util::stream::once(async {
            sleep(Duration::from_secs(9)).await;
            Ok::<_, Infallible>(http_body::Frame::data("late".into()))
        });
        Ok(Response::new(Body::new(StreamBody::new(frame))))
    });
    let response = stack(&kit.mesh, late).oneshot(timed(request(WEB, "/a"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "late");
    let response = stack(&kit.mesh, endless).oneshot(timed(grpc(request(WEB, "/S/M")))).await.unwrap();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(grpc::status(&trailers), Some(Code::DEADLINE_EXCEEDED));
    let count =
        r#"mesh_server_request_duration_seconds_count{method="POST",route="/S/M",status="2xx",grpc_status="4"}"#;
    assert_eq!(kit.metric(count).as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_a_quota_of_its_own() {
    let kit = Kit::new("limits: { rate: { per_second: 1, burst: 2 } }").await;
    let both = ALLOW_WEB.replace("sa/web]", "sa/web, test.example/ns/shop/sa/batch]");
    kit.publish(&both);
    let called = Arc::new(AtomicUsize::new(0));
    let send = async |id| stack(&kit.mesh, ok(&called)).oneshot(request(id, "/a")).await.unwrap();
    for (id, status) in [(WEB, 200), (WEB, 200), (WEB, 429), (BATCH, 200)] {
        assert_eq!(send(id).await.status(), status, "{id}");
    }
    assert_eq!(send(WEB).await.headers()["retry-after"], "1");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(WEB).await.status(), 200);
    assert_eq!(called.load(Ordering::Relaxed), 4);
}
