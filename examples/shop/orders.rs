//! `orders`: an axum service that has its orders paid by a gRPC service.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use mesh_tonic::Channel;
use mesh_tower::{Mesh, Principal};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Error;
use crate::gateway::Order;
use crate::pb::ChargeRequest;
use crate::pb::payments_client::PaymentsClient;
use crate::seen::Seen;

/// An order that was paid.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) charge_id: String,
    pub(crate) way: Vec<Seen>,
}

pub(crate) async fn serve(
    mesh: &Mesh,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let payments = PaymentsClient::new(Channel::new(mesh, "payments")?);
    let router = Router::new().route("/orders", post(place)).with_state(payments);
    mesh_tower::serve(mesh, listener, router).with_graceful_shutdown(stop).await?;
    Ok(())
}

async fn place(
    peer: Principal,
    State(mut payments): State<PaymentsClient<Channel>>,
    Json(order): Json<Order>,
) -> Result<Json<Placed>, StatusCode> {
    let seen = Seen::here("orders", Some(&peer));
    let charge =
        ChargeRequest { order_id: order.id, cents: order.cents, idempotency_key: format!("order-{}", order.id) };
    let charged = payments.charge(charge).await.map_err(refused)?.into_inner();
    let way = [Some(seen), charged.seen.map(Seen::from)].into_iter().flatten().collect();
    Ok(Json(Placed { charge_id: charged.charge_id, way }))
}

/// The customer learns that it did not work; why stands in our log.
fn refused(status: tonic::Status) -> StatusCode {
    let cause = std::error::Error::source(&status).map(ToString::to_string);
    tracing::warn!(code = ?status.code(), message = status.message(), cause, "charge failed");
    StatusCode::BAD_GATEWAY
}
