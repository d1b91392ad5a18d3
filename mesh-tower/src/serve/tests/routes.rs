//! Policies that name the matched route.

use axum::routing::{any, get};
use mesh_core::audit::MemorySink;
use mesh_core::config::{AuditMode, AuditRoute, RateLimitConfig, RouteMatch};
use mesh_core::policy::AuthorizationPolicy;

use super::*;
use crate::fixture::mesh_of;

fn policy(action: &str, condition: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{ name: routes, namespace: shop }}
spec: {{ action: {action}, rules: [ {{ when: [ {{ key: route, {condition} }} ] }} ] }}
"
    )
}

async fn orders(
    ca: &crate::fixture::Ca,
    policy: &str,
    edit: impl FnOnce(&mut mesh_core::Config),
) -> (Mesh, MemorySink) {
    let policies = AuthorizationPolicy::from_yaml(policy).unwrap();
    let audit = MemorySink::default();
    let sink = Box::new(audit.clone());
    (mesh_of(ca, "orders", edit, |builder| builder.audit_sink(sink).policies(policies)).await, audit)
}

fn routers() -> (Router, Router) {
    let handler = || any(|| async { "handled" });
    let nested = Router::new().route("/{id}", handler());
    let whole = Router::new().route("/list", handler());
    let http = Router::new()
        .route("/orders/{id}", handler())
        .route("/admin", get(|| async { "handled" }))
        .nest("/api", nested)
        .nest_service("/whole", whole)
        .fallback(|| async { "handled" });
    let ok = || any(|| async { ([("grpc-status", HeaderValue::from_static("0"))], "handled") });
    let grpc = Router::new()
        .route("/shop.Orders/{*rest}", ok())
        .fallback(|| async { ([("grpc-status", HeaderValue::from_static("0"))], "handled") });
    (http, grpc)
}

#[tokio::test]
async fn when_route_is_judged_where_the_route_is_known() {
    const HTTP: &str = "text/plain";
    const GRPC: &str = "application/grpc";
    let all = [
        ("/orders/7", HTTP),
        ("/admin", HTTP), // 405 after policy: the route matched, its method did not
        ("/api/7", HTTP),
        ("/whole/list", HTTP),
        ("/nothing", HTTP),
        ("/shop.Orders/Get", GRPC),
        ("/shop.Orders/Drop", GRPC),
        ("/shop.Other/Get", GRPC),
        // The content type is the caller's word: it makes no method of a page.
        ("/shop.Orders/Get", HTTP),
    ];
    // What comes to its handler, of those above.
    let table: [(&str, &str, &[usize]); 9] = [
        ("ALLOW", "values: ['/orders/{id}']", &[0]),
        ("ALLOW", "values: [/admin]", &[1]),
        ("ALLOW", "values: ['/api/{id}']", &[2]),
        ("ALLOW", "values: ['/shop.Orders/Get']", &[5]),
        ("ALLOW", "values: ['/shop.Orders/*']", &[5, 6]),
        ("ALLOW", "values: ['*']", &[0, 1, 2, 5, 6]),
        ("DENY", "values: ['/orders/{id}', /shop.Orders/Drop]", &[1, 2, 5]),
        ("DENY", "notValues: ['/orders/{id}']", &[0]),
        ("DENY", "values: [/other]", &[0, 1, 2, 5, 6]),
    ];
    let ca = ca();
    for (action, condition, reached) in table {
        let (listener, address) = listener().await;
        let (orders, audit) = orders(&ca, &policy(action, condition), |_| {}).await;
        let (http, grpc) = routers();
        tokio::spawn(serve(&orders, listener, http).grpc(grpc).into_future());
        let web = mesh(&ca, "web", |_| {}).await;
        let mut client = connect(&web, address).await;
        let mut found = Vec::new();
        for (index, (path, kind)) in all.into_iter().enumerate() {
            let (status, body) = send(&mut client, path, kind, Vec::new()).await;
            if body == "handled" || status == StatusCode::METHOD_NOT_ALLOWED {
                found.push(index);
            } else if kind == HTTP {
                assert_eq!(status, StatusCode::FORBIDDEN, "{action} {condition}: {path}");
            }
        }
        assert_eq!(found, reached, "{action} {condition}");
        orders.audit().flush().await;
        let records = audit.records();
        assert_eq!(records.len(), all.len(), "one record each: {action} {condition}");
        let denied = records.iter().filter(|record| record.reason.ends_with("_rule") && record.rule.is_some());
        assert!(
            denied.clone().count() > 0 && denied.clone().all(|record| record.policy.as_deref() == Some("shop/routes"))
        );
    }
}

