//! What changes while requests run: policy, and everybody's certificates.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::Mesh;
use mesh_core::config::HttpVersion;
use mesh_core::identity::SpiffeId;
use mesh_tower::Client;
use mesh_tower::connect::Dialer;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kit::{PATIENCE, connect_as, h2_as, soon, until};

const WEB: &str = "spiffe://test/ns/test/sa/web";
const BATCH: &str = "spiffe://test/ns/test/sa/batch";

/// What the issue promises between an edit and the first refusal.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

fn allow(caller: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\n\
         kind: AuthorizationPolicy\n\
         metadata: {{ name: callers, namespace: test }}\n\
         spec:\n\
         \x20 rules:\n\
         \x20   - from: [{{ source: {{ principals: [test/ns/test/sa/{caller}] }} }}]\n"
    )
}

async fn orders(policy: &Path) -> RunningTestMesh {
    let endless = || async {
        let frames =
            futures_util::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from("begun")))]);
        Body::new(StreamBody::new(futures_util::StreamExt::chain(frames, futures_util::stream::pending())))
    };
    let app = Router::new().route("/", get(|| async { "ok" })).route("/endless", get(endless));
    let policy = policy.to_owned();
    let orders = TestService::new("orders")
        .config(move |config| config.policies = vec![policy.clone()])
        .app(move |_mesh| Ok(app));
    TestMesh::new().with(orders).start().await.unwrap()
}

async fn status(sender: &mut http2::SendRequest<Body>) -> u16 {
    let request = Request::get("https://orders/").body(Body::empty()).unwrap();
    soon("an answer", sender.send_request(request)).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_revoked_caller_is_refused_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("callers.yaml");
    std::fs::write(&policy, allow("web")).unwrap();
    let mesh = orders(&policy).await;
    let (mut web, mut batch) = (h2_as(&mesh, WEB, "orders").await, h2_as(&mesh, BATCH, "orders").await);
    assert_eq!((status(&mut web).await, status(&mut batch).await), (200, 403));
    let request = Request::get("https://orders/endless").body(Body::empty()).unwrap();
    let mut stream = web.send_request(request).await.unwrap().into_body();
    assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");

    let edited = Instant::now();
    std::fs::write(&policy, allow("batch")).unwrap();
    // It is asked to leave, as one whom policy could let nothing do, and refused when it comes again.
    until("the revoked caller to be refused", async || {
        if web.is_closed() {
            web = h2_as(&mesh, WEB, "orders").await;
        }
        let request = Request::get("https://orders/").body(Body::empty()).unwrap();
        let response = web.send_request(request).await;
        response.is_ok_and(|response| response.status() == 403).then_some(())
    })
    .await;
    let took = edited.elapsed();
    assert!(took < REVOKED_WITHIN, "it took {took:?}");
    // The stream that policy had let in ends too, though nothing is sent on it.
    assert!(soon("the stream to be cut", stream.frame()).await.is_none_or(|frame| frame.is_err()));
    assert!(edited.elapsed() < REVOKED_WITHIN, "the stream took {:?}", edited.elapsed());
    assert_eq!(status(&mut batch).await, 200);
    let last = mesh.audit("orders").await.unwrap();
    let refused = last.iter().filter(|record| record.peer.as_deref() == Some(WEB) && record.status == 403).count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_broken_policy_is_told_by_file_line_and_field_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("callers.yaml");
    std::fs::write(&policy, allow("web")).unwrap();
    let mesh = orders(&policy).await;
    let orders = mesh.mesh("orders").unwrap();
    let (mut web, mut batch) = (h2_as(&mesh, WEB, "orders").await, h2_as(&mesh, BATCH, "orders").await);

    std::fs::write(&policy, allow("batch").replace("principals", "principles")).unwrap();
    let error = until("the reload to fail", async || orders.reload_error()).await;
    let issue = error.issues().last().unwrap();
    let place = &issue.place;
    assert_eq!((Path::new(&*place.file), place.line), (policy.as_path(), 6), "{error}");
    assert_eq!(place.path, "spec.rules[0].from[0].source.principles");
    assert!(issue.message.contains("principals"), "it says what was meant: {error}");
    assert_eq!((status(&mut web).await, status(&mut batch).await), (200, 403), "the last good policy holds");

    // A file that vanished is broken too: the policy in it must not vanish with it.
    std::fs::remove_file(&policy).unwrap();
    let missing = |mesh: &Mesh| mesh.reload_error().filter(|now| **now != *error);
    let gone = until("the loss to be told", async || missing(orders)).await;
    assert!(gone.to_string().contains("callers.yaml"), "{gone}");
    assert_eq!((status(&mut web).await, status(&mut batch).await), (200, 403), "the last good policy holds");

    std::fs::write(&policy, allow("batch")).unwrap();
    until("the reload to succeed", async || orders.reload_error().is_none().then_some(())).await;
    // The one that policy shuts out now is asked to leave.
    soon("the connection to end", async {
        while web.ready().await.is_ok() && !web.is_closed() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let mut web = h2_as(&mesh, WEB, "orders").await;
    assert_eq!((status(&mut web).await, status(&mut batch).await), (403, 200));
}

fn serial(mesh: &Mesh) -> String {
    mesh.identity().load().svid().unwrap().serial().to_owned()
}

#[tokio::test]
async fn certificates_rotate_under_load_without_a_failed_request() {
    const CALLERS: usize = 4;
    let app = Router::new().route("/", get(|| async { "ok" }));
    let mesh = TestMesh::new().service("orders", app).with(TestService::new("web")).start().await.unwrap();
    let (orders, web) = (mesh.mesh("orders").unwrap(), mesh.mesh("web").unwrap());
    let client = Client::new(web, "orders").unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, stop, done) = (client.clone(), Arc::clone(&stop), Arc::clone(&done));
        load.spawn(async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match client.get("/").no_retry().send().await {
                    Ok(response) if response.status() == 200 => {
                        response.bytes().await.unwrap();
                    }
                    Ok(response) => failed.push(response.status().to_string()),
                    Err(error) => failed.push(error.to_string()),
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
    }
    let more = async || {
        let before = done.load(Ordering::Relaxed);
        until("more requests", async || (done.load(Ordering::Relaxed) > before + 100).then_some(())).await;
    };
    more().await;
    for _ in 0..3 {
        let old = (serial(orders), serial(web));
        mesh.rotate().unwrap();
        until("the new certificates", async || (serial(orders) != old.0 && serial(web) != old.1).then_some(())).await;
        // What a new connection is shown ...
        let stream = connect_as(&mesh, WEB, "orders", "h2").await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(*shown[0], *orders.identity().load().svid().unwrap().chain()[0]);
        // ... and what it shows.
        let expected = vec![SpiffeId::parse("spiffe://test/ns/test/sa/orders").unwrap()];
        let dialer = Dialer::new(web, expected, HttpVersion::Http2, PATIENCE);
        let io = TokioIo::new(dialer.dial(mesh.address("orders").unwrap()).await.unwrap().io);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(status(&mut sender).await, 200);
        let records = mesh.audit("orders").await.unwrap();
        let new = serial(web);
        assert!(records.iter().any(|record| record.peer_serial.as_deref() == Some(new.as_str())), "{new}");
        more().await;
    }
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<_> = soon("the load to end", load.join_all()).await.concat();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), done.load(Ordering::Relaxed), failed.first());
}
