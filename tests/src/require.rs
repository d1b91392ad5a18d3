//! What routes ask of their callers in code, over real sockets, with the same routes without it beside them.

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::Request;
use http_body_util::BodyExt;
use mesh_core::audit::AuditOutcome;
use mesh_core::clock::{SystemClock, WallClock as _};
use mesh_core::config::{BindingConfig, Config, PermissionConfig, SubjectsConfig};
use mesh_tower::test_util::{RunningTestMesh, TestIssuer, TestMesh, TestService};
use mesh_tower::{Claims, ClaimsRejection, require};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::kit::{Reached, grpc_call, h2_as, soon};

const WEB: &str = "spiffe://test/ns/test/sa/web";
const BATCH: &str = "spiffe://test/ns/test/sa/batch";

/// Everybody may call everything; `writer` is `web` and whoever is staff, `printer` is a machine.
fn roles(config: &mut Config) {
    let everything = || vec![PermissionConfig::default().paths(["/*"])];
    let nothing_here = || vec![PermissionConfig::default().methods(["DELETE"]).paths(["/elsewhere"])];
    config.roles.insert("everybody".to_owned(), everything());
    config.roles.insert("writer".to_owned(), nothing_here());
    config.roles.insert("printer".to_owned(), nothing_here());
    config.bindings = vec![
        BindingConfig::new("everybody", SubjectsConfig::default().identities(["spiffe://test/*"])).name("all"),
        BindingConfig::new("writer", SubjectsConfig::default().identities([WEB]).groups(["staff"])),
        BindingConfig::new("printer", SubjectsConfig::default().identities(["spiffe://test/printer"])),
    ];
}

/// The gRPC method that stands for a path.
fn method(prefix: &str, path: &str) -> String {
    let name = path.split('/').nth(1).unwrap();
    format!("/test.{}/{name}", if prefix.is_empty() { "Required" } else { "Bare" })
}

fn routes(reached: &Reached, required: bool, name: impl Fn(&str) -> String) -> Router {
    let layers = [
        ("/scope", require::scope("orders:write")),
        ("/any/{id}", require::any_scope(["orders:read", "orders:write"])),
        ("/none", require::any_scope::<String>([])),
        ("/writer", require::role("writer")),
        ("/printer", require::role("printer")),
        ("/typo", require::role("writr")),
    ];
    let mut all = Router::new();
    for (path, layer) in layers {
        let reached = reached.clone();
        let answer = move || async move {
            reached.note();
            ([("content-type", "application/grpc"), ("grpc-status", "0")], "")
        };
        let route = Router::new().route(&name(path), get(answer.clone()).post(answer));
        all = all.merge(if required { route.route_layer(layer) } else { route });
    }
    all
}

async fn start(
    issuer: &TestIssuer,
    app: impl Fn() -> Router + Send + Sync + 'static,
    grpc: impl Fn() -> Router + Send + Sync + 'static,
) -> RunningTestMesh {
    let orders = TestService::new("orders").app(move |_| Ok(app())).grpc(move |_| Ok(grpc()));
    let orders = orders.issuer(issuer, "orders").config(roles);
    TestMesh::new().with(orders).start().await.unwrap()
}

/// A token of ann with more claims.
fn token(issuer: &TestIssuer, more: &Value) -> String {
    let now = SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "sub": "ann", "aud": "orders", "iat": now, "exp": now + 300 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    issuer.sign(&claims).unwrap()
}

