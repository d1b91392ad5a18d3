//! Generated code over the mesh: what a tonic client and a tonic service see of it.
//!
//! The stubs are written by hand, in the shape in which `tonic-build` writes them.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use mesh_core::clock::{SystemClock, WallClock as _};
use mesh_core::config::{RetryConfig, RouteConfig};
use mesh_tonic::{Channel, RequestExt};
use mesh_tower::test_util::{RunningTestMesh, TestIssuer, TestMesh, TestService};
use mesh_tower::{Client, RequestContext};
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

#[derive(serde::Deserialize)]
struct Tenant {
    tenant: String,
}

type Codec = ProstCodec<Text, Text>;
type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// The service `shop.Payments`.
#[derive(Clone, Default)]
struct Payments {
    /// Calls of `Flaky` so far.
    flaky: Arc<AtomicUsize>,
}

impl Payments {
    /// `Charge`: who calls, and what for.
    async fn charge(request: Request<Text>) -> Result<Response<Text>, Status> {
        let caller = request.principal()?.to_string();
        Ok(Response::new(text(format!("{caller}: {}", request.into_inner().text))))
    }

    /// `Tenant`: whom the token speaks for.
    async fn tenant(request: Request<Text>) -> Result<Response<Text>, Status> {
        let Tenant { tenant } = request.claims()?;
        Ok(Response::new(text(tenant)))
    }

    /// `Remaining`: the milliseconds until the caller gives up.
    async fn remaining(_: Request<Text>) -> Result<Response<Text>, Status> {
        let context = RequestContext::current().ok_or_else(|| Status::internal("no context"))?;
        let deadline = context.deadline().ok_or_else(|| Status::internal("no deadline"))?;
        Ok(Response::new(text(deadline.remaining(Instant::now()).as_millis().to_string())))
    }

    /// `Watch`: three texts, and then the end or, if asked, a failure.
    async fn watch(request: Request<Text>) -> Result<Response<Texts>, Status> {
        request.principal()?;
        let broken = request.into_inner().text == "broken";
        let end = broken.then(|| Err(Status::data_loss("no more")));
        let texts = stream::iter((0..3).map(|n| Ok(text(n.to_string()))).chain(end));
        Ok(Response::new(Box::pin(texts)))
    }

    /// `Flaky`: a stream, so that its UNAVAILABLE comes in trailers after headers that look well; once.
    async fn flaky(calls: Arc<AtomicUsize>) -> Result<Response<Texts>, Status> {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        let answer = if first { Err(Status::unavailable("not yet")) } else { Ok(text("now")) };
        Ok(Response::new(Box::pin(stream::iter([answer]))))
    }
}

/// Makes a function a tonic method.
struct Method<F>(F);

impl<F, T, A> Service<Request<Text>> for Method<F>
where
    F: FnMut(Request<Text>) -> A,
    A: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    type Response = Response<T>;
    type Error = Status;
    type Future = Answer<T>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

impl NamedService for Payments {
    const NAME: &'static str = "shop.Payments";
}

