//! Charges that are taken once. An ordinary tonic service, but for `request.principal()`: who calls, proven.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use mesh_tonic::RequestExt;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Generated from `proto/shop.proto`.
pub mod pb {
    tonic::include_proto!("shop");
}

use pb::payments_server::{Payments, PaymentsServer};
use pb::{ChargeReply, ChargeRequest};

/// The process's gRPC services.
pub fn services() -> Routes {
    Routes::new(PaymentsServer::new(Till::default()))
}

/// Remembers every key. A real one would forget them after a while.
#[derive(Debug, Default)]
struct Till {
    charged: Mutex<HashSet<String>>,
}

#[tonic::async_trait]
impl Payments for Till {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeReply>, Status> {
        let payer = request.principal()?.to_string();
        let key = request.into_inner().idempotency_key;
        if key.is_empty() {
            return Err(Status::invalid_argument("idempotency_key is empty"));
        }
        let repeated = !self.charged.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(Response::new(ChargeReply { payer, repeated }))
    }
}
