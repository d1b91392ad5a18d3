//! Servers that use their rights under HTTP/2, or stop using it.

use h2::server::{Connection, SendResponse};
use mesh_core::telemetry::CloseReason;
use tokio::io::DuplexStream;
use tokio::sync::Notify;

use super::*;

type Script =
    Arc<dyn Fn(usize, Connection<DuplexStream, Bytes>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Dials servers that follow a script, which knows how many were dialled before.
#[derive(Clone)]
struct Scripted {
    script: Script,
    dialed: Arc<AtomicUsize>,
}

impl Scripted {
    fn rig<F>(
        script: impl Fn(usize, Connection<DuplexStream, Bytes>) -> F + Send + Sync + 'static,
        edit: impl FnOnce(&mut ClusterConfig),
    ) -> (Rig, Self)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Script = Arc::new(move |nth, connection| Box::pin(script(nth, connection)));
        let this = Self { script, dialed: Arc::default() };
        let mut rig = Rig::new(&Net::default(), &[], None);
        let mut config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
        edit(&mut config);
        rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(this.clone())));
        rig.cluster.cluster.update(vec![Address::new(SocketAddr::from(([10, 0, 0, 1], 80)))], Instant::now());
        (rig, this)
    }

    fn dialed(&self) -> usize {
        self.dialed.load(SeqCst)
    }
}

impl Dial for Scripted {
    fn dial<'a>(&'a self, _: SocketAddr, _: &'a Dialing) -> DialFuture<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (nth, script) = (self.dialed.fetch_add(1, SeqCst), Arc::clone(&self.script));
            tokio::spawn(async move {
                let Ok(connection) = h2::server::handshake(far).await else { return };
                script(nth, connection).await;
            });
            Ok(Dialed { io: Box::new(near), http2: true, peer: None, retire_at: None })
        })
    }
}

fn respond(respond: &mut SendResponse<Bytes>, body: &'static str) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
}

