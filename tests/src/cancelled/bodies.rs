//! Callers that leave while a body is under way.
//!
//! `MESH_CANCELLED_BODIES` is how many of them leave in the middle of their bodies (default 800).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_core::config::HttpVersion;
use mesh_tower::Client;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Leave, PART, STREAMS, Service, caller, hold_all, let_go, quiet, replaced, request, start};
use crate::kit::{from_env, soon, until};

/// What a busy machine may add to a request's time.
const NOISE: Duration = Duration::from_millis(10);

/// What keeps a body under way.
#[derive(Debug, Clone, Copy)]
enum Stalled {
    /// Nothing follows the first part.
    AtTheSource,
    /// The service reads nothing, and the window is full.
    InTheWindow,
}

/// Has the head of an answer come while the body stalls, and drops it. `alive` is shared with the body for as long as it lives.
async fn leave_at_head(client: Client, stalled: Stalled, alive: Arc<()>) {
    let parts = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&parts);
    let body = stream::poll_fn(move |_| {
        let _ = &alive;
        match stalled {
            Stalled::AtTheSource if sent.load(SeqCst) > 0 => Poll::Pending,
            _ => {
                sent.fetch_add(1, SeqCst);
                Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; PART])))))
            }
        }
    });
    let response = client.post("/unread").no_retry().stream(StreamBody::new(body)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut before = 0;
    loop {
        let now = parts.load(SeqCst);
        if std::mem::replace(&mut before, now) == now {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(response);
}

async fn whoever_leaves_an_upload_gives_its_stream_back(stalled: Stalled) {
    let service = Service::default();
    let net = start(&service).await;
    let server = net.mesh("orders").unwrap();
    let (_mesh, client) = caller(&net, HttpVersion::Http2, 1).await;
    soon("the first request", request(&client, Leave::Never, 1)).await.unwrap();
    for round in 0..3 {
        let alive = Arc::new(());
        let mut leaving = JoinSet::new();
        for _ in 0..STREAMS {
            let (client, alive) = (client.clone(), Arc::clone(&alive));
            leaving.spawn(leave_at_head(client, stalled, alive));
        }
        soon("all to leave", leaving.join_all()).await;
        let dropped = async || (Arc::strong_count(&alive) == 1).then_some(());
        until(&format!("the bodies of round {round} to be dropped"), dropped).await;
        quiet(server, &[&client]).await;
        // Every stream of the connection, all at once.
        let_go(&service, hold_all(&service, &client, STREAMS as usize).await).await;
        // The window of the connection is as it was.
        soon("a large body", request(&client, Leave::Never, 256)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stalls_at_its_source_ends_with_its_caller() {
    whoever_leaves_an_upload_gives_its_stream_back(Stalled::AtTheSource).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_waits_for_its_window_ends_with_its_caller() {
    whoever_leaves_an_upload_gives_its_stream_back(Stalled::InTheWindow).await;
}

/// Has so many requests end as `leave` says, by half as many callers as one connection has streams; how long those of
/// others took on the same connection meanwhile.
async fn beside(client: &Client, requests: usize, leave: Leave) -> Vec<Duration> {
    let callers = STREAMS as usize / 2;
    let mut leaving = JoinSet::new();
    for _ in 0..callers {
        let client = client.clone();
        leaving.spawn(async move {
            for _ in 0..requests / callers {
                soon("to leave", request(&client, leave, 3)).await.unwrap();
            }
        });
    }
    let mut others = JoinSet::new();
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..callers / 2 {
        let (client, over) = (client.clone(), Arc::clone(&over));
        others.spawn(async move {
            let mut times = Vec::new();
            while !over.load(SeqCst) {
                let start = Instant::now();
                soon("another's request", request(&client, Leave::Never, 1)).await.unwrap();
                times.push(start.elapsed());
            }
            times
        });
    }
    leaving.join_all().await;
    over.store(true, SeqCst);
    let mut times = others.join_all().await.concat();
    times.sort_unstable();
    times
}

/// Whoever leaves in the middle of a body holds up nobody on the same connection: the others' requests take no longer than
/// beside as many that go to their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_in_a_body_holds_up_nobody() {
    let requests = from_env("MESH_CANCELLED_BODIES", || 800) as usize;
    let service = Service::default();
    let net = start(&service).await;
    let (mesh, client) = caller(&net, HttpVersion::Http2, 1).await;
    let mut p99 = Vec::new();
    for leave in [Leave::Never, Leave::Midway, Leave::InAnswer] {
        let times = beside(&client, requests, leave).await;
        let [p50, at_99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        println!("beside {requests} that leave {leave:?}: {} others, p50 {p50:?}, p99 {at_99:?}", times.len());
        quiet(net.mesh("orders").unwrap(), &[&client]).await;
        net.take_audit("orders").await.unwrap();
        p99.push(at_99);
    }
    println!("{} connections made way", replaced(&mesh));
    // A window that shrank would show: bodies much greater than one pass.
    for _ in 0..4 {
        soon("a large body", request(&client, Leave::Never, 256)).await.unwrap();
    }
    for left in &p99[1..] {
        assert!(*left <= 2 * p99[0] + NOISE, "{p99:?}");
    }
}
