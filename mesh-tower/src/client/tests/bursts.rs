//! Many requests at once: how many connections are made for them, and how fast.

use mesh_core::telemetry::ConnectFailure;

use super::*;

const HANDSHAKE: Duration = Duration::from_millis(20);

/// Calls that hold their streams until all of them have one, and what became of them.
struct Burst {
    rig: Rig,
    host: SocketAddr,
    gate: Arc<tokio::sync::Semaphore>,
    running: Arc<AtomicUsize>,
    calls: Vec<tokio::task::JoinHandle<Result<Bytes, Error>>>,
}

impl Burst {
    fn new(edit_host: impl FnOnce(&mut Host), edit: impl FnOnce(&mut ClusterConfig)) -> Self {
        let net = Net::default();
        let (gate, running) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (open, count) = (Arc::clone(&gate), Arc::clone(&running));
        let host = net.slow_host(1, move |_| {
            let (gate, count) = (Arc::clone(&open), Arc::clone(&count));
            async move {
                count.fetch_add(1, SeqCst);
                gate.acquire().await.unwrap().forget();
                answer(200, "ok")
            }
        });
        net.edit(host, |host| {
            host.times.1 = HANDSHAKE;
            edit_host(host);
        });
        let once = retry(|retry| retry.attempts = 1);
        let rig = Rig::with(&net, &[host], Some(once), |config| {
            config.pool.connect_timeout = Duration::from_secs(10);
            config.pool.idle_timeout = Duration::from_secs(1);
            edit(config);
        });
        Self { rig, host, gate, running, calls: Vec::new() }
    }

    fn send(&mut self, calls: usize) {
        self.calls.extend((0..calls).map(|_| {
            let rig = self.rig.clone();
            tokio::spawn(async move { Ok(text(rig.get().await?).await) })
        }));
    }

    /// How long it takes until so many are at the server.
    async fn until_running(&self, calls: usize) -> Duration {
        let since = Instant::now();
        self.rig.until(|_| self.running.load(SeqCst) == calls).await;
        since.elapsed()
    }

    /// Lets the server answer; how many calls failed.
    async fn end(&mut self) -> usize {
        self.gate.add_permits(10_000);
        let mut failed = 0;
        for call in self.calls.drain(..) {
            failed += usize::from(call.await.unwrap().is_err());
        }
        failed
    }

    fn dialed(&self) -> usize {
        self.rig.net.dialed(self.host)
    }
}

/// 200 requests and ten streams on a connection: one handshake tells how many connections it takes, and the other 19 are made
/// together. Of a server that never says how few it allows, one after the other is tried.
#[tokio::test(start_paused = true)]
async fn as_many_connections_are_made_at_once_as_the_waiters_need() {
    for (calls, streams, max, connections, rounds) in [
        (200, 10, 32, 20, 2),
        (200, 10, 20, 20, 2),
        (11, 10, 32, 2, 2),
        (10, 10, 32, 1, 1),
        (1, 10, 32, 1, 1),
        // A bound on how many are made at once: 1, 32, 17.
        (100, 2, 64, 50, 3),
    ] {
        let mut burst = Burst::new(|host| host.streams = streams, |config| config.pool.max_connections = max);
        burst.send(calls);
        let took = burst.until_running(calls).await;
        let seen = took.as_millis() / HANDSHAKE.as_millis();
        assert_eq!(seen, rounds, "rounds of handshakes: {calls} calls took {took:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((burst.dialed(), burst.end().await), (connections, 0), "{calls} calls, {streams} streams");
        // What they need now is there.
        burst.running.store(0, SeqCst);
        burst.send(calls);
        burst.until_running(calls).await;
        assert_eq!((burst.dialed(), burst.end().await), (connections, 0));
    }
}

/// However many connects are begun together and fail, the endpoint was tried once: the waits until it is looked for again
/// are those after one failure.
#[tokio::test(start_paused = true)]
async fn connects_that_fail_together_are_one_failure() {
    for (calls, handshake) in [(1, HANDSHAKE), (20, HANDSHAKE), (20, Duration::ZERO)] {
        let mut burst = Burst::new(|host| host.streams = 1, |config| config.pool.max_connections = 32);
        // One connection, which tells how many streams it has and ends unused.
        burst.send(1);
        assert_eq!(burst.end().await, 0);
        burst.rig.until(|rig| rig.cluster.cluster.endpoints()[0].transport().connections() == 0).await;
        burst.rig.net.kill(burst.host);
        burst.rig.net.edit(burst.host, |host| host.times.1 = handshake);
        let before = burst.dialed() + calls;
        burst.send(calls);
        burst.rig.until(|_| burst.dialed() >= before).await;
        assert_eq!(burst.end().await, calls);
        let failures = burst.rig.cluster.cluster.metrics().connections_failed.count(ConnectFailure::Tcp);
        assert!(failures >= calls as u64, "each is counted: {failures}");
        let failed = Instant::now();
        burst.rig.until(|_| burst.dialed() >= before + 3).await;
        assert!(failed.elapsed() < Duration::from_secs(1), "{calls} connects: three more after {:?}", failed.elapsed());
    }
}

/// A thousand requests meet an endpoint of HTTP/1.1, where each needs a connection for itself.
#[tokio::test(start_paused = true)]
async fn dials_to_one_endpoint_are_bounded() {
    let mut burst = Burst::new(|host| host.http2 = false, |_| {});
    burst.send(1_000);
    let (started, mut first, mut most) = (Instant::now(), 0, 0);
    while burst.running.load(SeqCst) < 256 && started.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let dialing = burst.rig.net.dialing(burst.host);
        first = if first == 0 { dialing } else { first };
        most = most.max(dialing);
    }
    assert_eq!((burst.running.load(SeqCst), burst.dialed()), (256, 256), "4 * 64 connections stand");
    assert_eq!((first, most), (1, 32), "one tells that it is HTTP/1.1, then 32 at once");
    assert!(started.elapsed() < HANDSHAKE * 11, "1 and 255 / 32 rounds: {:?}", started.elapsed());
    assert_eq!((burst.end().await, burst.dialed()), (0, 256));
}

