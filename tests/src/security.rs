//! Who and what is refused, over real sockets, and what is written down about it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt;
use mesh_core::audit::{AuditOutcome, AuditRecord};
use mesh_core::clock::SystemClock;
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_tower::test_util::{RunningTestMesh, TestIssuer, TestMesh, TestService};
use mesh_tower::{ErrorKind, Principal};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::kit::{PATIENCE, Reached, connect_as, grpc_call, h2_as, read_answer, tls};

const WEB: &str = "spiffe://test/ns/test/sa/web";
const BATCH: &str = "spiffe://test/ns/test/sa/batch";
const STRANGER: &str = "spiffe://test/ns/other/sa/stranger";
const IDP: &str = "https://idp.test";

/// `web` and `batch` may call; `batch` not `/admin`; `/paid` and `/shop.Orders/Pay` only with a token.
const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: test }
spec:
  rules:
    - from: [{ source: { principals: [test/ns/test/sa/web, test/ns/test/sa/batch] } }]
      to: [{ operation: { notPaths: [/paid, /shop.Orders/Pay] } }]
    - from: [{ source: { principals: [test/ns/test/sa/web], requestPrincipals: ["https://idp.test/*"] } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-batch, namespace: test }
spec:
  action: DENY
  rules:
    - to: [{ operation: { paths: [/never] } }]
    - from: [{ source: { principals: [test/ns/test/sa/batch] } }]
      to: [{ operation: { paths: [/admin, /shop.Orders/Admin] } }]
"#;

async fn orders(issuer: &TestIssuer) -> (RunningTestMesh, Reached) {
    let reached = Reached::default();
    let (http, grpc) = (reached.clone(), reached.clone());
    let orders = TestService::new("orders")
        .policy(POLICIES)
        .issuer(issuer, "orders")
        .app(move |_mesh| {
            let handler = move |peer: Option<Principal>| async move {
                http.note();
                format!("hello {}", peer.map(|peer| peer.to_string()).unwrap_or_default())
            };
            Ok(Router::new().fallback(handler))
        })
        .grpc(move |_mesh| {
            Ok(Router::new().fallback(move || async move {
                grpc.note();
                ([("content-type", "application/grpc"), ("grpc-status", "0")], Body::empty())
            }))
        });
    (TestMesh::new().with(orders).start().await.unwrap(), reached)
}

/// Name, caller, path, `authorization`; HTTP and gRPC status, the start of the reason, policy and rule.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Option<String>,
    (u16, &'static str),
    &'static str,
    Option<(&'static str, u32)>,
);

/// The one record that a request left.
async fn only_record(mesh: &RunningTestMesh, seen: &mut usize, name: &str) -> AuditRecord {
    let mut records = mesh.audit("orders").await.unwrap();
    assert_eq!(records.len(), *seen + 1, "{name}: {records:#?}");
    *seen += 1;
    records.pop().unwrap()
}

#[tokio::test]
async fn strangers_get_no_connection() {
    let (mesh, reached) = orders(&TestIssuer::new(IDP).unwrap()).await;
    let address = mesh.address("orders").unwrap();
    let id = SpiffeId::parse(WEB).unwrap();
    let other = |domain: &str, id: &str| {
        let ca = DevCa::in_memory(&TrustDomain::parse(domain).unwrap(), Arc::new(SystemClock)).unwrap();
        ca.issue_pem(&SpiffeId::parse(id).unwrap(), PATIENCE).unwrap()
    };
    let good = mesh.authority().issue_pem(&id, PATIENCE).unwrap();
    let foreign = [
        ("none", None, "CertificateRequired"),
        ("another authority of the same name", Some(other("test", WEB)), ""),
        ("another trust domain", Some(other("evil", "spiffe://evil/ns/test/sa/web")), ""),
    ];
    for alpn in ["h2", "http/1.1"] {
        for (name, certificate, alert) in &foreign {
            // With TLS 1.3 a client learns of its refusal at its first read.
            let refused = async {
                let mut stream = tls(address, certificate.as_ref(), alpn).await?;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await?;
                read_answer(&mut stream).await
            };
            let error = refused.await.expect_err(name).to_string();
            assert!(error.contains("received fatal alert") && error.contains(alert), "{name}, {alpn}: {error}");
        }
    }
    assert_eq!((reached.count(), mesh.audit("orders").await.unwrap()), (0, vec![]));
    // The same way in is open to who has a certificate.
    let mut stream = tls(address, Some(&good), "http/1.1").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("hello {WEB}")), "{answer}");
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_not_whom_it_calls() {
    let reached = Reached::default();
    let handler = reached.clone();
    let app = Router::new().fallback(move || async move { handler.note() });
    let web = TestService::new("web").config(|config| {
        let orders = config.clusters.get_mut("orders").unwrap();
        orders.identities = vec![SpiffeId::parse("spiffe://test/ns/test/sa/payments").unwrap()];
    });
    let mesh = TestMesh::new().service("orders", app).with(web).start().await.unwrap();
    let client = mesh_tower::Client::new(mesh.mesh("web").unwrap(), "orders").unwrap();
    let error = client.get("/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerIdentity, "{error}");
    assert!(error.to_string().contains("spiffe://test/ns/test/sa/orders"), "{error}");
    assert!(error.is_never_sent());
    assert_eq!((reached.count(), mesh.audit("orders").await.unwrap()), (0, vec![]));
    mesh.client_as(WEB, "orders").await.unwrap().get("/").send().await.unwrap().error_for_status().unwrap();
}

#[tokio::test]
async fn policy_and_tokens_decide_and_each_decision_is_one_record() {
    let (issuer, thief, stranger) =
        (TestIssuer::new(IDP).unwrap(), TestIssuer::new(IDP).unwrap(), TestIssuer::new("https://evil.test").unwrap());
    let (mesh, reached) = orders(&issuer).await;
    let bearer = |token: String| Some(format!("Bearer {token}"));
    let good = bearer(issuer.token("alice", "orders").unwrap());
    let unsigned = good.as_ref().unwrap().rsplit_once('.').map(|(head, _)| format!("{head}."));
    let ok = (200, "0");
    let rows: Vec<Row> = vec![
        ("allowed", WEB, "/", None, ok, "allow_rule", Some(("test/callers", 0))),
        ("good token", WEB, "/paid", good.clone(), ok, "allow_rule", Some(("test/callers", 1))),
        ("DENY", BATCH, "/admin", None, (403, "7"), "deny_rule", Some(("test/no-batch", 1))),
        ("DENY, with a token", BATCH, "/admin", good.clone(), (403, "7"), "deny_rule", Some(("test/no-batch", 1))),
        ("nobody allows it", STRANGER, "/", None, (403, "7"), "no_allow_rule", None),
        ("the wrong one with a token", BATCH, "/paid", good.clone(), (403, "7"), "no_allow_rule", None),
        ("no token", WEB, "/paid", None, (401, "16"), "no_allow_rule", None),
        (
            "expired",
            WEB,
            "/paid",
            bearer(issuer.expired_token("alice", "orders").unwrap()),
            (401, "16"),
            "token_expired",
            None,
        ),
        (
            "another audience",
            WEB,
            "/paid",
            bearer(issuer.token("alice", "payments").unwrap()),
            (401, "16"),
            "token_wrong_audience",
            None,
        ),
        (
            "another issuer",
            WEB,
            "/paid",
            bearer(stranger.token("alice", "orders").unwrap()),
            (401, "16"),
            "token_unknown_issuer",
            None,
        ),
        (
            "another key",
            WEB,
            "/paid",
            bearer(thief.token("alice", "orders").unwrap()),
            (401, "16"),
            "token_bad_signature",
            None,
        ),
        (
            "no end",
            WEB,
            "/paid",
            bearer(issuer.sign(&json!({ "sub": "alice", "aud": "orders" })).unwrap()),
            (401, "16"),
            "token_invalid_claim",
            None,
        ),
        ("no signature", WEB, "/paid", unsigned, (401, "16"), "token_", None),
        ("rubbish", WEB, "/paid", Some("Bearer rubbish".to_owned()), (401, "16"), "token_malformed", None),
        // A bad token is refused where none would have been asked for. (ISTIO-SECURITY-2021-001)
        ("rubbish where none is needed", WEB, "/", Some("Bearer x.y.z".to_owned()), (401, "16"), "token_", None),
    ];
    let (mut seen, mut allowed) = (0, 0);
    for (name, id, path, token, (status, code), reason, rule) in rows {
        let token = token.as_deref();
        let client = mesh.client_as(id, "orders").await.unwrap();
        let request = client.get(path);
        let request = token.into_iter().fold(request, |request, token| request.header("authorization", token));
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{name}");
        let told = format!("{:?} {}", response.headers().clone(), response.text().await.unwrap());
        let http = only_record(&mesh, &mut seen, name).await;

        let method = match path {
            "/paid" => "/shop.Orders/Pay",
            "/admin" => "/shop.Orders/Admin",
            _ => "/shop.Orders/List",
        };
        let mut sender = h2_as(&mesh, id, "orders").await;
        let token: Vec<_> = token.map(|token| ("authorization", token)).into_iter().collect();
        assert_eq!(grpc_call(&mut sender, method, &token).await, (200, Some(code.to_owned())), "{name}");
        let grpc = only_record(&mesh, &mut seen, name).await;

        for record in [&http, &grpc] {
            assert!(record.reason.starts_with(reason), "{name}: {record:?}");
            assert_eq!(record.policy.as_deref().zip(record.rule), rule, "{name}: {record:?}");
            assert_eq!(record.peer.as_deref(), Some(id), "{name}");
            let outcome = if status == 200 { AuditOutcome::Allow } else { AuditOutcome::Deny };
            assert_eq!(record.outcome, outcome, "{name}");
        }
        assert_eq!((http.status, http.grpc_status), (status, None), "{name}");
        assert_eq!((grpc.status, grpc.grpc_status), (200, Some(code.parse().unwrap())), "{name}");
        if status != 200 {
            let secrets = ["callers", "no-batch", "rule", "token_", "alice"];
            assert!(!secrets.iter().any(|secret| told.contains(secret)), "{name}: {told}");
        } else {
            allowed += 2;
        }
        assert_eq!(reached.count(), allowed, "{name}");
    }
}

/// Sends `bytes` as HTTP/1.1 over mTLS; the first status line of the answer.
async fn raw(mesh: &RunningTestMesh, bytes: &[u8]) -> String {
    let mut stream = connect_as(mesh, WEB, "orders", "http/1.1").await;
    stream.write_all(bytes).await.unwrap();
    read_answer(&mut stream).await.unwrap()
}

#[tokio::test]
async fn nobody_is_who_a_header_says() {
    let names = [
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "l5d-client-id",
        "x-mesh-principal",
        "x-envoy-original-path",
        "x-original-url",
        "client-cert",
    ];
    let app = Router::new().route(
        "/{*rest}",
        get(|headers: http::HeaderMap, peer: Principal| async move {
            let names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            format!("{peer} {}", names.join(" "))
        }),
    );
    let mesh = TestMesh::new().service("orders", app).start().await.unwrap();
    let claim = "By=spiffe://test/ns/test/sa/orders;URI=spiffe://test/ns/test/sa/root";
    let lines: String = names.iter().map(|name| format!("{name}: {claim}\r\n")).collect();
    let request = format!("GET /who HTTP/1.1\r\nhost: orders\r\nx-kept: 1\r\n{lines}connection: close, x-kept\r\n\r\n");
    let http1 = raw(&mesh, request.as_bytes()).await;

    let mut sender = h2_as(&mesh, WEB, "orders").await;
    let request = names.iter().fold(Request::get("https://orders/who"), |request, name| request.header(*name, claim));
    let request = request.header("x-kept", "1").body(Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let http2 = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    for answer in [http1, http2] {
        let body = answer.rsplit("\r\n\r\n").next().unwrap();
        assert!(body.starts_with(WEB), "{answer}");
        assert!(body.contains("x-kept"), "a caller cannot have a header removed: {answer}");
        assert!(!names.iter().any(|name| body.contains(name)), "{answer}");
    }
}
