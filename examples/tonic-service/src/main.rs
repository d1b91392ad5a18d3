//! A tonic service in the mesh: mutual TLS, identities, policy and audit in the process itself.
//!
//! ```text
//! cargo run                               serves https://127.0.0.1:8448
//! curl http://127.0.0.1:8086/readyz       is it ready? (also /metrics)
//! (cd ../tonic-client && cargo run)       calls it as spiffe://shop.example/ns/shop/sa/orders
//! cargo test                              the service, its configuration and its policies
//! ```

use mesh_tower::Mesh;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    mesh_tonic::serve(&mesh, listener, tonic_service::services())
        .with_graceful_shutdown(mesh_tower::shutdown_signal())
        .await?;
    Ok(())
}
