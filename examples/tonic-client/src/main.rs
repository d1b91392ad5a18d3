//! Calls a gRPC service by its name: who that is, how long to wait and what to repeat stands in `mesh.yaml`.
//!
//! ```text
//! (cd ../tonic-service && cargo run)      the service that is called; leave it running
//! cargo run                               charges once, and finds that the second time changes nothing
//! cargo test                              retries and time limits, without that service
//! ```

use mesh_tonic::Channel;
use mesh_tower::Mesh;
use tonic_client::pb::ChargeRequest;
use tonic_client::pb::payments_client::PaymentsClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let mut payments = PaymentsClient::new(Channel::new(&mesh, "payments")?);

    for _ in 0..2 {
        let charge = ChargeRequest { cents: 250, idempotency_key: "order-7".into() };
        let reply = payments.charge(charge).await?.into_inner();
        println!("{} was charged; repeated: {}", reply.payer, reply.repeated);
    }
    Ok(())
}