/// Answers whatever still comes.
async fn answer_all(mut connection: Connection<DuplexStream, Bytes>) {
    while let Some(Ok((_, mut stream))) = connection.accept().await {
        respond(&mut stream, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_sent_again_whatever_its_method() {
    // One stream in three is refused, as by a server that lowered its limit.
    let (rig, scripted) = Scripted::rig(
        |_, mut connection| async move {
            let mut n = 0;
            while let Some(Ok((_, mut stream))) = connection.accept().await {
                n += 1;
                if n % 3 == 0 { stream.send_reset(h2::Reason::REFUSED_STREAM) } else { respond(&mut stream, "ok") }
            }
        },
        |_| {},
    );
    let mut repeated = 0;
    for _ in 0..10 {
        let response = rig.send(post("charge")).await.unwrap();
        repeated += attempts(&response).matches(',').count();
        assert_eq!(text(response).await, "ok");
    }
    assert!(repeated >= 3, "{repeated}");
    assert_eq!(scripted.dialed(), 1, "the connection is as good as it was");

    // Any other reset may come from a request that was processed.
    let (rig, _) = Scripted::rig(
        |_, mut connection| async move {
            while let Some(Ok((_, mut stream))) = connection.accept().await {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        },
        |_| {},
    );
    let error = rig.send(post("charge")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::Connection, false), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_goaway_finishes_its_streams_and_takes_no_more() {
    let (going, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (said, open) = (Arc::clone(&going), Arc::clone(&gate));
    let (rig, scripted) = Scripted::rig(
        move |nth, mut connection| {
            let (said, open) = (Arc::clone(&said), Arc::clone(&open));
            async move {
                if nth > 0 {
                    return answer_all(connection).await;
                }
                let (_, mut first) = connection.accept().await.unwrap().unwrap();
                connection.graceful_shutdown();
                said.notify_one();
                let (mut opened, mut answered) = (std::pin::pin!(open.notified()), false);
                loop {
                    tokio::select! {
                        () = &mut opened, if !answered => {
                            answered = true;
                            respond(&mut first, "first");
                        }
                        next = connection.accept() => match next {
                            Some(Ok((_, mut stream))) => respond(&mut stream, "old"),
                            _ => return,
                        },
                    }
                }
            }
        },
        |_| {},
    );
    let waiting = rig.clone();
    let first = tokio::spawn(async move { text(waiting.send(post("charge")).await.unwrap()).await });
    going.notified().await;
    // The second GOAWAY names the last stream, after a round trip.
    tokio::time::sleep(Duration::from_millis(10)).await;
    for _ in 0..5 {
        let response = rig.send(post("charge")).await.unwrap();
        assert_eq!(text(response).await, "ok", "from the successor");
    }
    assert_eq!(scripted.dialed(), 2);
    gate.notify_one();
    assert_eq!(first.await.unwrap(), "first", "what was under way finishes");
    assert_eq!(rig.in_flight(), 0);
    assert_eq!(rig.cluster.cluster.endpoints()[0].transport().connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_connection_is_found_out_by_a_ping() {
    let (rig, scripted) = Scripted::rig(
        |nth, mut connection| async move {
            if nth > 0 {
                return answer_all(connection).await;
            }
            let (_, mut stream) = connection.accept().await.unwrap().unwrap();
            respond(&mut stream, "ok");
            let _second = connection.accept().await.unwrap().unwrap();
            // From here on nothing is read or written, and nothing is closed.
            std::future::pending::<()>().await;
        },
        |_| {},
    );
    assert_eq!(text(rig.get().await.unwrap()).await, "ok");
    let started = Instant::now();
    let error = rig.get().await.unwrap_err();
    assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::Connection, false), "{error}");
    // `ping_interval` and `ping_timeout`, long before the route's 15 s.
    assert!((6_900..8_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(error.to_string().contains("keep-alive"), "{error}");
    let closed = &rig.cluster.cluster.metrics().connections_closed;
    assert_eq!(closed.count(CloseReason::PingTimeout), 1);
    assert_eq!(text(rig.get().await.unwrap()).await, "ok", "over a new connection");
    assert_eq!(scripted.dialed(), 2);
}

/// What a body does after its first chunk: another one after each of these waits, then the end.
fn slow_body(waits: &'static [u64]) -> impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static {
    move |_| {
        let chunks = futures_util::stream::unfold(waits.iter(), |mut waits| async {
            tokio::time::sleep(Duration::from_secs(*waits.next()?)).await;
            Some((Ok::<_, Error>(Frame::data(Bytes::from_static(b"x"))), waits))
        });
        Response::new(RequestBody::new(StreamBody::new(chunks)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_body_fails_after_the_idle_timeout_and_a_slow_one_does_not() {
    for http2 in [true, false] {
        // Seconds between chunks, setting, seconds until it fails.
        for (waits, timeout, fails_after) in [
            (&[0, 29, 29, 29, 29][..], 30, None),
            (&[0, 29, 1000], 30, Some(29 + 30)),
            (&[1000], 30, Some(30)),
            (&[0, 1000], 0, None),
        ] {
            let net = Net::default();
            let host = net.host(1, slow_body(waits));
            net.edit(host, |host| host.http2 = http2);
            let rig = Rig::with(&net, &[host], None, |config| {
                config.pool.stream_idle_timeout = Duration::from_secs(timeout);
            });
            let response = rig.get().await.unwrap();
            let started = Instant::now();
            let read = response.into_body().collect().await;
            let case = format!("http2 {http2}, {waits:?}, {timeout} s: {:?} after {:?}", read, started.elapsed());
            assert_eq!(read.as_ref().err().map(Error::kind), fails_after.map(|_| ErrorKind::Timeout), "{case}");
            if let Some(seconds) = fails_after {
                assert_eq!(started.elapsed().as_secs(), seconds, "{case}");
            }
            rig.until(|rig| rig.in_flight() == 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn response_headers_are_held_to_their_limit() {
    for http2 in [true, false] {
        for (bytes, passes) in [(6_000, true), (10_000, false)] {
            let net = Net::default();
            let host = net.host(1, move |_| {
                let big = "x".repeat(bytes);
                Response::builder().header("x-big", big).body(RequestBody::default()).unwrap()
            });
            net.edit(host, |host| host.http2 = http2);
            let rig = Rig::with(&net, &[host], None, |config| config.pool.max_header_bytes = 8 * 1024);
            match rig.get().await {
                Ok(response) => assert!(passes && response.headers()["x-big"].len() == bytes),
                Err(error) => assert!(!passes && error.kind() == ErrorKind::Connection, "http2 {http2}: {error}"),
            }
        }
    }
}
