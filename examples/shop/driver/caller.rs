//! Somebody who calls the shop, with an identity of the shop's own authority.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_tonic::Channel;
use mesh_tower::client::Response;
use mesh_tower::{Client, Mesh};
use tonic::{Request, Status};

use crate::Error;
use crate::gateway::{Order, Receipt};
use crate::pb::payments_client::PaymentsClient;
use crate::pb::{RefundReply, RefundRequest};

/// How long a caller waits for an order.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) mesh: Mesh,
    gateway: Client,
    payments: PaymentsClient<Channel>,
    orders: Arc<AtomicU64>,
}

/// An order that was sent, and what came back.
pub(crate) struct Ordered {
    pub(crate) id: u64,
    pub(crate) answer: Response,
}

impl Ordered {
    pub(crate) fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }
}

impl Caller {
    /// `orders` counts the orders of all callers together, so that each has a number of its own.
    pub(crate) fn new(mesh: Mesh, orders: Arc<AtomicU64>) -> Result<Self, Error> {
        let gateway = Client::new(&mesh, "gateway")?;
        let payments = PaymentsClient::new(Channel::new(&mesh, "payments")?);
        Ok(Self { mesh, gateway, payments, orders })
    }

    /// Orders something from the gateway.
    pub(crate) async fn order(&self, token: Option<&str>) -> Result<Ordered, Error> {
        self.order_within(token, PATIENCE).await
    }

    /// Orders something, with a deadline for the whole way.
    pub(crate) async fn order_within(&self, token: Option<&str>, limit: Duration) -> Result<Ordered, Error> {
        let id = self.orders.fetch_add(1, Ordering::Relaxed);
        let call = self.gateway.post("/orders").json(&Order { id, cents: 499 }).timeout(limit);
        let call = match token {
            Some(token) => call.bearer_token(token),
            None => call,
        };
        Ok(Ordered { id, answer: call.send().await? })
    }

    /// Orders something that must be paid: the receipt.
    pub(crate) async fn receipt(&self, token: &str, limit: Duration) -> Result<Receipt, Error> {
        Ok(self.order_within(Some(token), limit).await?.answer.json().await?)
    }

    /// Asks `payments` for a refund, by gRPC.
    pub(crate) async fn refund(&self, token: Option<&str>) -> Result<RefundReply, Status> {
        let mut request = Request::new(RefundRequest { charge_id: "charge-order-1".to_owned() });
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().map_err(|_| Status::internal("no header value"))?;
            request.metadata_mut().insert("authorization", value);
        }
        self.payments.clone().refund(request).await.map(tonic::Response::into_inner)
    }

    /// Connections that were made to the gateway so far.
    pub(crate) fn connections(&self) -> u64 {
        self.mesh.metrics().client.cluster("gateway").connections_opened.get()
    }
}
