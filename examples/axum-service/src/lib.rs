//! Orders that are taken and shown. An ordinary axum application, but for [`Principal`]: who calls, proven.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use mesh_tower::Principal;
use serde::{Deserialize, Serialize};

/// What is ordered, and for whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
    pub item: String,
    /// The caller's SPIFFE ID; whatever the caller writes here is replaced.
    #[serde(default)]
    pub placed_by: String,
}

type Orders = Arc<Mutex<HashMap<u64, Order>>>;

/// The service's routes.
pub fn router() -> Router {
    Router::new().route("/orders", post(place)).route("/orders/{id}", get(show)).with_state(Orders::default())
}

async fn place(peer: Principal, State(orders): State<Orders>, Json(mut order): Json<Order>) -> Json<Order> {
    order.placed_by = peer.to_string();
    orders.lock().unwrap_or_else(PoisonError::into_inner).insert(order.id, order.clone());
    Json(order)
}

async fn show(State(orders): State<Orders>, Path(id): Path<u64>) -> Result<Json<Order>, StatusCode> {
    let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}
