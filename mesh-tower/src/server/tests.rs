//! The layers alone, in any order, and together.

mod permits;
mod places;
mod wiring;

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::routing::get;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_core::audit::{AuditOutcome, AuditRecord, MemorySink};
use mesh_core::config::{Errors, ListenerConfig, Mtls};
use mesh_core::identity::{Peer, SpiffeId, TrustDomain, VerifiedSvid};
use mesh_core::policy::{EngineOptions, PolicyEngine, parse_documents};
use mesh_core::{Mesh, MeshBuilder, Revision};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

mod audited;
mod custom;
mod forwarded;
mod tokens;

use super::*;
use crate::context::{self, RequestContext};
use crate::grpc::{self, Code};
use crate::{Connection, Principal};

const WEB: &str = "spiffe://test.example/ns/shop/sa/web";
const BATCH: &str = "spiffe://test.example/ns/shop/sa/batch";
const ALLOW_WEB: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  rules:
    - from: [{ source: { principals: [test.example/ns/shop/sa/web] } }]
"#;
const ALLOW_BATCH: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  rules:
    - from: [{ source: { principals: [test.example/ns/shop/sa/batch] } }]
"#;

/// A mesh with a policy that lets in `web`, and a memory of its audit records.
struct Kit {
    mesh: Mesh,
    audit: MemorySink,
    _dir: tempfile::TempDir,
}

impl Kit {
    async fn new(more: &str) -> Self {
        Self::with_keys(more, "").await
    }

    /// With a key set in `keys.json`.
    async fn with_keys(more: &str, keys: &str) -> Self {
        Self::built(more, keys, |builder| builder).await
    }

    /// With what `build` tells its builder.
    async fn built(more: &str, keys: &str, build: impl FnOnce(MeshBuilder) -> MeshBuilder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("keys.json"), keys).unwrap();
        let config = format!(
            "workload: {{ name: orders, namespace: shop }}\n\
             identity: {{ trust_domain: test.example, source: {{ dev_ca: {{ dir: ca }} }} }}\n\
             policies: [policy.yaml]\n{more}\n"
        );
        std::fs::write(dir.path().join("mesh.yaml"), config).unwrap();
        std::fs::write(dir.path().join("policy.yaml"), ALLOW_WEB).unwrap();
        let audit = MemorySink::default();
        let builder = Mesh::builder().config_file(dir.path().join("mesh.yaml")).audit_sink(Box::new(audit.clone()));
        Self { mesh: build(builder).start().await.unwrap(), audit, _dir: dir }
    }

    /// Makes the listener permissive until then, keeping what else it is.
    fn permissive(&self, until: SystemTime) {
        let now = self.mesh.revision().load();
        let mut config = (*now.config).clone();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = config.listeners.entry("default".to_owned()).or_insert_with(|| ListenerConfig::new(address));
        listener.mtls = Mtls::Permissive { until };
        self.mesh.revision().publish(Revision { config: Arc::new(config), ..now.value().clone() });
    }

    fn publish(&self, policy: &str) {
        let mut errors = Errors::default();
        let documents = parse_documents("p.yaml", policy, &mut errors);
        assert!(errors.is_empty());
        let options = EngineOptions::new(TrustDomain::parse("test.example").unwrap());
        let engine = PolicyEngine::compile(&documents, self.mesh.workload(), &options);
        let now = self.mesh.revision().load();
        self.mesh.revision().publish(Revision { policy: Arc::new(engine), ..now.value().clone() });
    }

    async fn records(&self) -> Vec<AuditRecord> {
        self.mesh.audit().flush().await;
        self.audit.records()
    }

    /// The value of a metric line that starts with `name`.
    fn metric(&self, name: &str) -> Option<String> {
        let text = self.mesh.metrics().encode();
        text.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    }
}

fn connection(id: &str) -> Arc<Connection> {
    let svid = VerifiedSvid {
        id: SpiffeId::parse(id).unwrap(),
        not_after: SystemTime::UNIX_EPOCH,
        serial: "7f".to_owned(),
        fingerprint: [0; 32],
    };
    Connection::for_test(Peer { address: SocketAddr::from(([192, 0, 2, 1], 5)), svid: Some(Arc::new(svid)) })
}

