//! How long connections live, and how they come back.

use mesh_core::telemetry::CloseReason;

use super::*;

/// Calls of 3 s each, two at a time, for five minutes; how many failed.
async fn busy(rig: &Rig, minutes: u64) -> usize {
    let (started, mut failed) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(minutes * 60) {
        let (one, two) = tokio::join!(rig.get(), async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            rig.get().await
        });
        for answer in [one, two] {
            match answer {
                Ok(response) => drop(text(response).await),
                Err(_) => failed += 1,
            }
        }
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_a_greatest_age_and_no_request_notices() {
    for (http2, age, dialed) in [(true, 60, 6..=6), (true, 0, 1..=1), (false, 60, 8..=16), (false, 0, 2..=2)] {
        let net = Net::default();
        let host = net.slow_host(1, |_| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            answer(200, "ok")
        });
        net.edit(host, |host| host.http2 = http2);
        let rig = Rig::with(&net, &[host], None, |config| {
            config.pool.max_connection_age = Duration::from_secs(age);
        });
        assert_eq!(busy(&rig, 5).await, 0, "http2 {http2}, {age} s");
        let opened = net.dialed(host);
        assert!(dialed.contains(&opened), "http2 {http2}, {age} s: {opened} connections");
        let closed = &rig.cluster.cluster.metrics().connections_closed;
        assert_eq!(closed.count(CloseReason::MaxAge) > 0, age > 0);
        assert_eq!((closed.count(CloseReason::Identity), closed.count(CloseReason::Error)), (0, 0));
    }
}

/// A connection that does well is worth more than its age: while the server takes no other, it stays.
#[tokio::test(start_paused = true)]
async fn an_old_connection_stays_while_there_is_no_other() {
    let net = Net::default();
    let host = net.slow_host(1, |_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        answer(200, "ok")
    });
    let rig = Rig::with(&net, &[host], None, |config| config.pool.max_connection_age = Duration::from_secs(60));
    drop(text(rig.get().await.unwrap()).await);
    net.edit(host, |host| host.frozen = true);
    let replaced = || rig.cluster.cluster.metrics().connections_closed.count(CloseReason::MaxAge);
    assert_eq!((busy(&rig, 5).await, replaced()), (0, 0));
    assert!(net.dialed(host) > 10, "it is tried again and again");
    net.edit(host, |host| host.frozen = false);
    assert_eq!(busy(&rig, 1).await, 0);
    assert!(replaced() > 0, "once it takes others again");
}

/// What was connected together is not replaced together.
#[tokio::test(start_paused = true)]
async fn greatest_ages_are_spread() {
    let net = Net::default();
    let hosts: Vec<_> = (1..=40).map(|n| net.host(n, ok)).collect();
    let rig = Rig::with(&net, &hosts, None, |config| {
        config.pool.max_connection_age = Duration::from_secs(1000);
        config.pool.idle_timeout = Duration::from_secs(80_000);
    });
    rig.until(|rig| {
        hosts.iter().all(|host| net.dialed(*host) == 1) || {
            let rig = rig.clone();
            tokio::spawn(async move { drop(text(rig.get().await.unwrap()).await) });
            false
        }
    })
    .await;
    let replaced = || rig.cluster.cluster.metrics().connections_closed.count(CloseReason::MaxAge);
    let mut counts = Vec::new();
    tokio::time::sleep(Duration::from_secs(890)).await;
    for _ in 0..10 {
        counts.push(replaced());
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    counts.push(replaced());
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&40)));
    counts.dedup();
    assert!(counts.len() > 5, "they go one after the other: {counts:?}");
}

/// Counts its calls in time; never connects.
#[derive(Clone, Default)]
struct Dead(Arc<Mutex<Vec<Instant>>>);

impl Dial for Dead {
    fn dial<'a>(&'a self, _: SocketAddr, _: &'a Dialing) -> DialFuture<'a> {
        self.0.lock().unwrap().push(Instant::now());
        Box::pin(async { Err(DialFailure::new(ErrorKind::Connect, ConnectFailure::Tcp, "refused")) })
    }
}

/// An endpoint that is gone is dialled with waits that grow to as much as 2.5 to 5 s, as its client has drawn, and requests in
/// between fail at once instead of dialling too. (How evenly many clients come back: `mesh_core::retry::Reconnects`.)
#[tokio::test(start_paused = true)]
async fn reconnects_back_off_and_requests_fail_fast() {
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    let mut rig = Rig::new(&Net::default(), &[], None);
    let dead = Dead::default();
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(dead.clone())));
    rig.cluster.cluster.update(vec![Address::new(([10, 0, 0, 1], 80).into())], Instant::now());
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::Connect);
    let first = dead.0.lock().unwrap().len();
    for _ in 0..50 {
        let started = Instant::now();
        let error = rig.send(post("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    let asked = dead.0.lock().unwrap().len() - first;
    assert!(asked < 150, "{asked} dials for 50 requests of up to 3 attempts");
    dead.0.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dials = std::mem::take(&mut *dead.0.lock().unwrap());
    let waits: Vec<Duration> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last = waits[waits.len() - 1];
    assert!((2.5..5.0).contains(&last.as_secs_f64()), "{last:?}");
    assert!(waits.len() > 100 && waits.iter().all(|wait| wait.abs_diff(last) < Duration::from_millis(2)), "{waits:?}");
}
