//! Layers that stand alone, twice, in the wrong order or in front of another server: none lets a request through.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_core::Mesh;
use mesh_core::audit::AuditOutcome;
use mesh_core::identity::SpiffeId;
use mesh_tower::client::{self, ReplayBody, RequestBody};
use mesh_tower::test_util::{TestMesh, TestService};
use mesh_tower::{Error, ErrorKind, Principal, server};
use tokio::net::{TcpListener, TcpStream};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt};

use crate::kit::{Reached, soon};

const WEB: &str = "spiffe://test/ns/test/sa/web";

/// The server's layers, outermost first.
const SERVER: [&str; 9] =
    ["telemetry", "audit", "canonical", "admission", "deadline", "authenticate", "authorize", "rate_limit", "handler"];

fn behind(mesh: &Mesh, layer: &str, router: Router) -> Router {
    match layer {
        "telemetry" => router.layer(server::TelemetryLayer::new(mesh)),
        "audit" => router.layer(server::AuditLayer::new(mesh)),
        "canonical" => router.layer(server::CanonicalLayer::new(mesh)),
        "admission" => router.layer(server::AdmissionLayer::new(mesh)),
        "deadline" => router.layer(server::DeadlineLayer::new(mesh)),
        "authenticate" => router.layer(server::AuthenticateLayer::new(mesh)),
        "authorize" => router.layer(server::AuthorizeLayer::new(mesh)),
        "rate_limit" => router.layer(server::RateLimitLayer::new(mesh)),
        "handler" => router.layer(server::HandlerLayer::new(mesh)),
        "all" => SERVER.iter().rev().fold(router, |router, layer| behind(mesh, layer, router)),
        "reversed" => SERVER.iter().fold(router, |router, layer| behind(mesh, layer, router)),
        _ => unreachable!("{layer}"),
    }
}

fn app(reached: &Reached) -> Router {
    let reached = reached.clone();
    Router::new().route("/", get(move || async move { reached.note() }))
}

/// `GET /` over plain TCP, claiming to be somebody.
async fn plainly(router: Router) -> StatusCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let io = TokioIo::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "orders")
        .header("x-forwarded-client-cert", format!("URI={WEB}"))
        .header("x-mesh-principal", WEB);
    let response = soon("an answer", sender.send_request(request.body(Body::empty()).unwrap())).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!body.windows(6).any(|word| word == b"wiring"), "the caller is told nothing: {body:?}");
    status
}

#[tokio::test]
async fn under_plain_axum_serve_no_layer_lets_anything_through() {
    let mesh = TestMesh::new().with(TestService::new("orders")).start().await.unwrap();
    let mesh = mesh.mesh("orders").unwrap();
    let reached = Reached::default();
    for layer in SERVER.into_iter().chain(["all", "reversed"]) {
        assert_eq!(plainly(behind(mesh, layer, app(&reached))).await, 500, "{layer}");
    }
    let whole = Router::new().fallback_service(server::stack(mesh, app(&reached)));
    assert_eq!(plainly(whole).await, 500, "the assembled stack");
    let handler = reached.clone();
    let shown = Router::new().route("/", get(|_: Principal| async move { handler.note() }));
    assert_eq!(plainly(shown).await, 500, "a handler that asks for its caller");
    assert_eq!(reached.count(), 0);
    assert_eq!(plainly(app(&reached)).await, 200, "the way itself is open");
}

#[tokio::test]
async fn below_the_stack_that_serves_it_no_layer_lets_anything_through() {
    for layer in SERVER.into_iter().chain(["all", "reversed"]) {
        let reached = Reached::default();
        let router = app(&reached);
        let orders = TestService::new("orders").app(move |mesh| Ok(behind(mesh, layer, router)));
        let mesh = TestMesh::new().with(orders).start().await.unwrap();
        let client = mesh.client_as(WEB, "orders").await.unwrap();
        assert_eq!(client.get("/").send().await.unwrap().status(), 500, "{layer}");
        assert_eq!(reached.count(), 0, "{layer}");
        let records = mesh.audit("orders").await.unwrap();
        let [record] = records.as_slice() else { panic!("{layer}: {records:#?}") };
        assert_eq!((record.outcome, record.reason), (AuditOutcome::Deny, "wiring"), "{layer}");
    }
}

