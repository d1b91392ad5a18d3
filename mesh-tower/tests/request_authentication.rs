//! Istio's `RequestAuthentication` beside an `AuthorizationPolicy`, over the served stack: files as they are, real
//! sockets, real certificates, real tokens.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_core::Mesh;
use mesh_tower::test_util::{RunningTestMesh, TestIssuer, TestMesh, TestService};
use serde_json::{Value, json};
use tempfile::TempDir;

const WEB: &str = "spiffe://test/ns/shop/sa/web";
const IDP: &str = "https://idp.example";
const EDGE: &str = "https://edge.example";

const MESH: &str = "
workload:  { name: orders, namespace: shop, labels: { app: orders } }
identity:  { trust_domain: test, source: { dev_ca: { dir: ca } } }
policies:  [ policies ]
";

/// Tokens open `/orders`; `/open` is open without one.
const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: orders, namespace: shop }
spec:
  rules:
  - from: [ { source: { requestPrincipals: ['*'] } } ]
  - to: [ { operation: { paths: [/open] } } ]
";

fn rules(idp: &TestIssuer, edge: &TestIssuer) -> String {
    let keys = |issuer: &TestIssuer| fs::read_to_string(issuer.keys()).unwrap();
    format!(
        "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{ name: idp, namespace: istio-system }}
spec:
  jwtRules:
  - issuer: {IDP}
    audiences: [orders]
    jwks: '{}'
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [ {{ header: x-user, claim: sub }} ]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{ name: edge, namespace: shop }}
spec:
  selector: {{ matchLabels: {{ app: orders }} }}
  jwtRules:
  - issuer: {EDGE}
    audiences: [orders]
    jwks: '{}'
    fromCookies: [session]
    fromHeaders: [ {{ name: x-edge, prefix: 'JWT ' }} ]
    forwardOriginalToken: true
",
        keys(idp),
        keys(edge)
    )
}

/// What the handler saw of the headers that tokens come from and claims are written to.
async fn show(headers: HeaderMap) -> String {
    let names = ["authorization", "cookie", "x-edge", "x-user", "x-payload"];
    let seen = names.into_iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    seen.map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect::<Vec<_>>().join("|")
}

async fn orders(documents: &str) -> (TempDir, RunningTestMesh) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("mesh.yaml"), MESH).unwrap();
    fs::write(dir.path().join("policies/all.yaml"), documents).unwrap();
    let app = |_: &Mesh| Ok(Router::new().route("/orders", get(show)).route("/open", get(show)));
    let orders = TestService::new("orders").config_file(dir.path().join("mesh.yaml")).app(app);
    let mesh = TestMesh::new().namespace("shop").with(orders).start().await.unwrap();
    (dir, mesh)
}

async fn send(mesh: &RunningTestMesh, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let client = mesh.client_as(WEB, "orders").await.unwrap();
    let call = headers.iter().fold(client.get(path), |call, (name, value)| call.header(*name, *value));
    let response = call.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn documents_decide_of_tokens_as_istio_says() {
    let [idp, edge, stranger] = [IDP, EDGE, "https://stranger.example"].map(|name| TestIssuer::new(name).unwrap());
    let (_dir, mesh) = orders(&format!("{POLICY}{}", rules(&idp, &edge))).await;
    let bearer = |issuer: &TestIssuer, audience: &str| format!("Bearer {}", issuer.token("ann", audience).unwrap());
    let (good, foreign) = (bearer(&idp, "orders"), bearer(&idp, "payments"));
    let (unknown, misplaced) = (bearer(&stranger, "orders"), bearer(&edge, "orders"));
    let forged = format!("Bearer {}", TestIssuer::new(IDP).unwrap().token("ann", "orders").unwrap());
    let expired = format!("Bearer {}", idp.expired_token("ann", "orders").unwrap());
    let edge_token = edge.token("bob", "orders").unwrap();
    let (cookie, header) = (format!("a=1; session={edge_token}"), format!("JWT {edge_token}"));
    let idp_cookie = format!("session={}", idp.token("ann", "orders").unwrap());
    let payload = good.split('.').nth(1).unwrap();
    let seen = format!("x-user=ann|x-payload={payload}");
    for (name, path, headers, status, body) in [
        ("a good token, taken, its claims written", "/orders", vec![("authorization", &*good)], 200, &*seen),
        ("no token, where policy wants one", "/orders", vec![], 401, ""),
        ("no token, where it does not", "/open", vec![], 200, ""),
        // A bad token is refused wherever it comes, also where none is wanted.
        ("an unknown issuer", "/open", vec![("authorization", &*unknown)], 401, ""),
        ("another audience", "/open", vec![("authorization", &*foreign)], 401, ""),
        ("another's signature", "/open", vec![("authorization", &*forged)], 401, ""),
        ("expired", "/open", vec![("authorization", &*expired)], 401, ""),
        ("not its place", "/open", vec![("authorization", &*misplaced)], 401, ""),
        ("another's place", "/open", vec![("cookie", &*idp_cookie)], 401, ""),
        ("two tokens", "/orders", vec![("authorization", &*good), ("cookie", &*cookie)], 401, ""),
        ("its cookie, forwarded", "/orders", vec![("cookie", &*cookie)], 200, &*format!("cookie={cookie}")),
        ("its header, forwarded", "/orders", vec![("x-edge", &*header)], 200, &*format!("x-edge={header}")),
        ("claims that nobody can bring", "/open", vec![("x-user", "root"), ("x-payload", "e30")], 200, ""),
        (
            "claims that nobody can bring beside a token",
            "/orders",
            vec![("authorization", &*good), ("x-user", "root"), ("x-payload", "e30")],
            200,
            &*seen,
        ),
    ] {
        let (found, text) = send(&mesh, path, &headers).await;
        assert_eq!(found, status, "{name}: {text}");
        if status == 200 {
            assert_eq!(text, body, "{name}");
        }
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(IDP), &json!("ann")));
    let reasons: Vec<_> = mesh.audit("orders").await.unwrap().into_iter().map(|record| record.reason).collect();
    for reason in ["token_unknown_issuer", "token_wrong_audience", "token_bad_signature", "token_expired"] {
        assert_eq!(reasons.iter().filter(|it| **it == reason).count(), 1, "{reason}: {reasons:?}");
    }
}

#[tokio::test]
async fn a_test_issuer_brings_its_keys_to_the_documents_of_a_service() {
    let [real, edge, test] = [IDP, EDGE, IDP].map(|name| TestIssuer::new(name).unwrap());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), MESH.replace("policies ]", "all.yaml ]")).unwrap();
    fs::write(dir.path().join("all.yaml"), format!("{POLICY}{}", rules(&real, &edge))).unwrap();
    let app = |_: &Mesh| Ok(Router::new().route("/orders", get(show)));
    let orders = TestService::new("orders").config_file(dir.path().join("mesh.yaml")).issuer(&test, "other").app(app);
    let mesh = TestMesh::new().namespace("shop").with(orders).start().await.unwrap();
    for (token, status) in [
        (test.token("ann", "orders"), 200),
        // The document's audiences hold, and its keys do not.
        (test.token("ann", "other"), 401),
        (real.token("ann", "orders"), 401),
    ] {
        let bearer = format!("Bearer {}", token.unwrap());
        assert_eq!(send(&mesh, "/orders", &[("authorization", &bearer)]).await.0, status);
    }
}
