//! Callers that leave: nine of ten requests are dropped somewhere between their first poll and their last byte.
//!
//! `MESH_CANCELLED` is how many requests are made (default 5,000), `MESH_SEED` what chance begins with.

mod bodies;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use mesh_core::Mesh;
use mesh_core::config::{
    HttpVersion, LimitsConfig, ListenerConfig, NoPolicy, PoolConfig, RateLimitConfig, RetryConfig, RouteConfig,
};
use mesh_core::rng::Rng;
use mesh_tower::Client;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::kit::{Reached, from_env, soon, until};
use crate::memory;

const WEB: &str = "spiffe://test/ns/test/sa/web";
const CALLERS: usize = 48;
/// HTTP/1.1 pays for each cancelled request with its connection, so only a few speak it.
const HTTP1_CALLERS: usize = 2;
/// Requests at once that the server admits: more than its callers have, so that none of theirs may be shed.
const PLACES: usize = 256;
/// Streams of one connection; with the two connections of a pool, fewer than there are callers.
const STREAMS: u32 = 16;
/// One part of a body: a few of them left behind would fill a connection's window.
const PART: usize = 8 * 1024;

#[derive(Clone, Default)]
struct Service {
    open: Arc<Notify>,
    held: Reached,
}

/// Takes a body of any length, and answers with as many bytes.
async fn echo(body: Body) -> Result<Body, http::StatusCode> {
    let mut body = body;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| http::StatusCode::BAD_REQUEST)?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
        tokio::task::yield_now().await;
    }
    let parts = stream::iter((0..bytes / PART).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; PART]))));
    Ok(Body::from_stream(parts))
}

/// Sends back what comes, as it comes.
async fn relay(body: Body) -> Body {
    body
}

/// Answers at once, without an end, and reads nothing.
async fn unread(body: Body) -> Body {
    Body::from_stream(stream::poll_fn(move |_| {
        let _unread = &body;
        Poll::<Option<Result<Bytes, Infallible>>>::Pending
    }))
}

async fn hold(State(service): State<Service>) {
    service.held.note();
    service.open.notified().await;
}

/// How one request ends for its caller.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Never,
    /// After so many polls of the call; at 0 it is never begun.
    Polls(usize),
    After(Duration),
    /// Once the body's first parts are on their way, and nothing follows them.
    InBody,
    /// In the middle of both bodies, once the service has sent back the first bytes.
    Midway,
    /// With the response head, unread.
    AtHead,
    /// With the first bytes of the response.
    InAnswer,
}

impl Leave {
    fn random(rng: &Rng) -> Self {
        match rng.below(60) {
            0..6 => Self::Never,
            6..20 => Self::Polls(rng.below(8)),
            20..30 => Self::After(Duration::from_micros(rng.below(2_000) as u64)),
            30..40 => Self::InBody,
            40..50 => Self::AtHead,
            _ => Self::InAnswer,
        }
    }
}

/// Makes one request. `Err`: it was to end well, and did not.
async fn request(client: &Client, leave: Leave, parts: usize) -> Result<(), String> {
    let stalled = Arc::new(Notify::new());
    let body = stream::iter(
        (0..parts).map(|_| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[b'x'; PART])))),
    );
    let stall = Arc::clone(&stalled);
    let stall = stream::poll_fn(move |_| match leave {
        Leave::InBody | Leave::Midway => {
            stall.notify_one();
            Poll::Pending
        }
        _ => Poll::Ready(None),
    });
    let path = if matches!(leave, Leave::Midway) { "/relay" } else { "/echo" };
    let send = client.post(path).stream(StreamBody::new(futures_util::StreamExt::chain(body, stall))).send();
    match leave {
        Leave::Never => {
            let response = send.await.map_err(|error| format!("{error:?}"))?;
            let status = response.status();
            let bytes = response.bytes().await.map_err(|error| format!("{error:?}"))?;
            if status == 200 && bytes.len() == parts * PART {
                Ok(())
            } else {
                Err(format!("{status}, {}", bytes.len()))
            }
        }
        Leave::Polls(polls) => {
            let mut send = pin!(async { send.await.map(drop) });
            let mut left = polls;
            std::future::poll_fn(|cx| match left.checked_sub(1) {
                None => Poll::Ready(()),
                Some(less) => {
                    left = less;
                    send.as_mut().poll(cx).map(drop)
                }
            })
            .await;
            Ok(())
        }
        Leave::After(time) => {
            drop(timeout(time, send).await);
            Ok(())
        }
        Leave::InBody => {
            tokio::select! {
                _ = send => {}
                () = async { stalled.notified().await; tokio::task::yield_now().await; } => {}
            }
            Ok(())
        }
        Leave::AtHead => {
            drop(send.await);
            Ok(())
        }
        Leave::InAnswer | Leave::Midway => {
            if let Ok(response) = send.await {
                let mut body = response.into_inner().into_body();
                drop(body.frame().await);
            }
            Ok(())
        }
    }
}

