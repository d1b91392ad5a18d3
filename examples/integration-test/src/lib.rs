//! `checkout`: takes a customer's basket and has it paid.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use mesh_tower::client::UnknownService;
use mesh_tower::{Client, Mesh, Principal, Serve, Web};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What a customer wants to pay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Basket {
    pub id: u64,
    pub cents: u64,
}

/// What `payments` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub charge: String,
}

/// The service, ready to run: what `main` awaits, and the tests.
pub fn serve(mesh: &Mesh, listener: TcpListener) -> Result<Serve<TcpListener, Web>, UnknownService> {
    let payments = Client::new(mesh, "payments")?;
    let router = Router::new().route("/checkout", post(checkout)).with_state(payments);
    Ok(mesh_tower::serve(mesh, listener, router))
}

/// Trace, deadline and caller go along to `payments` without a word here; its failure is a bare 502, 503 or 504.
async fn checkout(
    _customer: Principal,
    State(payments): State<Client>,
    Json(basket): Json<Basket>,
) -> Result<Json<Receipt>, mesh_tower::Error> {
    let key = format!("basket-{}", basket.id);
    let receipt = payments.post("/charges").idempotency_key(key).json(&basket).send().await?.json().await?;
    Ok(Json(receipt))
}
