//! How connections end: shutdown, age, certificates, panics, cuts.

use super::*;

#[tokio::test(start_paused = true)]
async fn graceful_shutdown_lets_a_request_in_flight_finish() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut net = Net::start(|_| {}, gated(&gate, &entered));
        let mut idle = net.connect(http).await;
        idle.get("/").await.unwrap();
        let mut busy = net.connect(http).await;
        let request = tokio::spawn(async move {
            let (_, body) = busy.get("/slow").await.unwrap();
            busy.ended.await.unwrap();
            body
        });
        entered.notified().await;
        let start = Instant::now();
        net.stop();
        idle.ended.await.unwrap();
        until("the listener is closed", || net.dial.is_closed()).await;
        assert!(!net.stopped.is_finished(), "ended before the request did");
        gate.notify_one();
        assert_eq!(request.await.unwrap(), "done");
        net.stopped.await.unwrap().unwrap();
        assert!(start.elapsed() < S, "{http:?}: waited {:?}", start.elapsed());
        assert_eq!(net.metrics.transport.connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_request_is_cut_after_the_drain_timeout() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut net = Net::start(|config| config.drain_timeout = 5 * S, gated(&gate, &entered));
        let mut busy = net.connect(http).await;
        let request = tokio::spawn(async move { busy.get("/slow").await });
        let _silent = net.pipe().await; // a handshake that never begins must not hold anything up
        entered.notified().await;
        let start = Instant::now();
        net.stop();
        request.await.unwrap().unwrap_err();
        net.stopped.await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_secs(), 5, "{http:?}");
        assert_eq!(net.metrics.transport.closed_for("drain_timeout"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_grows_no_older_than_it_may() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let age = |config: &mut ListenerConfig| (config.max_connection_age, config.drain_timeout) = (100 * S, 20 * S);
        let net = Net::start(age, gated(&gate, &entered));
        let start = Instant::now();
        let (idle, busy) = idle_and_busy(&net, &entered, http).await;
        let going = tokio::spawn(async move {
            idle.ended.await.unwrap();
            start.elapsed()
        });
        busy.await.unwrap().unwrap_err();
        let (asked, cut) = (going.await.unwrap(), start.elapsed());
        assert!((90 * S..=101 * S).contains(&asked), "{http:?}: asked after {asked:?}, less up to 10 %");
        assert!((110 * S..=121 * S).contains(&cut), "{http:?}: cut after {cut:?}");
        until("both are counted", || net.metrics.transport.connections() == 0).await;
        let closed = ["max_age", "drain_timeout"].map(|reason| net.metrics.transport.closed_for(reason));
        assert_eq!(closed, [1, 1], "{http:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_connection_outlives_its_peers_certificate() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let net = Net::start(|_| {}, gated(&gate, &entered));
        net.web.publish(net.ca.issue(WEB, 100 * S));
        let start = Instant::now();
        let mut idle = net.connect(http).await;
        idle.get("/").await.unwrap();
        let mut busy = net.connect(http).await;
        let request = tokio::spawn(async move { busy.get("/slow").await });
        idle.ended.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 90, "{http:?}: asked to go a tenth of its life before");
        request.await.unwrap().unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 100, "{http:?}: cut at its end");
        until("both are counted", || net.metrics.transport.closed_for("certificate_expired") == 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_request_and_no_other() {
    let net = Net::start(
        |_| {},
        |request| async move {
            assert_ne!(request.uri().path(), "/panic", "asked to");
            Response::new(Body::from("fine"))
        },
    );
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let mut sibling = net.connect(http).await;
        let mut client = net.connect(http).await;
        assert_eq!(client.get("/panic").await.unwrap().0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(sibling.get("/").await.unwrap().1, "fine");
        assert_eq!(client.get("/").await.unwrap().1, "fine", "the same connection goes on");
        drop((sibling, client));
    }
    assert_eq!(net.metrics.server.panics.get(), 2, "none is silent");
    until("the gauge returns to zero", || net.metrics.transport.connections() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_cut_connection_drops_its_handlers() {
    struct OnDrop(Arc<AtomicBool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Arc::new(Mutex::new(Some(OnDrop(Arc::clone(&dropped)))));
    let mut net = Net::start(
        |config| config.drain_timeout = S,
        move |_| {
            let guard = guard.lock().unwrap().take();
            async move {
                let _guard = guard;
                pending().await
            }
        },
    );
    let mut client = net.connect(HttpVersion::Http2).await;
    let request = tokio::spawn(async move { client.get("/").await });
    until("the handler runs", || net.metrics.transport.connections() == 1).await;
    net.stop();
    request.await.unwrap().unwrap_err();
    net.stopped.await.unwrap().unwrap();
    until("the handler is dropped", || dropped.load(Ordering::SeqCst)).await;
}