/// Requests between two looks at what is left of them.
const PHASE: usize = 5_000;

fn median<T: Copy + Ord>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

/// How many connections made way for another because of those who left.
fn replaced(mesh: &Mesh) -> u64 {
    let text = mesh.metrics().encode();
    let closed = text.lines().filter(|line| line.contains("closed") && line.contains(r#"reason="cancellations""#));
    closed.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn list(values: impl Iterator<Item: ToString>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}

/// Resident memory in MiB.
fn resident() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4 / 1024)
}

async fn caller(net: &RunningTestMesh, http: HttpVersion, connections: usize) -> (Mesh, Client) {
    let web = net.mesh_with(WEB, move |config| {
        let orders = config.clusters.get_mut("orders").unwrap();
        orders.pool = PoolConfig::default().http(http).max_connections(connections);
        let mut route = RouteConfig::to("orders");
        route.retry = Some(RetryConfig::default());
        config.routes.insert("orders".to_owned(), vec![route]);
    });
    let web = web.await.unwrap();
    let client = Client::new(&web, "orders").unwrap();
    (web, client)
}

/// Makes so many requests, all that are to end well of which must; how many those were.
async fn storm(clients: &[(Client, usize, usize)], seed: u64) -> usize {
    let good = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    let rng = Rng::seeded(seed);
    for (client, share, callers_of_it) in clients {
        for _ in 0..*callers_of_it {
            let (client, rng, good, requests) = (client.clone(), rng.fork(), Arc::clone(&good), share / callers_of_it);
            callers.spawn(async move {
                for _ in 0..requests {
                    let leave = Leave::random(&rng);
                    let parts = rng.below(4);
                    let done = timeout(Duration::from_secs(60), request(&client, leave, parts)).await;
                    done.unwrap_or_else(|_| Err(format!("{leave:?} with {parts} parts hangs"))).unwrap();
                    good.fetch_add(usize::from(matches!(leave, Leave::Never)), SeqCst);
                }
            });
        }
    }
    callers.join_all().await;
    good.load(SeqCst)
}

/// A server whose limits let them leave as they like.
async fn start(service: &Service) -> RunningTestMesh {
    let router = Router::new()
        .route("/echo", post(echo))
        .route("/relay", post(relay))
        .route("/unread", post(unread))
        .route("/hold", get(hold))
        .with_state(service.clone());
    let orders = TestService::new("orders").app(move |_mesh| Ok(router)).config(|config| {
        config.no_policy = NoPolicy::Allow;
        let anywhere = ([127, 0, 0, 1], 0).into();
        let listener = ListenerConfig::new(anywhere).max_concurrent_streams(STREAMS);
        // They cancel more than any peer may.
        config.listeners.insert("default".to_owned(), listener.max_resets_per_second(1_000_000));
        let limits = LimitsConfig::default().max_concurrent_requests(PLACES);
        config.limits = limits.rate(RateLimitConfig::per_second(1_000_000.0));
        config.limits.max_concurrent_requests_per_peer = Some(PLACES);
    });
    TestMesh::new().with(orders).start().await.unwrap()
}

/// Waits until nothing is in flight.
async fn quiet(server: &Mesh, clients: &[&Client]) {
    until("the server to have no request", async || (server.metrics().server.in_flight.get() == 0).then_some(())).await;
    for client in clients {
        let none = async || client.endpoints().iter().all(|endpoint| endpoint.in_flight == 0).then_some(());
        until("the client to have no request", none).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_gives_everything_back() {
    let requests = from_env("MESH_CANCELLED", || 5_000) as usize;
    let seed = from_env("MESH_SEED", || Rng::from_entropy().next_u64());
    let service = Service::default();
    let net = start(&service).await;
    let server = net.mesh("orders").unwrap();
    let (h2_mesh, h2) = caller(&net, HttpVersion::Http2, 2).await;
    let (h1_mesh, h1) = caller(&net, HttpVersion::Http1, 1).await;
    let shares = |requests: usize| {
        let of_http1 = requests / 100;
        [(h2.clone(), requests - of_http1, CALLERS), (h1.clone(), of_http1, HTTP1_CALLERS)]
    };

    let start = Instant::now();
    let (mut good, mut live, mut records) = (0, Vec::new(), 0);
    let phase = (requests / 10).min(PHASE);
    for nth in 0..requests / phase {
        good += storm(&shares(phase), seed.wrapping_add(nth as u64)).await;
        quiet(server, &[&h2, &h1]).await;
        records += net.take_audit("orders").await.unwrap().len();
        live.push(memory::live());
    }
    println!("{requests} requests, {records} of them judged, {good} to their end, in {:?}", start.elapsed());
    println!("{} connections made way", replaced(&h2_mesh));
    // What is allocated once is allocated in the first tenth.
    let tenths: Vec<usize> = live.chunks(live.len() / 10).map(median).collect();
    println!(
        "live: {} KiB in each tenth; {:?} MiB resident",
        list(tenths.iter().map(|bytes| bytes / 1024)),
        resident()
    );
    let (calm, end) = (tenths[1], tenths[9]);
    let more = if requests >= 100_000 { calm / 20 } else { 2 << 20 };
    assert!(end <= calm + more, "{calm} bytes grew to {end}");

    // Every stream of the two connections can be claimed, all at once.
    let_go(&service, hold_all(&service, &h2, 2 * STREAMS as usize).await).await;
    // Every place of the server is free, and no more than it has. Each connection learns first how many streams it has.
    let mut calls = Vec::new();
    let mut callers = Vec::new();
    for _ in 0..PLACES / STREAMS as usize {
        let (mesh, client) = caller(&net, HttpVersion::Http2, 1).await;
        soon("the first request", request(&client, Leave::Never, 1)).await.unwrap();
        calls.push(hold_all(&service, &client, STREAMS as usize).await);
        callers.push(mesh);
    }
    let shed = h1.get("/hold").no_retry().send().await.unwrap();
    assert_eq!(shed.status(), 503, "one more than its places");
    for calls in calls {
        let_go(&service, calls).await;
    }
    // No window has shrunk: bodies much greater than one pass in both directions, over the same connections.
    for client in [&h2, &h1] {
        for _ in 0..4 {
            soon("a large body", request(client, Leave::Never, 256)).await.unwrap();
        }
    }
    // Retries in hand count against the budget; were one lost, its gauge would show it.
    for mesh in [server, &h2_mesh, &h1_mesh] {
        let text = mesh.metrics().encode();
        let gauges = text.lines().filter(|line| line.contains("in_flight") || line.contains("pending"));
        for gauge in gauges.filter(|line| !line.starts_with('#')) {
            assert!(gauge.ends_with(" 0"), "{gauge}");
        }
    }
}

/// Has the service hold so many requests at once.
async fn hold_all(service: &Service, client: &Client, requests: usize) -> JoinSet<u16> {
    let before = service.held.count();
    let mut calls = JoinSet::new();
    for _ in 0..requests {
        let client = client.clone();
        calls.spawn(async move { client.get("/hold").no_retry().send().await.unwrap().status().as_u16() });
    }
    let all = async || (service.held.count() == before + requests).then_some(());
    until("all requests to be held", all).await;
    calls
}

/// Lets them go.
async fn let_go(service: &Service, mut calls: JoinSet<u16>) {
    while !calls.is_empty() {
        service.open.notify_waiters();
        if let Ok(Some(status)) = timeout(Duration::from_millis(20), calls.join_next()).await {
            assert_eq!(status.unwrap(), 200);
        }
    }
}
