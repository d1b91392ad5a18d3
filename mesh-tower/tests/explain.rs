//! `Client::explain` over a mesh of real certificates and sockets: what it says is what happens, and it does nothing.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use mesh_core::config::{Config, RetryConfig, RouteConfig};
use mesh_core::deadline::Deadline;
use mesh_core::discover::EndpointKey;
use mesh_tower::client::{CallTimeout, CallVerdict};
use mesh_tower::test_util::{RunningTestMesh, TestMesh};
use mesh_tower::{Client, RequestContext};
use serde_json::json;

const WEB: &str = "spiffe://test/ns/shop/sa/web";

async fn shop() -> RunningTestMesh {
    let app = Router::new().route("/orders/{id}", get(|| async { "an order" }));
    TestMesh::new().service("orders", app).start().await.unwrap()
}

/// Reads go by a route with retries, the charge by one without; `orders` has a second endpoint that is not there.
fn edit(config: &mut Config) {
    let mut reads = RouteConfig::to("orders");
    reads.matches.method = Some("GET".to_owned());
    reads.timeout = Duration::from_secs(2);
    reads.retry = Some(RetryConfig::default());
    let mut charge = RouteConfig::to("orders");
    charge.matches.method = Some("POST".to_owned());
    config.routes.insert("shop".to_owned(), vec![charge, reads]);
}

async fn client(shop: &RunningTestMesh) -> Client {
    Client::new(&shop.mesh_with(WEB, edit).await.unwrap(), "shop").unwrap()
}

/// Waits until the endpoints are known: the first word of discovery.
async fn resolved(client: &Client) {
    while client.endpoints().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_explained_is_what_happens_and_explaining_does_nothing() {
    let shop = shop().await;
    let mesh = shop.mesh_with(WEB, edit).await.unwrap();
    let client = Client::new(&mesh, "shop").unwrap();
    resolved(&client).await;
    let endpoint = EndpointKey(shop.address("orders").unwrap().to_string().into());
    let before = mesh.metrics().encode();
    for _ in 0..100 {
        let told = client.get("/orders/7?full=1").explain().unwrap();
        assert_eq!(told.verdict, CallVerdict::Sent { endpoint: endpoint.clone() }, "{told}");
    }
    assert_eq!(mesh.metrics().encode(), before, "nothing was counted, picked, connected or sent");
    assert_eq!(client.endpoints()[0].in_flight, 0);
    assert!(shop.audit("orders").await.unwrap().is_empty());

    let response = client.get("/orders/7").send().await.unwrap();
    let attempt = response.attempts().unwrap().iter().next().unwrap().clone();
    assert_eq!((response.status(), attempt.endpoint), (StatusCode::OK, Some(endpoint.clone())));
    let told = client.get("/orders/7").explain().unwrap();
    let call = told.call.as_ref().unwrap();
    assert_eq!((call.retry.budget.requests, call.limits.unwrap().connections.held), (1, 1));
    assert_eq!(call.limits.unwrap().requests.held, 1, "its body is not read yet");
    drop(response);

    let text = told.to_string();
    for part in [
        format!("GET /orders/7 of service shop: sent to {endpoint}\n"),
        "  route shop[0]: takes POST of any path\n> route shop[1]: takes GET of any path -> cluster orders\n"
            .to_owned(),
        "timeouts: headers within 2.0s (route 2.0s), whole answer unbounded, one attempt unbounded; connect "
            .to_owned(),
        "; the endpoint is told 2.0s\n".to_owned(),
        "retry: what failed and may go away, 3 attempts in all, waits to 25ms..250ms, 65536 bytes of body kept; \
         budget 20 % + 10/s: 1 requests and 0 retries in 10s, 100 left\n"
            .to_owned(),
        "limits: 1 of 1024 requests, 1 of 1024 connections, 0 of 64 handshakes, 1024 may wait for a connection of one endpoint\n"
            .to_owned(),
        "cluster orders: peak_ewma, 1 of 1 endpoints in\n".to_owned(),
        format!("\n> {endpoint}  in, "),
        format!("\npick: {endpoint} - the only one left"),
    ] {
        assert!(text.contains(&part), "{part:?} is missing in\n{text}");
    }
    let value = serde_json::to_value(&told).unwrap();
    assert_eq!(value["verdict"], json!({ "sent": { "endpoint": endpoint.to_string() } }));
    assert_eq!(value["call"]["timeouts"]["headers_ms"], json!(2000.0), "{value}");
}

#[tokio::test]
async fn each_way_to_fail_is_foretold_with_the_error_that_it_brings() {
    let shop = shop().await;
    let client = client(&shop).await;
    resolved(&client).await;

    let refused = client.put("/orders/7").explain().unwrap();
    let error = client.put("/orders/7").send().await.unwrap_err();
    let CallVerdict::Fails { kind, message } = &refused.verdict else { panic!("{refused}") };
    assert_eq!((*kind, error.kind().as_str()), ("unroutable", "unroutable"));
    assert!(error.to_string().contains(message) && refused.routes.len() == 2, "{refused}");

    // The deadline of whoever asks counts, and so does the call's own.
    let trace =
        mesh_tower::context::TraceContext::parse(b"00-11111111111111111111111111111111-2222222222222222-01").unwrap();
    let within =
        |time: Duration| RequestContext::new(trace.clone(), Some(Deadline::after(tokio::time::Instant::now(), time)));
    let asked = within(Duration::from_secs(1)).sync_scope(|| client.get("/orders/7").explain().unwrap());
    let timeouts = asked.call.unwrap().timeouts;
    assert!(
        timeouts.headers <= Duration::from_secs(1) && timeouts.whole == timeouts.inherited && timeouts.whole.is_some()
    );
    let late = within(Duration::ZERO).sync_scope(|| client.get("/orders/7").explain().unwrap());
    assert!(matches!(&late.verdict, CallVerdict::Fails { kind: "timeout", .. }), "{late}");
    let mut request = Request::builder().method("GET").uri("/orders/7").body(()).unwrap();
    request.extensions_mut().insert(CallTimeout(Duration::from_millis(700)));
    let timeouts = client.explain(&request).call.unwrap().timeouts;
    assert_eq!((timeouts.own, timeouts.told), (Some(Duration::from_millis(700)), Some(Duration::from_millis(700))));

    let full = shop.mesh_with(WEB, |config| {
        edit(config);
        if let Some(cluster) = config.clusters.get_mut("orders") {
            cluster.limits.max_requests = 1;
        }
    });
    let full = Client::new(&full.await.unwrap(), "shop").unwrap();
    let held = full.get("/orders/7").send().await.unwrap();
    let told = full.get("/orders/7").explain().unwrap();
    assert!(matches!(&told.verdict, CallVerdict::Fails { kind: "limit_reached", .. }), "{told}");
    assert_eq!(full.get("/orders/7").send().await.unwrap_err().kind().as_str(), "limit_reached");
    drop(held);

    // An endpoint that is gone says why.
    shop.stop("orders").unwrap();
    let error = loop {
        if let Err(error) = client.get("/orders/7").send().await {
            break error;
        }
    };
    assert!(!error.attempts().is_empty(), "{error:?}");
    let told = client.get("/orders/7").explain().unwrap();
    let cluster = told.call.as_ref().unwrap().cluster.as_ref().unwrap();
    assert!(cluster.endpoints[0].transport.failure.is_some(), "{told}");
    assert!(told.to_string().contains("unreachable") && told.to_string().contains("last connect failed: "), "{told}");
}
