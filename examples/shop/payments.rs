//! `payments`: a tonic service; the same idempotency key is charged once, whichever process is asked.

use std::io::ErrorKind;
use std::path::PathBuf;

use axum::Router;
use mesh_tower::{Mesh, Principal};
use tokio::fs::File;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::Error;
use crate::pb::payments_server::{Payments, PaymentsServer};
use crate::pb::{ChargeReply, ChargeRequest, RefundReply, RefundRequest};
use crate::seen::Seen;

pub(crate) async fn serve(
    mesh: &Mesh,
    listener: TcpListener,
    ledger: PathBuf,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let grpc = tonic::service::Routes::new(PaymentsServer::new(Till { ledger })).into_axum_router();
    mesh_tower::serve(mesh, listener, Router::new()).grpc(grpc).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// Takes the money. The ledger is a directory that all `payments` share, with one file for each charge: what a
/// database's unique key would do.
#[derive(Debug, Clone)]
struct Till {
    ledger: PathBuf,
}

impl Till {
    /// True if the key was charged before, by this process or another.
    async fn charge(&self, key: &str) -> Result<bool, Status> {
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Status::invalid_argument("idempotency_key: letters, digits and hyphens, at least one"));
        }
        match File::options().write(true).create_new(true).open(self.ledger.join(key)).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be written");
                Err(Status::internal("not charged"))
            }
        }
    }
}

#[tonic::async_trait]
impl Payments for Till {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeReply>, Status> {
        let seen = Seen::here("payments", request.extensions().get::<Principal>());
        let key = &request.get_ref().idempotency_key;
        let repeated = Till::charge(self, key).await?;
        if repeated {
            tracing::info!(key, "charged before; not charged again");
        }
        Ok(Response::new(ChargeReply { charge_id: format!("charge-{key}"), repeated, seen: Some(seen.into()) }))
    }

    async fn refund(&self, request: Request<RefundRequest>) -> Result<Response<RefundReply>, Status> {
        let seen = Seen::here("payments", request.extensions().get::<Principal>());
        Ok(Response::new(RefundReply { seen: Some(seen.into()) }))
    }
}
