//! Stopping in two phases: with patience, and without.

use std::ops::Range;

use super::progress::narrow;
use super::*;

/// Stops a server whose peers are stuck in every way; how long that took.
async fn stopped_after(edit: impl FnOnce(&mut ListenerConfig), cut_after: Option<Duration>) -> Duration {
    let entered = Arc::new(Notify::new());
    let tell = Arc::clone(&entered);
    let handler = move |request: Request<Body>| {
        let tell = Arc::clone(&tell);
        async move {
            tell.notify_one();
            match request.uri().path() {
                "/never" => pending().await,
                _ => Response::new(Body::from(vec![b'x'; 1_000_000])),
            }
        }
    };
    let mut net = Net::start(edit, handler);
    // Answers that never come, and answers that nobody takes.
    let mut stuck = Vec::new();
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let mut client = net.connect(http).await;
        stuck.push(tokio::spawn(async move { drop(client.get("/never").await) }));
        entered.notified().await;
    }
    let mut unread = net.tls(&net.web, &[ORDERS], HttpVersion::Http1).await.unwrap();
    unread.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
    unread.flush().await.unwrap();
    entered.notified().await;
    let mut shut = narrow(&net).await;
    let request = Request::get("https://orders/").body(Body::empty()).unwrap();
    let _held = shut.send_request(request).await.unwrap();
    let _silent = net.pipe().await;
    let start = Instant::now();
    net.stop();
    if let Some(after) = cut_after {
        tokio::time::sleep(after).await;
        net.cut.take().unwrap().send(()).unwrap();
    }
    net.stopped.await.unwrap().unwrap();
    assert_eq!(net.metrics.transport.connections(), 0);
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn stuck_peers_delay_the_end_by_the_drain_timeout_and_a_second_signal_ends_it_at_once() {
    let table: [(&str, u32, Option<u32>, Range<u32>); 4] = [
        ("patience", 0, None, 5_000..6_001),
        ("patience after the delay", 3, None, 8_000..9_001),
        ("a second signal while draining", 0, Some(2), 2_000..2_100),
        ("a second signal in the delay", 3, Some(2), 2_000..2_100),
    ];
    for (name, delay, cut_after, expected) in table {
        let edit = |config: &mut ListenerConfig| (config.drain_timeout, config.shutdown_delay) = (5 * S, delay * S);
        let took = stopped_after(edit, cut_after.map(|secs| secs * S)).await;
        assert!(expected.contains(&(took.as_millis() as u32)), "{name}: {took:?}");
    }
}