#[tokio::test]
async fn without_policies_that_name_a_route_everything_is_handled() {
    let (ca, (listener, address)) = (ca(), listener().await);
    let orders = mesh(&ca, "orders", |_| {}).await;
    let (http, grpc) = routers();
    tokio::spawn(serve(&orders, listener, http).grpc(grpc).into_future());
    let web = mesh(&ca, "web", |_| {}).await;
    let mut client = connect(&web, address).await;
    for path in ["/orders/7", "/api/7", "/whole/list", "/nothing"] {
        assert_eq!(send(&mut client, path, "text/plain", Vec::new()).await.1, "handled", "{path}");
    }
}

#[tokio::test]
async fn only_callers_who_may_call_spend_quota_where_policy_waits_for_the_route() {
    let (ca, (listener, address)) = (ca(), listener().await);
    let (orders, _) = orders(&ca, &policy("ALLOW", "values: ['/orders/{id}']"), |config| {
        config.limits.rate = Some(RateLimitConfig::per_second(0.001).burst(1));
    })
    .await;
    let (http, _) = routers();
    tokio::spawn(serve(&orders, listener, http).into_future());
    let web = mesh(&ca, "web", |_| {}).await;
    let mut client = connect(&web, address).await;
    for (path, status) in [("/api/7", 403), ("/nothing", 403), ("/orders/7", 200), ("/orders/7", 429), ("/api/7", 403)]
    {
        assert_eq!(send(&mut client, path, "text/plain", Vec::new()).await.0.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn a_required_record_says_what_policy_decided_in_the_router() {
    let (ca, (listener, address)) = (ca(), listener().await);
    let (orders, audit) = orders(&ca, &policy("ALLOW", "values: ['/orders/{id}']"), |config| {
        config.audit.routes = vec![AuditRoute::new(RouteMatch::default(), AuditMode::Required)];
    })
    .await;
    let (http, _) = routers();
    tokio::spawn(serve(&orders, listener, http).into_future());
    let web = mesh(&ca, "web", |_| {}).await;
    let mut client = connect(&web, address).await;
    for (path, status) in [("/orders/7", 200), ("/api/7", 403)] {
        assert_eq!(send(&mut client, path, "text/plain", Vec::new()).await.0.as_u16(), status, "{path}");
    }
    orders.audit().flush().await;
    let records = audit.records();
    let reasons: Vec<_> = records.iter().map(|record| (record.reason, record.policy.as_deref())).collect();
    assert!(reasons.contains(&("allow_rule", Some("shop/routes"))), "{reasons:?}");
    assert!(reasons.iter().all(|(reason, _)| matches!(*reason, "allow_rule" | "no_allow_rule")), "{reasons:?}");
}

#[tokio::test]
async fn over_what_is_no_router_a_policy_that_names_a_route_is_an_error() {
    let ca = ca();
    let opaque = || tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    for condition in ["values: [/admin]", "notValues: [/admin]"] {
        let (listener, _) = listener().await;
        let (orders, _) = orders(&ca, &policy("ALLOW", condition), |_| {}).await;
        let error = serve_service(&orders, listener, opaque()).await.unwrap_err();
        let ServeError::Routes(error) = error else { panic!("{error}") };
        let text = error.to_string();
        assert!(text.contains("`shop/routes` names a `route`, which only a router knows"), "{text}");
    }
}

#[tokio::test]
async fn while_what_is_no_router_is_served_no_reload_brings_a_policy_in_that_names_a_route() {
    let (ca, dir) = (ca(), tempfile::tempdir().unwrap());
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, policy("DENY", "values: [/x]").replace("key: route", "key: source.namespace")).unwrap();
    let edit = |config: &mut mesh_core::Config| {
        config.policies = vec![file.clone()];
        config.poll_interval = Duration::from_millis(50);
    };
    let orders = mesh_of(&ca, "orders", edit, |builder| builder).await;
    let routeless = orders.without_routes().unwrap();
    std::fs::write(&file, policy("DENY", "values: [/admin]")).unwrap();
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let poll = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap_or_else(|_| panic!("{what}"));
    };
    until("the reload is refused", &|| orders.reload_error().is_some()).await;
    let error = orders.reload_error().unwrap().to_string();
    assert!(error.contains("policy.yaml:1:1") && error.contains("names a `route`"), "{error}");
    assert_eq!(orders.revision().generation(), 1);
    // The control: with nothing of the kind served, the same policy is taken.
    drop(routeless);
    std::fs::write(&file, policy("DENY", "values: [/admin2]")).unwrap();
    until("the reload is taken", &|| orders.revision().generation() == 2).await;
}