impl Service<http::Request<Body>> for Payments {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = Arc::clone(&self.flaky);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/shop.Payments/Charge" => grpc.unary(Method(Self::charge), request).await,
                "/shop.Payments/Tenant" => grpc.unary(Method(Self::tenant), request).await,
                "/shop.Payments/Remaining" => grpc.unary(Method(Self::remaining), request).await,
                "/shop.Payments/Watch" => grpc.server_streaming(Method(Self::watch), request).await,
                "/shop.Payments/Flaky" => {
                    grpc.server_streaming(Method(move |_| Self::flaky(Arc::clone(&calls))), request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A generated client.
struct PaymentsClient(tonic::client::Grpc<Channel>);

impl PaymentsClient {
    fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    async fn unary(&mut self, path: &'static str, request: Request<Text>) -> Result<Response<Text>, Status> {
        self.0.ready().await?;
        soon(self.0.unary(request, PathAndQuery::from_static(path), Codec::default())).await
    }

    async fn stream(&mut self, path: &'static str, sent: &str) -> Result<Response<Streaming<Text>>, Status> {
        self.0.ready().await?;
        let request = Request::new(text(sent));
        soon(self.0.server_streaming(request, PathAndQuery::from_static(path), Codec::default())).await
    }

    async fn charge(&mut self, sent: &str) -> Result<String, Status> {
        let response = self.unary("/shop.Payments/Charge", Request::new(text(sent))).await?;
        Ok(response.into_inner().text)
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("no answer in ten seconds")
}

const WEB: &str = "spiffe://test/ns/test/sa/web";

/// HTTP and gRPC on one port.
fn payments() -> TestService {
    TestService::new("payments")
        .app(|_mesh| Ok(Router::new().route("/page", get(|| async { "a page" }))))
        .grpc(|_mesh| Ok(mesh_tonic::router(tonic::service::Routes::new(Payments::default()))))
}

async fn start(payments: TestService) -> RunningTestMesh {
    TestMesh::new().with(payments).start().await.unwrap()
}

async fn client(mesh: &RunningTestMesh, id: &str) -> PaymentsClient {
    PaymentsClient::new(Channel::new(&mesh.mesh_as(id).await.unwrap(), "payments").unwrap())
}

#[tokio::test]
async fn unary_calls_and_streams_know_their_caller() {
    let mesh = start(payments()).await;
    let mut web = client(&mesh, WEB).await;
    assert_eq!(web.charge("1 EUR").await.unwrap(), format!("{WEB}: 1 EUR"));

    for (sent, end) in [("", None), ("broken", Some((Code::DataLoss, "no more")))] {
        let stream = web.stream("/shop.Payments/Watch", sent).await.unwrap().into_inner();
        let mut told: Vec<_> = soon(stream.collect::<Vec<_>>()).await;
        let failed = end.map(|_| told.pop().unwrap().unwrap_err());
        assert_eq!(failed.as_ref().map(|status| (status.code(), status.message())), end);
        let told: Vec<_> = told.into_iter().map(|text| text.unwrap().text).collect();
        assert_eq!(told, ["0", "1", "2"]);
    }
}

#[tokio::test]
async fn unknown_methods_are_unimplemented_and_unknown_pages_are_not_found() {
    let mesh = start(payments()).await;
    let mut web = client(&mesh, WEB).await;
    // Of a known service, and of none.
    for path in ["/shop.Payments/Refund", "/shop.Orders/List"] {
        let status = web.unary(path, Request::new(text(""))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
    }
    let http = mesh.client_as(WEB, "payments").await.unwrap();
    assert_eq!(http.get("/page").send().await.unwrap().status(), 200);
    for path in ["/nowhere", "/shop.Payments/Charge"] {
        assert_eq!(http.get(path).send().await.unwrap().status(), 404, "{path}");
    }
}

const ONLY_WEB: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-web, namespace: test }
spec:
  selector: { matchLabels: { app: payments } }
  action: ALLOW
  rules:
    - from: [ { source: { principals: [ test/ns/test/sa/web ] } } ]
      to: [ { operation: { paths: [ /shop.Payments/Charge ] } } ]
";

#[tokio::test]
async fn a_denial_is_a_status_that_tells_nothing() {
    let mesh = start(payments().policy(ONLY_WEB)).await;
    let mut web = client(&mesh, WEB).await;
    assert!(web.charge("").await.is_ok());
    let denied = web.stream("/shop.Payments/Watch", "").await.unwrap_err();
    let mut batch = client(&mesh, "spiffe://test/ns/test/sa/batch").await;
    for status in [denied, batch.charge("").await.unwrap_err()] {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "forbidden"));
    }
    let outcomes: Vec<_> = mesh.audit("payments").await.unwrap().iter().map(|record| record.grpc_status).collect();
    assert_eq!(outcomes, [None, Some(7), Some(7)], "a status in trailers comes after the record");
}

const ONLY_TOKENS: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-tokens, namespace: test }
spec:
  selector: { matchLabels: { app: payments } }
  action: ALLOW
  rules:
    - from: [ { source: { requestPrincipals: [ "https://idp.test/ann" ] } } ]
"#;

#[tokio::test]
async fn a_missing_token_is_unauthenticated_and_a_good_one_makes_the_principal() {
    let issuer = TestIssuer::new("https://idp.test").unwrap();
    let mesh = start(payments().policy(ONLY_TOKENS).issuer(&issuer, "payments")).await;
    let mut web = client(&mesh, WEB).await;
    assert_eq!(web.charge("").await.unwrap_err().code(), Code::Unauthenticated);

    for (subject, expected) in [("ann", None), ("bob", Some(Code::PermissionDenied))] {
        let token = issuer.token(subject, "payments").unwrap();
        let mut request = Request::new(text(""));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let outcome = web.unary("/shop.Payments/Charge", request).await;
        assert_eq!(outcome.err().map(|status| status.code()), expected, "{subject}");
    }
}

#[tokio::test]
async fn claims_and_scopes_that_are_not_there_are_denials() {
    let issuer = TestIssuer::new("https://idp.test").unwrap();
    let routes = || mesh_tonic::router(tonic::service::Routes::new(Payments::default()));
    let bare = TestService::new("payments").grpc(move |_| Ok(routes()));
    let scoped =
        TestService::new("payments").grpc(move |_| Ok(routes().route_layer(mesh_tower::require::scope("pay"))));
    let sign = |more: &str| {
        let now = SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = format!("{{\"sub\":\"ann\",\"aud\":\"payments\",\"iat\":{now},\"exp\":{}{more}}}", now + 300);
        issuer.sign(&serde_json::from_str(&claims).unwrap()).unwrap()
    };
    let (good, other, unfit) =
        (sign(r#","scope":"pay","tenant":"t1""#), sign(r#","scope":"see","tenant":"t1""#), sign(r#","scope":"pay""#));
    let (missing, forbidden) = ((Code::Unauthenticated, "unauthenticated"), (Code::PermissionDenied, "forbidden"));
    for (service, rows) in [
        (
            bare,
            [("", Err(missing), "claims_missing"), (&*other, Ok("t1"), ""), (&*unfit, Err(forbidden), "claims_unfit")],
        ),
        (
            scoped,
            [("", Err(missing), "require_scope"), (&*other, Err(forbidden), "require_scope"), (&*good, Ok("t1"), "")],
        ),
    ] {
        let mesh = start(service.issuer(&issuer, "payments")).await;
        let mut web = client(&mesh, WEB).await;
        for (token, expected, reason) in rows {
            let mut request = Request::new(text(""));
            if !token.is_empty() {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            let found = web.unary("/shop.Payments/Tenant", request).await.map(|answer| answer.into_inner().text);
            let found = found.as_deref().map_err(|status| (status.code(), status.message()));
            assert_eq!(found, expected, "{reason}");
            let record = mesh.take_audit("payments").await.unwrap().pop().unwrap();
            let denied = record.outcome == mesh_core::audit::AuditOutcome::Deny;
            assert_eq!((denied, denied && record.reason == reason), (found.is_err(), found.is_err()), "{record:?}");
        }
    }
}

#[tokio::test]
async fn the_calls_timeout_is_the_servers_deadline() {
    let mesh = start(payments()).await;
    let mut web = client(&mesh, WEB).await;
    let mut request = Request::new(text(""));
    request.set_timeout(Duration::from_secs(7));
    let told = web.unary("/shop.Payments/Remaining", request).await.unwrap().into_inner().text;
    let remaining: u64 = told.parse().unwrap();
    assert!((1..=7_000).contains(&remaining), "{remaining} ms");

    // Over already: nothing is sent.
    let mut request = Request::new(text(""));
    request.set_timeout(Duration::ZERO);
    let status = web.unary("/shop.Payments/Remaining", request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn a_retry_sees_unavailable_in_trailers() {
    for idempotent in [true, false] {
        let web = TestService::new("web").config(move |config| {
            let mut route = RouteConfig::to("payments");
            let mut retry = RetryConfig::default();
            retry.idempotent = Some(idempotent);
            route.retry = Some(retry);
            config.routes.insert("payments".to_owned(), vec![route]);
        });
        let mesh = TestMesh::new().with(payments()).with(web).start().await.unwrap();
        let channel = Channel::from(Client::new(mesh.mesh("web").unwrap(), "payments").unwrap());
        let mut web = PaymentsClient::new(channel);
        let outcome = match web.stream("/shop.Payments/Flaky", "").await {
            Ok(stream) => soon(stream.into_inner().collect::<Vec<_>>()).await.remove(0),
            Err(status) => Err(status),
        };
        match (idempotent, outcome) {
            (true, Ok(answer)) => assert_eq!(answer.text, "now"),
            (false, Err(status)) => assert_eq!((status.code(), status.message()), (Code::Unavailable, "not yet")),
            (_, outcome) => panic!("idempotent {idempotent}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn without_the_mesh_there_is_no_principal_and_without_endpoints_the_status_is_unavailable() {
    assert_eq!(Request::new(()).principal().unwrap_err().code(), Code::Internal);
    assert_eq!(Request::new(()).claims::<Tenant>().err().map(|status| status.code()), Some(Code::Internal));

    let mesh = start(payments()).await;
    mesh.stop("payments").unwrap();
    let status = client(&mesh, WEB).await.charge("").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "upstream unavailable"));
    let source = std::error::Error::source(&status).expect("the whole story");
    assert!(source.downcast_ref::<mesh_tower::Error>().is_some(), "{source}");
}