/// `POST https://orders/PATH` of `id`.
fn request(id: &str, path: &str) -> Request<Body> {
    let request = Request::post(format!("https://orders{path}")).extension(connection(id));
    request.body(Body::empty()).unwrap()
}

fn with(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

fn grpc(request: Request<Body>) -> Request<Body> {
    with(request, "content-type", "application/grpc")
}

fn ok(
    called: &Arc<AtomicUsize>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + use<> {
    let called = Arc::clone(called);
    service_fn(move |_| {
        called.fetch_add(1, Ordering::Relaxed);
        async { Ok(Response::new(Body::from("ok"))) }
    })
}

#[tokio::test]
async fn an_allowed_request_reaches_its_handler_with_identity_and_context() {
    let kit = Kit::new("").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let handler = service_fn(|request: Request<Body>| async move {
        let principal = request.extensions().get::<Principal>().unwrap().to_string();
        assert!(!request.headers().contains_key("x-mesh-principal"));
        let context = RequestContext::current().unwrap();
        let remaining = context.deadline().unwrap().remaining(Instant::now());
        assert!(remaining > Duration::from_millis(1500) && remaining <= Duration::from_secs(2));
        assert_eq!(context.caller().unwrap().as_str(), WEB);
        // The body is polled after the handler has returned, here and in a task of its own.
        let body = StreamBody::new(futures_util::stream::once(async move {
            let here = RequestContext::current().unwrap().trace().trace_id_hex();
            let task = context::spawn(async { RequestContext::current().unwrap().trace().trace_id_hex() });
            let text = format!("{principal} {here} {}", task.await.unwrap());
            Ok::<_, Infallible>(http_body::Frame::data(text.into()))
        }));
        Ok(Response::new(Body::new(body)))
    });
    let request = with(with(request(WEB, "/a?b=c"), "traceparent", parent), "grpc-timeout", "2S");
    let request = with(request, "x-mesh-principal", "root");
    let response = stack(&kit.mesh, handler).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(kit.metric("mesh_server_requests_in_flight").as_deref(), Some("1"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(body, format!("{WEB} {trace} {trace}"));
    assert_eq!(kit.metric("mesh_server_requests_in_flight").as_deref(), Some("0"));
    let count = r#"mesh_server_request_duration_seconds_count{method="POST",route="-",status="2xx",grpc_status="-"}"#;
    assert_eq!(kit.metric(count).as_deref(), Some("1"));

    let records = kit.records().await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.outcome, record.reason, record.status), (AuditOutcome::Allow, "allow_rule", 200));
    assert_eq!((record.policy.as_deref(), record.rule), (Some("shop/callers"), Some(0)));
    assert_eq!((record.peer.as_deref(), record.peer_serial.as_deref()), (Some(WEB), Some("7f")));
    assert_eq!((record.method.as_str(), record.host.as_str(), record.path.as_str()), ("POST", "orders", "/a"));
    assert_eq!(record.trace_id.as_deref(), Some(trace));
    assert_eq!(record.service.as_deref(), Some("spiffe://test.example/ns/shop/sa/orders"));
}

#[tokio::test]
async fn each_refusal_is_recorded_once_and_never_reaches_the_handler() {
    let kit = Kit::new("").await;
    let called = Arc::new(AtomicUsize::new(0));
    let mut seen = 0;
    use AuditOutcome::{Deny, Reject};
    for (name, request, status, code, outcome, reason) in [
        ("policy", request(BATCH, "/S/M"), 403, 7, Deny, "no_allow_rule"),
        ("path", request(WEB, "/S/../M"), 400, 12, Reject, "path_dot_segment"),
        ("bad token", with(request(WEB, "/S/M"), "authorization", "Bearer a.b"), 401, 16, Deny, "token_"),
        ("expired", with(request(WEB, "/S/M"), "grpc-timeout", "0n"), 504, 4, Reject, "deadline_exceeded"),
        (
            "expired HTTP",
            with(request(WEB, "/S/M"), "x-envoy-expected-rq-timeout-ms", "0"),
            504,
            4,
            Reject,
            "deadline_exceeded",
        ),
        ("timeout", with(request(WEB, "/S/M"), "grpc-timeout", "x"), 400, 12, Reject, "timeout"),
        ("body", too_large(request(WEB, "/S/M")), 413, 8, Reject, "body_too_large"),
    ] {
        for is_grpc in [false, true] {
            let (parts, _) = request.clone_head();
            let request = Request::from_parts(parts, Body::empty());
            let request = if is_grpc { grpc(request) } else { request };
            let response = stack(&kit.mesh, ok(&called)).oneshot(request).await.unwrap();
            let grpc_status = grpc::status(response.headers());
            if is_grpc {
                assert_eq!((response.status().as_u16(), grpc_status), (200, Some(Code(code))), "{name}");
            } else {
                assert_eq!((response.status().as_u16(), grpc_status), (status, None), "{name}");
            }
            let told = format!("{:?} {:?}", response.headers().clone(), response.into_body().collect().await);
            assert!(!told.contains("callers") && !told.contains(reason), "{name}: {told}");
            seen += 1;
            let records = kit.records().await;
            assert_eq!(records.len(), seen, "{name}");
            let record = records.last().unwrap();
            assert_eq!(record.outcome, outcome, "{name}");
            assert!(record.reason.starts_with(reason), "{name}: {}", record.reason);
            assert_eq!(record.grpc_status, is_grpc.then_some(code), "{name}");
        }
    }
    assert_eq!(called.load(Ordering::Relaxed), 0);
    let denied = r#"mesh_server_denied_total{policy="-",rule="-1",reason="no_allow_rule"}"#;
    assert_eq!(kit.metric(denied).as_deref(), Some("2"));
    let rejected = r#"mesh_server_rejected_total{reason="path_dot_segment"}"#;
    assert_eq!(kit.metric(rejected).as_deref(), Some("2"));
}

/// As the edge of a connection marks it.
fn too_large(mut request: Request<Body>) -> Request<Body> {
    let fate = Arc::new(crate::connection::Fate::default());
    fate.set(crate::connection::Unfit::BodyTooLarge);
    request.extensions_mut().insert(fate);
    request
}

#[tokio::test(start_paused = true)]
async fn a_newer_policy_cuts_open_streams_and_refuses_the_next_request() {
    let kit = Kit::new("").await;
    let (frames, received) = mpsc::channel::<&'static str>(4);
    let received = Arc::new(Mutex::new(Some(received)));
    let handler = service_fn(move |_| {
        let receiver = received.lock().unwrap().take();
        async move {
            let frames = futures_util::stream::unfold(receiver, |receiver| async {
                let mut receiver = receiver?;
                let text = receiver.recv().await?;
                Some((Ok::<_, Infallible>(http_body::Frame::data(text.into())), Some(receiver)))
            });
            Ok(Response::new(Body::new(StreamBody::new(frames))))
        }
    });
    let mut service = stack(&kit.mesh, handler);
    let mut body = service.ready().await.unwrap().call(grpc(request(WEB, "/S/M"))).await.unwrap().into_body();
    let mut next = async |text| {
        frames.send(text).await.unwrap();
        body.frame().await.unwrap().unwrap()
    };
    assert_eq!(next("a").await.into_data().unwrap(), "a");
    // A policy that still allows it renews the permit.
    kit.publish(ALLOW_WEB);
    assert_eq!(next("b").await.into_data().unwrap(), "b");
    // The stream waits in silence and must be woken.
    let quiet = tokio::spawn(async move { body.frame().await });
    sleep(Duration::from_secs(1)).await;
    assert!(!quiet.is_finished());
    kit.publish(ALLOW_BATCH);
    let cut = quiet.await.unwrap().unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(grpc::status(&cut), Some(Code::PERMISSION_DENIED));
    assert_eq!(kit.metric("mesh_server_streams_revoked_total").as_deref(), Some("1"));
    let response = service.ready().await.unwrap().call(request(WEB, "/a")).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(kit.records().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_newer_policy_drops_a_handler_that_still_reads_but_not_one_that_has_all() {
    let kit = Kit::new("").await;
    let handler = service_fn(|request: Request<Body>| async {
        let _ = tokio::time::timeout(Duration::from_secs(5), request.into_body().collect()).await;
        sleep(Duration::from_secs(5)).await;
        Ok(Response::new(Body::empty()))
    });
    let endless =
        StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>());
    let streaming = request(WEB, "/a").map(|_| Body::new(endless));
    let complete = request(WEB, "/a").map(|_| Body::new(Full::new(bytes::Bytes::from("all"))));
    let send = |request| tokio::spawn(stack(&kit.mesh, handler).oneshot(request));
    let (streaming, complete) = (send(streaming), send(complete));
    sleep(Duration::from_secs(1)).await;
    kit.publish(ALLOW_BATCH);
    let start = Instant::now();
    assert_eq!(streaming.await.unwrap().unwrap().status(), 403);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(complete.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn panics_are_answered_and_counted() {
    let kit = Kit::new("").await;
    let handler = service_fn(|request: Request<Body>| async move {
        assert_ne!(request.uri().path(), "/now", "a panic that this test provokes");
        let body = StreamBody::new(futures_util::stream::poll_fn(
            |_| -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
                panic!("another panic that this test provokes")
            },
        ));
        Ok(Response::new(Body::new(body)))
    });
    let service = stack(&kit.mesh, handler);
    let response = service.clone().oneshot(request(WEB, "/now")).await.unwrap();
    assert_eq!(response.status(), 500);
    let response = service.clone().oneshot(request(WEB, "/later")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(kit.metric("mesh_server_panics_total").as_deref(), Some("2"));
    let statuses: Vec<_> = kit.records().await.iter().map(|record| (record.status, record.reason)).collect();
    assert_eq!(statuses, [(500, "panic"), (200, "allow_rule")]);
}

#[tokio::test]
async fn a_token_completes_the_principal_and_is_taken_from_the_request() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let x = encode(rcgen::PublicKeyData::der_bytes(&key));
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","use":"sig","x":"{x}"}}]}}"#);
    let config = r#"tokens: [{ issuer: "https://idp.example", audiences: [orders], jwks: { file: keys.json } }]"#;
    let kit = Kit::with_keys(config, &keys).await;
    let needs_token = ALLOW_WEB.replace("} }]", "requestPrincipals: ['https://idp.example/ann'] } }]");
    kit.publish(&needs_token.replace("web]", "web],"));
    let now = kit.mesh.clock().now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let bearer = |audience: &str, expires: u64| {
        let claims = format!(r#"{{"iss":"https://idp.example","sub":"ann","aud":"{audience}","exp":{expires}}}"#);
        let signed = format!("{}.{}", encode(br#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#), encode(claims.as_bytes()));
        let signature = rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", encode(&signature))
    };
    let handler = service_fn(|request: Request<Body>| async move {
        assert!(!request.headers().contains_key("authorization"));
        let principal = request.extensions().get::<Principal>().unwrap();
        let subject = principal.token.as_ref().and_then(|token| token.subject.clone());
        Ok(Response::new(Body::from(format!("{principal} for {}", subject.unwrap()))))
    });
    let send = async |token: Option<String>| {
        let mut request = request(WEB, "/a");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", token.parse().unwrap());
        }
        stack(&kit.mesh, handler).oneshot(request).await.unwrap()
    };
    let response = send(Some(bearer("orders", now + 60))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), format!("{WEB} for ann"));
    for token in [None, Some(bearer("payments", now + 60)), Some(bearer("orders", now - 60))] {
        assert_eq!(send(token).await.status(), 401);
    }
    let records = kit.records().await;
    let subjects: Vec<_> = records.iter().map(|record| record.token_subject_hmac.is_some()).collect();
    assert_eq!(subjects, [true, false, false, false]);
    assert!(!kit.audit.lines().concat().contains("\"ann\""), "by default nobody is named");
    assert!(records.iter().skip(1).all(|record| record.outcome == AuditOutcome::Deny));

    // Over plaintext a token still says who is asking, and nothing else: `principals` is for certificates.
    kit.permissive(kit.mesh.clock().now() + Duration::from_secs(3600));
    let over_plaintext = async || {
        let mut request = request(WEB, "/a");
        let address = SocketAddr::from(([192, 0, 2, 1], 5));
        request.extensions_mut().insert(Connection::for_test(Peer { address, svid: None }));
        request.headers_mut().insert("authorization", bearer("orders", now + 60).parse().unwrap());
        stack(&kit.mesh, handler).oneshot(request).await.unwrap()
    };
    assert_eq!(over_plaintext().await.status(), 403);
    kit.publish(
        &needs_token
            .replace("principals: [test.example/ns/shop/sa/web], ", "")
            .replace("principals: [test.example/ns/shop/sa/web]", ""),
    );
    let response = over_plaintext().await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "https://idp.example/ann for ann");
}

#[tokio::test]
async fn no_plaintext_request_begins_after_its_listener_became_strict() {
    let kit = Kit::new("").await;
    kit.publish(&ALLOW_WEB.replace("{ principals: [test.example/ns/shop/sa/web] }", "{ notPrincipals: [td/x] }"));
    let plaintext = |path| {
        let mut request = request(WEB, path);
        let address = SocketAddr::from(([192, 0, 2, 1], 5));
        request.extensions_mut().insert(Connection::for_test(Peer { address, svid: None }));
        request
    };
    let called = Arc::new(AtomicUsize::new(0));
    let (now, hour) = (kit.mesh.clock().now(), Duration::from_secs(3600));
    for (until, status, reason) in [(now + hour, 200, "allow_rule"), (now, 403, "permissive_ended")] {
        kit.permissive(until);
        let response = stack(&kit.mesh, ok(&called)).oneshot(plaintext("/a")).await.unwrap();
        assert_eq!(response.status(), status, "{reason}");
        drop(response);
        let call = grpc(plaintext("/S/M"));
        let response = stack(&kit.mesh, ok(&called)).oneshot(call).await.unwrap();
        let refused = (status == 403).then_some(Code::PERMISSION_DENIED);
        assert_eq!(
            grpc::status(response.headers()).filter(|code| *code == Code::PERMISSION_DENIED),
            refused,
            "{reason}"
        );
        drop(response);
        // Whoever came with a certificate is let in all the time.
        assert_eq!(stack(&kit.mesh, ok(&called)).oneshot(request(WEB, "/a")).await.unwrap().status(), 200, "{reason}");
        let records = kit.records().await;
        assert!(records.iter().rev().any(|record| record.peer.is_none() && record.reason == reason), "{records:?}");
    }
    assert_eq!(called.load(Ordering::SeqCst), 4);
    assert_eq!(kit.metric("mesh_server_rejected_total{reason=\"permissive_ended\"}").as_deref(), Some("2"));
}

#[tokio::test]
async fn the_matched_route_reaches_labels_and_records() {
    let kit = Kit::new("").await;
    let show = async |peer: Option<Principal>| peer.map(|peer| peer.to_string()).unwrap_or_default();
    let router = axum::Router::new().route("/orders/{id}", axum::routing::post(show)).layer(RouteLayer);
    let service = stack(&kit.mesh, router);
    let response = service.clone().oneshot(request(WEB, "/orders/7")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), WEB);
    let missing = service.oneshot(request(WEB, "/attack/7")).await.unwrap();
    assert_eq!(missing.status(), 404);
    drop(missing);
    let routes: Vec<_> = kit.records().await.into_iter().map(|record| record.route).collect();
    assert_eq!(routes, [Some("/orders/{id}".into()), None]);
    for (route, status) in [("/orders/{id}", "2xx"), ("-", "4xx")] {
        let count = format!(
            r#"mesh_server_request_duration_seconds_count{{method="POST",route="{route}",status="{status}",grpc_status="-"}}"#
        );
        assert_eq!(kit.metric(&count).as_deref(), Some("1"));
    }
}

trait CloneHead {
    fn clone_head(&self) -> (http::request::Parts, ());
}

impl CloneHead for Request<Body> {
    fn clone_head(&self) -> (http::request::Parts, ()) {
        let mut head = Request::new(());
        *head.method_mut() = self.method().clone();
        *head.uri_mut() = self.uri().clone();
        *head.headers_mut() = self.headers().clone();
        *head.extensions_mut() = self.extensions().clone();
        head.into_parts()
    }
}
