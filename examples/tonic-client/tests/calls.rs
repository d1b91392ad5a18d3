//! The client with its real `mesh.yaml`, against a `payments` that misbehaves.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_tonic::Channel;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_client::pb::payments_client::PaymentsClient;
use tonic_client::pb::payments_server::{Payments, PaymentsServer};
use tonic_client::pb::{ChargeReply, ChargeRequest};

type Error = Box<dyn std::error::Error>;

/// What `payments` does with its first call; the others are answered.
#[derive(Clone, Copy)]
enum First {
    Fails,
    Hangs,
    Refuses,
}

struct Till {
    first: First,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Payments for Till {
    async fn charge(&self, _request: Request<ChargeRequest>) -> Result<Response<ChargeReply>, Status> {
        let repeated = self.calls.fetch_add(1, Ordering::SeqCst) > 0;
        match self.first {
            First::Fails if !repeated => Err(Status::unavailable("restarting")),
            First::Hangs if !repeated => pending().await,
            First::Refuses => Err(Status::failed_precondition("no money")),
            _ => Ok(Response::new(ChargeReply { payer: String::new(), repeated })),
        }
    }
}

/// `orders` is this program, `payments` stands for the real one.
async fn mesh(first: First) -> Result<(RunningTestMesh, PaymentsClient<Channel>, Arc<AtomicUsize>), Error> {
    let calls = Arc::new(AtomicUsize::new(0));
    let services = Routes::new(PaymentsServer::new(Till { first, calls: calls.clone() }));
    let payments =
        TestService::new("payments").serve_with(|mesh, listener| Ok(mesh_tonic::serve(mesh, listener, services)));
    let orders = TestService::new("orders").config_file("mesh.yaml");
    let mesh = TestMesh::new().trust_domain("shop.example").with(orders).with(payments).start().await?;
    let client = PaymentsClient::new(Channel::new(mesh.mesh("orders")?, "payments")?);
    Ok((mesh, client, calls))
}

fn charge() -> ChargeRequest {
    ChargeRequest { cents: 250, idempotency_key: "order-7".into() }
}

#[tokio::test]
async fn a_charge_that_fails_or_hangs_is_sent_again() -> Result<(), Error> {
    for first in [First::Fails, First::Hangs] {
        let (_mesh, mut payments, calls) = mesh(first).await?;
        assert!(payments.charge(charge()).await?.into_inner().repeated);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_not_repeated() -> Result<(), Error> {
    let (_mesh, mut payments, calls) = mesh(First::Refuses).await?;
    let status = payments.charge(charge()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no money"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    Ok(())
}