/// How often this reason was counted as a denial, by whatever.
fn denials(mesh: &RunningTestMesh, reason: &str) -> u64 {
    let metrics = mesh.mesh("orders").unwrap().metrics().encode();
    let lines = metrics.lines().filter(|line| line.starts_with("mesh_server_denied_total"));
    let lines = lines.filter(|line| line.contains(&format!("reason=\"{reason}\"")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_route_asks_for_scopes_and_roles() {
    let issuer = TestIssuer::new("https://idp.test").unwrap();
    let reached = Reached::default();
    let seen = reached.clone();
    let app = move || {
        routes(&seen, true, str::to_owned).merge(Router::new().nest("/bare", routes(&seen, false, str::to_owned)))
    };
    let seen = reached.clone();
    let grpc = move || {
        let bare = routes(&seen, false, |path| method("/bare", path));
        routes(&seen, true, |path| method("", path)).merge(bare)
    };
    let mesh = start(&issuer, app, grpc).await;
    let write = token(&issuer, &json!({ "scope": "orders:write other" }));
    let read = token(&issuer, &json!({ "scp": ["orders:read"], "groups": "staff" }));
    let plain = token(&issuer, &json!({ "scope": "orders:writer orders", "scopes": "orders:write" }));
    let (scope, role) = ("require_scope", "require_role");
    // Caller, token, path, status, reason, what asked.
    type Row<'a> = (&'a str, &'a str, &'a str, u16, &'a str, &'a str);
    let rows: &[Row<'_>] = &[
        (WEB, &write, "/scope", 200, "", ""),
        (WEB, &read, "/scope", 403, scope, "require::scope(orders:write)"),
        (WEB, &plain, "/scope", 403, scope, "require::scope(orders:write)"),
        (WEB, "", "/scope", 401, scope, "require::scope(orders:write)"),
        (BATCH, &write, "/any/7", 200, "", ""),
        (BATCH, &read, "/any/7", 200, "", ""),
        (BATCH, &plain, "/any/7", 403, scope, "require::any_scope(orders:read, orders:write)"),
        (BATCH, "", "/any/7", 401, scope, "require::any_scope(orders:read, orders:write)"),
        (WEB, &write, "/none", 403, scope, "require::any_scope()"),
        (WEB, "", "/none", 403, scope, "require::any_scope()"),
        (WEB, "", "/writer", 200, "", ""),
        (WEB, &plain, "/writer", 200, "", ""),
        (BATCH, &read, "/writer", 200, "", ""),
        (BATCH, &write, "/writer", 403, role, "require::role(writer)"),
        // A token could make a writer of anybody, a printer of nobody.
        (BATCH, "", "/writer", 401, role, "require::role(writer)"),
        (BATCH, "", "/printer", 403, role, "require::role(printer)"),
        (WEB, &write, "/typo", 403, role, "require::role(writr)"),
        (WEB, "", "/typo", 403, role, "require::role(writr)"),
    ];
    let (mut denied, mut allowed) = ([0, 0], 0);
    for (caller, token, path, status, reason, asked) in rows {
        let mut sender = h2_as(&mesh, caller, "orders").await;
        let bearer = format!("Bearer {token}");
        let headers: Vec<(&'static str, &str)> =
            if token.is_empty() { vec![] } else { vec![("authorization", bearer.as_str())] };
        for (prefix, status) in [("", *status), ("/bare", 200)] {
            let name = format!("{caller} {prefix}{path} {status}");
            let mut request = Request::get(format!("https://orders{prefix}{path}"));
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let response = soon(&name, sender.send_request(request.body(Body::empty()).unwrap())).await.unwrap();
            assert_eq!(response.status(), status, "{name}");
            let challenged = response.headers().contains_key("www-authenticate");
            let told = response.into_body().collect().await.unwrap().to_bytes();
            let expected = match status {
                401 => ("unauthenticated", true),
                403 => ("forbidden", false),
                _ => ("", false),
            };
            assert_eq!((&*told, challenged), (expected.0.as_bytes(), expected.1), "{name}");
            // The same of gRPC: one status for each.
            let grpc = grpc_call(&mut sender, &method(prefix, path), &headers).await;
            let code = match status {
                401 => "16",
                403 => "7",
                _ => "0",
            };
            assert_eq!(grpc, (200, Some(code.to_owned())), "{name}");

            let records = mesh.take_audit("orders").await.unwrap();
            assert_eq!(records.len(), 2, "{name}: {records:?}");
            let routes = [format!("{prefix}{}", path.replace('7', "{id}")), method(prefix, path)];
            for (record, route) in records.iter().zip(&routes) {
                assert_eq!(record.route.as_deref(), Some(&**route), "{name}");
                let found = (record.outcome, record.reason, record.policy.as_deref(), record.rule);
                if status == 200 {
                    assert_eq!(found, (AuditOutcome::Allow, "allow_rule", Some("test/role:everybody/all"), Some(0)));
                } else {
                    assert_eq!(found, (AuditOutcome::Deny, *reason, Some(*asked), None), "{name}");
                    denied[usize::from(*reason == role)] += 1;
                }
            }
            allowed += if status == 200 { 2 } else { 0 };
        }
    }
    assert_eq!([denials(&mesh, scope), denials(&mesh, role)], denied, "each once");
    assert_eq!(reached.count(), allowed);
}

#[derive(Debug, PartialEq, Deserialize)]
struct Tenant {
    sub: String,
    tenant: u64,
}

#[tokio::test]
async fn claims_are_those_of_the_verified_token_or_nothing() {
    let issuer = TestIssuer::new("https://idp.test").unwrap();
    let stranger = TestIssuer::new("https://idp.test").unwrap();
    let app = || {
        let one = |Claims(tenant): Claims<Tenant>| async move { format!("{} {}", tenant.sub, tenant.tenant) };
        let maybe = |claims: Option<Claims<Tenant>>| async move { format!("{:?}", claims.map(|it| it.0.tenant)) };
        let caught = |claims: Result<Claims<Tenant>, ClaimsRejection>| async move {
            claims.map_or_else(|no| no.reason().to_owned(), |it| it.0.sub)
        };
        let any = |Claims(all): Claims<Value>| async move { Json(all["tenant"].clone()) };
        Router::new()
            .route("/one", get(one))
            .route("/maybe", get(maybe))
            .route("/caught", get(caught))
            .route("/any", get(any))
    };
    let mesh = start(&issuer, app, Router::new).await;
    let fits = token(&issuer, &json!({ "tenant": 7, "more": [1] }));
    let unfit = token(&issuer, &json!({ "tenant": "secret" }));
    let forged = token(&stranger, &json!({ "tenant": 8 }));
    let mut sender = h2_as(&mesh, WEB, "orders").await;
    for (sent, path, status, told, reason) in [
        (&*fits, "/one", 200, "ann 7", ""),
        (&*fits, "/maybe", 200, "Some(7)", ""),
        (&*fits, "/caught", 200, "ann", ""),
        (&*fits, "/any", 200, "7", ""),
        ("", "/one", 401, "unauthenticated", "claims_missing"),
        ("", "/maybe", 200, "None", ""),
        ("", "/caught", 200, "claims_missing", ""),
        (&*unfit, "/one", 403, "forbidden", "claims_unfit"),
        (&*unfit, "/maybe", 403, "forbidden", "claims_unfit"),
        (&*unfit, "/caught", 200, "claims_unfit", ""),
        (&*unfit, "/any", 200, "\"secret\"", ""),
        // Nobody vouches for it: it never comes as far as a handler.
        (&*forged, "/maybe", 401, "unauthenticated", "token_signature"),
    ] {
        // A name that some other framework would believe.
        let mut request = Request::get(format!("https://orders{path}")).header("x-jwt-payload", "{\"tenant\":9}");
        if !sent.is_empty() {
            request = request.header("authorization", format!("Bearer {sent}"));
        }
        let response = soon(path, sender.send_request(request.body(Body::empty()).unwrap())).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), told, "{path}");
        let record = mesh.take_audit("orders").await.unwrap().pop().unwrap();
        let outcome = if status == 200 { AuditOutcome::Allow } else { AuditOutcome::Deny };
        assert_eq!(record.outcome, outcome, "{path}: {record:?}");
        if reason.starts_with("claims") {
            assert_eq!(record.reason, reason, "{path}");
            let policy = record.policy.unwrap();
            assert!(policy.starts_with("Claims<") && policy.ends_with("::Tenant>"), "{policy}");
        }
    }
    assert_eq!((denials(&mesh, "claims_missing"), denials(&mesh, "claims_unfit")), (1, 2));
}

/// Without the stack there is nobody who could have proved anything.
#[tokio::test]
async fn alone_they_let_nobody_through() {
    let reached = Reached::default();
    let note = reached.clone();
    let claims = |_: Option<Claims<Value>>| async {};
    let app = routes(&reached, true, str::to_owned)
        .route("/claims", post(claims))
        .route("/bare", get(move || async move { note.note() }));
    for path in ["/scope", "/any/7", "/none", "/writer", "/printer", "/typo", "/claims"] {
        let mut request = Request::post(path).header("authorization", "Bearer a.b.c");
        request = request.header("x-mesh-principal", WEB);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.into_response();
        assert_eq!(response.status(), 500, "{path}");
    }
    assert_eq!(reached.count(), 0);
    let response = app.oneshot(Request::get("/bare").body(Body::empty()).unwrap()).await.into_response();
    assert_eq!((response.status().as_u16(), reached.count()), (200, 1));
}
