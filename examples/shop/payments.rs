//! `payments`: a tonic service; the same idempotency key is charged once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use mesh_tower::{Mesh, Principal};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::Error;
use crate::pb::payments_server::{Payments, PaymentsServer};
use crate::pb::{ChargeReply, ChargeRequest, RefundReply, RefundRequest};
use crate::seen::Seen;

pub(crate) async fn serve(
    mesh: &Mesh,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let grpc = tonic::service::Routes::new(PaymentsServer::new(Till::default())).into_axum_router();
    mesh_tower::serve(mesh, listener, Router::new()).grpc(grpc).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// Keys that are remembered, so that memory does not grow with the number of orders.
const REMEMBERED: usize = 100_000;

#[derive(Debug, Clone, Default)]
struct Till {
    charged: Arc<Mutex<VecDeque<String>>>,
}

impl Till {
    /// True if the key was charged before.
    fn charge(&self, key: &str) -> bool {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        if charged.iter().rev().any(|known| known == key) {
            return true;
        }
        if charged.len() == REMEMBERED {
            charged.pop_front();
        }
        charged.push_back(key.to_owned());
        false
    }
}

#[tonic::async_trait]
impl Payments for Till {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeReply>, Status> {
        let seen = Seen::here("payments", request.extensions().get::<Principal>());
        let key = &request.get_ref().idempotency_key;
        if key.is_empty() {
            return Err(Status::invalid_argument("idempotency_key is empty"));
        }
        let repeated = self.charge(key);
        Ok(Response::new(ChargeReply { charge_id: format!("charge-{key}"), repeated, seen: Some(seen.into()) }))
    }

    async fn refund(&self, request: Request<RefundRequest>) -> Result<Response<RefundReply>, Status> {
        let seen = Seen::here("payments", request.extensions().get::<Principal>());
        Ok(Response::new(RefundReply { seen: Some(seen.into()) }))
    }
}
