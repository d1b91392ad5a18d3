//! The service with its real `mesh.yaml` and policies: real certificates, real sockets.

use axum::http::StatusCode;
use axum_service::Order;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

async fn shop() -> std::result::Result<RunningTestMesh, Box<dyn std::error::Error>> {
    let orders = TestService::new("orders").config_file("mesh.yaml").app(|_mesh| Ok(axum_service::router()));
    Ok(TestMesh::new().trust_domain("shop.example").with(orders).start().await?)
}

#[tokio::test]
async fn web_places_an_order_in_its_own_name() -> Result {
    let shop = shop().await?;
    let web = shop.client_as("spiffe://shop.example/ns/shop/sa/web", "orders").await?;

    let order = Order { id: 7, item: "tea".into(), placed_by: "somebody else".into() };
    web.post("/orders").json(&order).send().await?.error_for_status()?;

    let order: Order = web.get("/orders/7").send().await?.json().await?;
    assert_eq!(order.placed_by, "spiffe://shop.example/ns/shop/sa/web");
    Ok(())
}

#[tokio::test]
async fn support_may_only_look() -> Result {
    let shop = shop().await?;
    let support = shop.client_as("spiffe://shop.example/ns/support/sa/desk", "orders").await?;

    assert_eq!(support.get("/orders/7").send().await?.status(), StatusCode::NOT_FOUND);
    let order = Order { id: 7, item: "tea".into(), placed_by: String::new() };
    assert_eq!(support.post("/orders").json(&order).send().await?.status(), StatusCode::FORBIDDEN);

    // Everyone gets the same bare 403; why stands in the audit record.
    let records = shop.audit("orders").await?;
    let [allowed, denied] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((allowed.reason, allowed.policy.as_deref()), ("allow_rule", Some("shop/orders-callers")));
    assert_eq!(allowed.rule, Some(1));
    assert_eq!((denied.reason, denied.policy.as_deref()), ("no_allow_rule", None));
    Ok(())
}

#[tokio::test]
async fn the_audit_names_the_policy_and_the_rule_that_deny() -> Result {
    let shop = shop().await?;
    let lab = shop.client_as("spiffe://shop.example/ns/lab/sa/web", "orders").await?;

    assert_eq!(lab.get("/orders/7").send().await?.status(), StatusCode::FORBIDDEN);

    let records = shop.audit("orders").await?;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].peer.as_deref(), Some("spiffe://shop.example/ns/lab/sa/web"));
    assert_eq!((records[0].reason, records[0].rule), ("deny_rule", Some(0)));
    assert_eq!(records[0].policy.as_deref(), Some("shop/no-experiments"));
    Ok(())
}