/// Connects that wait for their turn to shake hands end with the last of those who waited for them, but for one of an endpoint
/// that has no connection; those that shake hands already are finished.
#[tokio::test(start_paused = true)]
async fn connects_in_line_end_with_those_who_wait_for_them() {
    const MINUTE: Duration = Duration::from_secs(60);
    // (a connection stands, in line, under way once the waiters have gone)
    for (stands, in_line, left) in [(true, true, 0), (false, true, 1), (true, false, 9)] {
        let mut burst = Burst::new(|host| host.http2 = false, |config| config.pool.connect_timeout = 10 * MINUTE);
        burst.send(1);
        burst.until_running(1).await;
        if !stands {
            assert_eq!(burst.end().await, 0);
            burst.gate.forget_permits(usize::MAX);
            burst.rig.until(|rig| rig.cluster.cluster.endpoints()[0].transport().connections() == 0).await;
        }
        let times = if in_line { (MINUTE, HANDSHAKE) } else { (Duration::ZERO, MINUTE) };
        burst.rig.net.edit(burst.host, |host| host.times = times);
        let before = burst.dialed();
        let mut waiting: Vec<_> = (0..9).map(|_| Box::pin(burst.rig.get())).collect();
        for call in &mut waiting {
            assert!(futures_util::poll!(call).is_pending());
        }
        burst.rig.until(|rig| rig.net.dialing(burst.host) == 9).await;
        waiting.pop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(burst.rig.net.dialing(burst.host), 9, "some still wait");
        drop(waiting);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((burst.rig.net.dialing(burst.host), burst.dialed() - before), (left, 9), "{stands} {in_line}");
    }
}

/// One of them fails with nobody left to serve: the others in line would only be further tries of a lost endpoint.
#[tokio::test(start_paused = true)]
async fn connects_in_line_end_when_the_endpoint_is_lost() {
    let mut burst =
        Burst::new(|host| host.http2 = false, |config| config.pool.connect_timeout = Duration::from_secs(60));
    burst.send(1);
    assert_eq!(burst.end().await, 0);
    burst.rig.until(|rig| rig.cluster.cluster.endpoints()[0].transport().connections() == 0).await;
    burst.rig.net.kill(burst.host);
    // The first is refused at once, and the others wait for their turn.
    burst.send(1);
    burst.rig.until(|rig| rig.net.dialing(burst.host) == 1).await;
    burst.rig.net.edit(burst.host, |host| host.times.0 = Duration::from_secs(30));
    burst.send(8);
    let before = Instant::now();
    assert_eq!(burst.end().await, 9);
    assert!(before.elapsed() < Duration::from_secs(1), "nobody waited for them: {:?}", before.elapsed());
    assert!(burst.rig.net.dialing(burst.host) <= 1, "but for the one that looks for it");
}
