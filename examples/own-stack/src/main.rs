//! A server and a client whose layers are put together by hand: see `src/lib.rs` for both stacks.
//!
//! ```text
//! cargo run       serves https://127.0.0.1:8445, calls itself once, ends
//! cargo test      what happens where a layer is left out: it denies
//! ```

use axum::http::Request;
use mesh_tower::Mesh;
use mesh_tower::client::RequestBody;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();

    let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    let server = tokio::spawn(own_stack::serve(&mesh, listener).into_future());

    let hello = Request::get("https://relay/hello").body(RequestBody::default())?;
    let answer = own_stack::client(&mesh, "relay").oneshot(hello).await?;
    println!("{} {:?}", answer.status(), answer.headers());

    server.abort();
    Ok(())
}
