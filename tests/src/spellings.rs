//! Characters that a client may send escaped or not: policy and audit know them by both spellings.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use http_body_util::BodyExt as _;
use mesh_core::config::{AuditMode, AuditRoute, PathMatch, RouteMatch};
use mesh_core::policy::canonical::Canonicalization;
use mesh_tower::test_util::{TestMesh, TestService};

use crate::kit::{h2_as, soon};

const WEB: &str = "spiffe://test/ns/test/sa/web";

const ALLOW: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: users, namespace: test }
spec: { rules: [ { to: [ { operation: { paths: ["/users/*", "/v1/*"] } } ] } ] }
"#;

const DENY: &str = r#"
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: not-root, namespace: test }
spec: { action: DENY, rules: [ { to: [ { operation: { paths: ["/users/root@corp", "/v1/orders:refund"] } } ] } ] }
"#;

fn app() -> Router {
    // As most routers and handlers: compared as it was sent, and decoded when it is used.
    let echo = || get(|Path(id): Path<String>| async move { id });
    Router::new().route("/users/{id}", echo()).route("/v1/{call}", echo())
}

#[tokio::test]
async fn deny_holds_for_both_spellings_of_a_character() {
    let orders = TestService::new("orders").policy(format!("{ALLOW}{DENY}")).app(|_| Ok(app()));
    let mesh = TestMesh::new().with(orders).start().await.unwrap();
    let mut sender = h2_as(&mesh, WEB, "orders").await;
    for (path, expected) in [
        ("/users/root@corp", (403, None)),
        ("/users/root%40corp", (403, None)),
        ("/v1/orders:refund", (403, None)),
        ("/v1/orders%3Arefund", (403, None)),
        ("/v1/orders%3Arefund%3Bx", (403, None)),
        ("/users/somebody%40corp", (200, Some("somebody@corp"))),
        ("/users/a%3Bb", (200, Some("a;b"))),
    ] {
        let request = http::Request::get(format!("https://orders{path}")).body(axum::body::Body::empty()).unwrap();
        let answer = soon(path, sender.send_request(request)).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = (status == 200).then(|| std::str::from_utf8(&body).unwrap());
        assert_eq!((status, seen), expected, "{path}");
    }
}

#[tokio::test]
async fn a_required_record_is_required_of_every_spelling_in_every_mode() {
    for (_, mode) in Canonicalization::ALL {
        let orders = TestService::new("orders").policy(ALLOW).app(|_| Ok(app())).config(move |config| {
            config.canonical = mode;
            let mut matches = RouteMatch::default();
            matches.path = Some(PathMatch::Exact("/v1/orders:refund".to_owned()));
            config.audit.routes = vec![AuditRoute::new(matches, AuditMode::Required)];
        });
        let mesh = TestMesh::new().with(orders).start().await.unwrap();
        let mut sender = h2_as(&mesh, WEB, "orders").await;
        for (path, required) in [
            ("/v1/orders:refund", true),
            ("/v1/orders%3Arefund", true),
            ("/v1/%6Frders%3Arefund", true),
            ("/v1/orders:charge", false),
        ] {
            let request = http::Request::get(format!("https://orders{path}")).body(axum::body::Body::empty()).unwrap();
            let answer = soon(path, sender.send_request(request)).await.unwrap();
            let status = answer.status();
            answer.into_body().collect().await.unwrap();
            if status == 400 {
                assert_eq!(mode, Canonicalization::Reject, "{path}");
                continue;
            }
            assert_eq!(status, 200, "{path} in {mode}");
            // A record that was written before the handler ran knows no status.
            let record = mesh.audit("orders").await.unwrap().pop().unwrap();
            assert_eq!(record.status == 0, required, "{path} in {mode}");
        }
    }
}
