//! Calls a service by its name: who that is, how long to wait and what to repeat stands in `mesh.yaml`.
//!
//! ```text
//! (cd ../axum-service && cargo run)       the service that is called; leave it running
//! cargo run                               places an order and reads it back
//! cargo test                              retries, time limits and refusals, without that service
//! ```

use http_client::Shop;
use mesh_tower::{Client, Mesh};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let shop = Shop::new(Client::new(&mesh, "orders")?);

    let placed = shop.place(7, "tea").await?;
    println!("{} ordered {}", placed.placed_by, placed.item);
    println!("the shop remembers: {:?}", shop.find(7).await?);
    Ok(())
}
