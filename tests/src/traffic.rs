//! What callers see of servers that die, and servers of callers further up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::StreamBody;
use mesh_core::config::{NoPolicy, RetryConfig, RouteConfig};
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, ErrorKind, RequestContext, context};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kit::{Reached, soon, until};

const ENDPOINTS: [&str; 3] = ["payments-1", "payments-2", "payments-3"];

/// Three endpoints of `payments` whose handlers can be held, and a caller with or without retries.
struct Shop {
    mesh: RunningTestMesh,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Default)]
struct Endpoint {
    hold: Arc<AtomicBool>,
    held: Reached,
    reached: Reached,
}

impl Endpoint {
    async fn handle(State(endpoint): State<Self>) -> &'static str {
        endpoint.reached.note();
        if endpoint.hold.load(Ordering::SeqCst) {
            endpoint.held.note();
            std::future::pending::<()>().await;
        }
        "paid"
    }
}

impl Shop {
    async fn open(retry: Option<RetryConfig>) -> Self {
        let mut endpoints = Vec::new();
        let mut mesh = TestMesh::new().with(TestService::new("web").config(move |config| {
            let mut route = RouteConfig::to("payments");
            route.retry = retry.clone();
            config.routes.insert("payments".to_owned(), vec![route]);
        }));
        for name in ENDPOINTS {
            let endpoint = Endpoint::default();
            let app = Router::new()
                .route("/", get(Endpoint::handle))
                .route("/charge", post(Endpoint::handle))
                .with_state(endpoint.clone());
            mesh = mesh.with(TestService::new(name).endpoint_of("payments").app(move |_mesh| Ok(app)));
            endpoints.push(endpoint);
        }
        Self { mesh: mesh.start().await.unwrap(), endpoints }
    }

    fn client(&self) -> Client {
        Client::new(self.mesh.mesh("web").unwrap(), "payments").unwrap()
    }

    fn reached(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.reached.count()).sum()
    }
}

/// Callers that never rest, and what went wrong for them.
struct Load {
    tasks: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    fn start(client: &Client, callers: usize) -> Self {
        let mut load = Self { tasks: JoinSet::new(), stop: Arc::default(), done: Arc::default() };
        for _ in 0..callers {
            let (client, stop, done) = (client.clone(), Arc::clone(&load.stop), Arc::clone(&load.done));
            load.tasks.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match client.get("/").send().await {
                        Ok(response) if response.status() == 200 => drop(response.text().await.unwrap()),
                        Ok(response) => failed.push(response.status().to_string()),
                        Err(error) => failed.push(error.to_string()),
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                failed
            });
        }
        load
    }

    async fn more(&self, requests: usize) {
        let target = self.done.load(Ordering::SeqCst) + requests;
        until("more requests", async || (self.done.load(Ordering::SeqCst) >= target).then_some(())).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        soon("the load to end", self.tasks.join_all()).await.concat()
    }
}

/// Kills one of three endpoints while it certainly has requests in hand; how many of all failed.
async fn kill_one_under_load(retry: Option<RetryConfig>) -> Vec<String> {
    let shop = Shop::open(retry).await;
    let client = shop.client();
    let load = Load::start(&client, 8);
    load.more(200).await;
    assert!(shop.endpoints.iter().all(|endpoint| endpoint.reached.count() > 0), "all three share the load");
    let (victim, name) = (&shop.endpoints[1], ENDPOINTS[1]);
    victim.hold.store(true, Ordering::SeqCst);
    until("requests in the victim's hands", async || (victim.held.count() > 0).then_some(())).await;
    shop.mesh.stop(name).unwrap();
    load.more(300).await;
    let failed = load.end().await;
    // The dead one is out: nothing is even tried there.
    for _ in 0..30 {
        assert_eq!(client.get("/").send().await.unwrap().attempts().unwrap().len(), 1);
    }
    failed
}

#[tokio::test]
async fn an_endpoint_that_dies_under_load_fails_no_idempotent_request() {
    let failed = kill_one_under_load(Some(RetryConfig::default())).await;
    assert!(failed.is_empty(), "{}: {:?}", failed.len(), failed.first());
}

