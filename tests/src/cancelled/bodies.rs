//! Callers that leave while their own body is under way.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_core::config::HttpVersion;
use mesh_tower::Client;
use tokio::task::JoinSet;

use super::{Leave, PART, STREAMS, Service, caller, hold_all, let_go, quiet, request, start};
use crate::kit::{soon, until};

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