/// The client's layers, outermost first.
const CLIENT: [&str; 7] = ["telemetry", "route", "deadline", "retry", "balance", "endpoint", "authenticate"];

type Calls = BoxCloneSyncService<Request<ReplayBody>, Response<client::Body>, Error>;

fn around(mesh: &Mesh, layer: &str, inner: Calls) -> Calls {
    match layer {
        "telemetry" => Calls::new(client::telemetry::TelemetryLayer::new(mesh, "orders").layer(inner)),
        "route" => Calls::new(client::route::RouteLayer::new(mesh, "orders").layer(inner)),
        "deadline" => Calls::new(client::deadline::DeadlineLayer::new().layer(inner)),
        "retry" => Calls::new(
            client::retry::RetryLayer::new(mesh)
                .layer(inner)
                .map_request(|request: Request<ReplayBody>| request.map(RequestBody::new)),
        ),
        "balance" => Calls::new(client::balance::BalanceLayer::new().layer(inner)),
        "endpoint" => Calls::new(client::endpoint::EndpointLayer::new(mesh).layer(inner)),
        "authenticate" => Calls::new(client::authenticate::AuthenticateLayer::new().layer(inner)),
        _ => unreachable!("{layer}"),
    }
}

async fn call(mesh: &Mesh, layers: &[&str]) -> Result<StatusCode, ErrorKind> {
    let pool = Calls::new(client::pool::Transport::default());
    let stack = layers.iter().rev().fold(pool, |inner, layer| around(mesh, layer, inner));
    let request = Request::get("https://orders/").body(ReplayBody::once(RequestBody::new(Body::empty()))).unwrap();
    let outcome = soon("an answer", stack.oneshot(request)).await;
    outcome.map(|response| response.status()).map_err(|error| error.kind())
}

/// Every layer alone, left out, or swapped with its neighbour; none; and all upside down.
fn broken_client_stacks() -> Vec<Vec<&'static str>> {
    let mut stacks = vec![vec![], CLIENT.into_iter().rev().collect()];
    stacks.extend(CLIENT.map(|layer| vec![layer]));
    for at in 0..CLIENT.len() {
        let mut without = CLIENT.to_vec();
        without.remove(at);
        stacks.push(without);
        let mut swapped = CLIENT.to_vec();
        swapped.swap(at, at.saturating_sub(1));
        stacks.push(swapped);
    }
    stacks
}

#[tokio::test]
async fn a_client_stack_made_by_hand_never_talks_to_a_stranger() {
    let reached = Reached::default();
    let misled = TestService::new("misled").config(|config| {
        let payments = SpiffeId::parse("spiffe://test/ns/test/sa/payments").unwrap();
        config.clusters.get_mut("orders").unwrap().identities = vec![payments];
    });
    let web = TestService::new("web");
    let mesh = TestMesh::new().service("orders", app(&reached)).with(web).with(misled).start().await.unwrap();
    let (web, misled) = (mesh.mesh("web").unwrap(), mesh.mesh("misled").unwrap());
    for layers in broken_client_stacks() {
        let place = |layer| layers.iter().position(|other| *other == layer);
        // Without a route there is no cluster, without a balancer no endpoint: both know whom to expect.
        let wired = matches!((place("route"), place("balance")), (Some(route), Some(balance)) if route < balance);
        let kind = call(misled, &layers).await.unwrap_err();
        assert!(kind == ErrorKind::Wiring || wired && kind == ErrorKind::PeerIdentity, "{layers:?}: {kind:?}");
        assert_eq!(reached.count(), 0, "{layers:?}");
        if !wired {
            assert_eq!(call(web, &layers).await, Err(ErrorKind::Wiring), "{layers:?}");
            assert_eq!(reached.count(), 0, "{layers:?}");
        }
    }
    assert_eq!(call(misled, &CLIENT).await, Err(ErrorKind::PeerIdentity));
    assert_eq!(reached.count(), 0);
    assert_eq!(call(web, &CLIENT).await, Ok(StatusCode::OK), "the whole one works");
}
