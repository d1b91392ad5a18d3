//! An axum service in the mesh: mutual TLS, identities, policy and audit in the process itself.
//!
//! ```text
//! cargo run                               serves https://127.0.0.1:8443
//! curl http://127.0.0.1:8081/readyz       is it ready? (also /metrics)
//! (cd ../http-client && cargo run)        calls it as spiffe://shop.example/ns/shop/sa/web
//! cargo test                              the service, its configuration and its policies
//! ```
//!
//! Then change `policies/orders.yaml` while it runs, and call again.

use mesh_tower::Mesh;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    mesh_tower::serve(&mesh, listener, axum_service::router())
        .with_graceful_shutdown(mesh_tower::shutdown_signal())
        .await?;
    Ok(())
}
