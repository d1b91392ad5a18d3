//! A service that is called with tokens and calls another: what there is to see is its test, `tests/integration.rs`.
//!
//! ```text
//! cargo test
//! cargo run       serves https://127.0.0.1:8447
//! ```

use mesh_tower::Mesh;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    integration_test::serve(&mesh, listener)?.with_graceful_shutdown(mesh_tower::shutdown_signal()).await?;
    Ok(())
}
