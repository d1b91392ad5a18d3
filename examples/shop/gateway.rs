//! `gateway`: the shop's front door, an axum service that calls another.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use mesh_tower::{Client, Mesh, Principal};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Error;
use crate::orders::Placed;
use crate::seen::Seen;

/// What a customer orders.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) cents: u64,
}

/// What the customer hears: who saw whom on the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) charge_id: String,
    pub(crate) way: Vec<Seen>,
}

pub(crate) async fn serve(
    mesh: &Mesh,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let orders = Client::new(mesh, "orders")?;
    let router = Router::new().route("/orders", post(place)).with_state(orders);
    mesh_tower::serve(mesh, listener, router).with_graceful_shutdown(stop).await?;
    Ok(())
}

async fn place(
    peer: Principal,
    State(orders): State<Client>,
    Json(order): Json<Order>,
) -> Result<Json<Receipt>, mesh_tower::Error> {
    let seen = Seen::here("gateway", Some(&peer));
    let placed: Placed = orders.post("/orders").json(&order).send().await?.json().await?;
    let way = [vec![seen], placed.way].concat();
    Ok(Json(Receipt { charge_id: placed.charge_id, way }))
}