#[tokio::test]
async fn without_retries_its_requests_do_fail() {
    let failed = kill_one_under_load(None).await;
    assert!(!failed.is_empty(), "the test above proves nothing");
}

#[tokio::test]
async fn a_charge_is_repeated_only_if_it_may_be() {
    for idempotent in [false, true] {
        let shop = Shop::open(Some(RetryConfig::default())).await;
        shop.endpoints.iter().for_each(|endpoint| endpoint.hold.store(true, Ordering::SeqCst));
        let request = shop.client().post("/charge").body("once");
        let request = if idempotent { request.idempotency_key("order-7") } else { request };
        let charge = tokio::spawn(request.send());
        let at = until("the charge to arrive", async || {
            shop.endpoints.iter().position(|endpoint| endpoint.held.count() > 0)
        })
        .await;
        shop.endpoints.iter().for_each(|endpoint| endpoint.hold.store(false, Ordering::SeqCst));
        shop.mesh.stop(ENDPOINTS[at]).unwrap();
        let outcome = soon("the charge to end", charge).await.unwrap();
        if idempotent {
            let response = outcome.unwrap();
            assert_eq!((response.status().as_u16(), response.attempts().unwrap().len(), shop.reached()), (200, 2, 2));
        } else {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.is_never_sent(), shop.reached()), (ErrorKind::Connection, false, 1));
        }
    }
}

#[tokio::test]
async fn what_was_never_sent_is_always_repeated() {
    // Without retry rules, and a request that must not be sent twice.
    let shop = Shop::open(None).await;
    shop.mesh.stop(ENDPOINTS[0]).unwrap();
    shop.mesh.stop(ENDPOINTS[2]).unwrap();
    for n in 1..=10 {
        let response = shop.client().post("/charge").send().await.unwrap();
        assert_eq!((response.status().as_u16(), shop.reached()), (200, n));
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a handler knows without having done anything for it.
fn here() -> Value {
    let context = RequestContext::current().unwrap();
    let remaining = context.deadline().map(|deadline| deadline.remaining(Instant::now()).as_millis() as u64);
    json!({
        "trace": context.trace().trace_id_hex(),
        "remaining": remaining,
        "caller": context.caller().map(ToString::to_string),
    })
}

async fn ask(client: &Client) -> Result<Value, mesh_tower::Error> {
    client.get("/").send().await?.json().await
}

/// `payments` tells what it knows; `orders` asks it while it answers, in a task of its own, and while its body is read.
async fn chain() -> (RunningTestMesh, Client) {
    let payments = Router::new().route("/", get(|| async { Json(here()) }));
    let orders = TestService::new("orders").app(|mesh| {
        let payments = Client::new(mesh, "payments")?;
        let direct = |State(payments): State<Client>| async move {
            Ok::<_, mesh_tower::Error>(Json(json!([here(), ask(&payments).await?])))
        };
        let spawned = |State(payments): State<Client>| async move {
            let task = context::spawn(async move { ask(&payments).await });
            Ok::<_, mesh_tower::Error>(Json(json!([here(), task.await.unwrap()?])))
        };
        let streamed = |State(payments): State<Client>| async move {
            Body::new(StreamBody::new(futures_util::stream::once(async move {
                let told = json!([here(), ask(&payments).await?]);
                Ok::<_, mesh_tower::Error>(http_body::Frame::data(told.to_string().into()))
            })))
        };
        Ok(Router::new()
            .route("/direct", get(direct))
            .route("/spawned", get(spawned))
            .route("/streamed", get(streamed))
            .with_state(payments))
    });
    let mesh = TestMesh::new().service("payments", payments).with(orders).start().await.unwrap();
    let web = mesh.client_as("spiffe://test/ns/test/sa/web", "orders").await.unwrap();
    (mesh, web)
}

#[tokio::test]
async fn trace_and_deadline_go_through_two_services_without_code() {
    let (mesh, web) = chain().await;
    for path in ["/direct", "/spawned", "/streamed"] {
        let call = web.get(path).header("traceparent", TRACEPARENT).timeout(Duration::from_secs(5));
        let told: Value = call.send().await.unwrap().json().await.unwrap();
        for (hop, caller) in [(0, "web"), (1, "orders")] {
            assert_eq!(told[hop]["trace"], TRACE, "{path}: {told}");
            assert_eq!(told[hop]["caller"], format!("spiffe://test/ns/test/sa/{caller}"), "{path}: {told}");
        }
        let remaining = |hop: usize| told[hop]["remaining"].as_u64().unwrap_or_else(|| panic!("{path}: {told}"));
        assert!(remaining(1) <= remaining(0) && remaining(0) <= 5000, "{path}: {told}");
        assert!(remaining(1) > 2000, "{path}: {told}");
    }
    for service in ["orders", "payments"] {
        let records = mesh.audit(service).await.unwrap();
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|record| record.trace_id.as_deref() == Some(TRACE)), "{records:?}");
    }
    // A caller without a trace begins one, which both services share.
    let told: Value = web.get("/direct").send().await.unwrap().json().await.unwrap();
    assert_eq!(told[0]["trace"], told[1]["trace"]);
    assert_ne!(told[0]["trace"], TRACE);
}

