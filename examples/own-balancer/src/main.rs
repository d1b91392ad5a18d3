//! Calls a service whose cluster is balanced by a policy of this program's own: see `src/lib.rs`.
//!
//! ```text
//! (cd ../axum-service && cargo run)       the service that is called; leave it running
//! cargo run                               asks for an order, and says how the endpoints fare
//! cargo test                              one endpoint is filled before the next is used
//! ```

use mesh_tower::{Client, Mesh};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    // Without the plugin, start fails and names the policy, its line, and what to do.
    let mesh = Mesh::builder().config_file("mesh.yaml").with(own_balancer::plugin()).start().await?;
    let orders = Client::new(&mesh, "orders")?;
    println!("{:?}", orders.get("/orders/7").send().await.map(|answer| answer.status()));
    for endpoint in orders.endpoints() {
        println!("{} usable: {}, latency {:?}", endpoint.key, endpoint.usable, endpoint.latency);
    }
    Ok(())
}
