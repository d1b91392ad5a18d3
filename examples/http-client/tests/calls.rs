//! The client with its real `mesh.yaml`, against an `orders` that misbehaves.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_client::{Order, Shop};
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, ErrorKind};

type Error = Box<dyn std::error::Error>;

/// `web` is this program, `orders` stands for the real one.
async fn mesh(orders: Router) -> Result<(RunningTestMesh, Shop), Error> {
    let web = TestService::new("web").config_file("mesh.yaml");
    let orders = TestService::new("orders").app(|_mesh| Ok(orders));
    let mesh = TestMesh::new().trust_domain("shop.example").with(web).with(orders).start().await?;
    let shop = Shop::new(Client::new(mesh.mesh("web")?, "orders")?);
    Ok((mesh, shop))
}

#[tokio::test]
async fn an_order_is_repeated_with_the_same_key() -> Result<(), Error> {
    type Keys = Arc<Mutex<Vec<String>>>;
    async fn place(
        State(keys): State<Keys>,
        headers: HeaderMap,
        Json(order): Json<Order>,
    ) -> Result<Json<Order>, StatusCode> {
        let mut keys = keys.lock().unwrap();
        keys.push(headers["idempotency-key"].to_str().unwrap().to_owned());
        if keys.len() == 1 { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(Json(order)) }
    }
    let keys = Keys::default();
    let (_mesh, shop) = mesh(Router::new().route("/orders", post(place)).with_state(keys.clone())).await?;

    assert_eq!(shop.place(7, "tea").await?.item, "tea");
    assert_eq!(*keys.lock().unwrap(), ["order-7", "order-7"]);
    Ok(())
}

#[tokio::test]
async fn a_service_that_hangs_is_tried_again_and_given_up_after_a_second() -> Result<(), Error> {
    type Calls = Arc<AtomicUsize>;
    async fn hang(State(calls): State<Calls>) {
        calls.fetch_add(1, Ordering::SeqCst);
        pending().await
    }
    let calls = Calls::default();
    let (_mesh, shop) = mesh(Router::new().route("/orders/{id}", get(hang)).with_state(calls.clone())).await?;

    assert_eq!(shop.find(7).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(calls.load(Ordering::SeqCst), 2); // one attempt may take 500 ms
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_an_error_and_is_not_repeated() -> Result<(), Error> {
    let (mesh, shop) = mesh(Router::new()).await?;

    let error = shop.find(7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status(StatusCode::NOT_FOUND));
    assert_eq!(mesh.audit("orders").await?.len(), 1);
    Ok(())
}