/// Tells when it is dropped.
struct Gone(Reached);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.note();
    }
}

#[tokio::test]
async fn a_deadline_ends_the_work_of_every_service() {
    let (begun, dropped) = (Reached::default(), Reached::default());
    let (enter, leave) = (begun.clone(), dropped.clone());
    let payments = Router::new().route(
        "/",
        get(|| async move {
            enter.note();
            let _gone = Gone(leave);
            std::future::pending::<()>().await;
        }),
    );
    let orders = TestService::new("orders").app(|mesh| {
        let payments = Client::new(mesh, "payments")?;
        let forward = |State(payments): State<Client>| async move { ask(&payments).await.map(Json) };
        Ok(Router::new().route("/", get(forward)).with_state(payments))
    });
    let mesh = TestMesh::new().service("payments", payments).with(orders).start().await.unwrap();
    let web = mesh.client_as("spiffe://test/ns/test/sa/web", "orders").await.unwrap();
    // Warm connections, so that the deadline below is spent in the handlers.
    let warm = web.get("/missing").send().await.unwrap();
    assert_eq!(warm.status(), 404);
    let outcome = web.get("/").timeout(Duration::from_millis(500)).send().await;
    match outcome {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
        Ok(response) => assert_eq!(response.status(), 504),
    }
    until("the last handler to be dropped", async || (dropped.count() == 1).then_some(())).await;
    assert_eq!(begun.count(), 1);
}

/// Many empty chunks, and one that is not.
fn mostly_empty() -> impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send + 'static {
    // h2 ends a connection with the 101st, and everything on it.
    let chunks = (0..300).map(|_| Bytes::new()).chain([Bytes::from_static(b"x")]);
    futures_util::stream::iter(chunks.map(|chunk| Ok(http_body::Frame::data(chunk))))
}

#[tokio::test]
async fn empty_chunks_end_no_connection() {
    let app = Router::new()
        .route("/up", post(|body: String| async move { body }))
        .route("/down", get(|| async { Body::new(StreamBody::new(mostly_empty())) }));
    let payments =
        TestService::new("payments").app(move |_| Ok(app)).config(|config| config.no_policy = NoPolicy::Allow);
    let net = TestMesh::new().with(payments).with(TestService::new("web")).start().await.unwrap();
    let client = Client::new(net.mesh("web").unwrap(), "payments").unwrap();
    for _ in 0..3 {
        let up = client.post("/up").stream(StreamBody::new(mostly_empty())).send().await.unwrap();
        assert_eq!(up.bytes().await.unwrap(), "x");
        let down = client.get("/down").no_retry().send().await.unwrap();
        assert_eq!(down.bytes().await.unwrap(), "x");
    }
}
