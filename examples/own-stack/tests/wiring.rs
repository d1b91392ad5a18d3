//! The example's own stacks work, and a stack that lacks a layer lets nobody through.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use mesh_tower::client::{self, RequestBody};
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{BoxError, ErrorKind, Mesh, server};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

const WEB: &str = "spiffe://shop.example/ns/shop/sa/web";

async fn start(relay: TestService) -> Result<RunningTestMesh, BoxError> {
    Ok(TestMesh::new().trust_domain("shop.example").with(relay.config_file("mesh.yaml")).start().await?)
}

fn hello() -> Request<RequestBody> {
    Request::get("https://relay/hello").body(RequestBody::default()).unwrap()
}

#[tokio::test]
async fn both_stacks_work() -> Result<(), BoxError> {
    let relay = TestService::new("relay").serve_with(|mesh, listener| Ok(own_stack::serve(mesh, listener)));
    let shop = start(relay).await?;
    let web = shop.mesh_as(WEB).await?;

    let answer = own_stack::client(&web, "relay").oneshot(hello()).await?;
    assert_eq!((answer.status(), answer.headers()["x-served-by"].to_str()?), (StatusCode::OK, "own-stack"));
    let records = shop.audit("relay").await?;
    assert_eq!(
        (records[0].policy.as_deref(), records[0].route.as_deref()),
        (Some("shop/relay-callers"), Some("/hello"))
    );

    let stranger = shop.client_as("spiffe://shop.example/ns/shop/sa/stranger", "relay").await?;
    let refused = stranger.get("/hello").send().await?;
    assert_eq!((refused.status(), refused.headers().get("x-served-by")), (StatusCode::FORBIDDEN, None));
    Ok(())
}

type Relay = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The least that a server needs, without the layer called `missing`.
fn without(missing: &str, mesh: &Mesh) -> server::Telemetry<Relay> {
    let unless = |name: &str| missing != name;
    let inner = ServiceBuilder::new()
        .layer(server::AuditLayer::new(mesh))
        .option_layer(unless("canonical").then(|| server::CanonicalLayer::new(mesh)))
        .option_layer(unless("authenticate").then(|| server::AuthenticateLayer::new(mesh)))
        .option_layer(unless("authorize").then(|| server::AuthorizeLayer::new(mesh)))
        .layer(server::HandlerLayer::new(mesh))
        .service(own_stack::router());
    ServiceBuilder::new().layer(server::TelemetryLayer::new(mesh)).service(BoxCloneSyncService::new(inner))
}

#[tokio::test]
async fn a_server_without_one_of_its_layers_denies() -> Result<(), BoxError> {
    for missing in ["nothing", "canonical", "authenticate", "authorize"] {
        let relay = TestService::new("relay")
            .serve_with(move |mesh, listener| Ok(mesh_tower::serve_stack(mesh, listener, without(missing, mesh))));
        let shop = start(relay).await?;

        let status = shop.client_as(WEB, "relay").await?.get("/hello").send().await?.status();
        let reason = shop.audit("relay").await?[0].reason;
        let expected = match missing {
            "nothing" => (StatusCode::OK, "allow_rule"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "wiring"),
        };
        assert_eq!((status, reason), expected, "without {missing}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_route_fails_before_anything_is_sent() -> Result<(), BoxError> {
    let mesh = TestMesh::new().trust_domain("shop.example").start().await?.mesh_as(WEB).await?;
    let client = ServiceBuilder::new()
        .layer(client::telemetry::TelemetryLayer::new(&mesh, "relay"))
        .layer(client::deadline::DeadlineLayer::new())
        .layer(client::retry::RetryLayer::new(&mesh))
        .layer(client::balance::BalanceLayer::new())
        .layer(client::endpoint::EndpointLayer::new(&mesh))
        .layer(client::authenticate::AuthenticateLayer::new())
        .service(client::pool::Transport::default());

    let error = client.oneshot(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Wiring, "{error}");
    Ok(())
}
