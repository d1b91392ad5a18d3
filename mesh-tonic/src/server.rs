//! tonic's services on the port of the mesh.

use axum::Router;
use tonic::service::Routes;

/// Makes tonic services ready for [`mesh_tower::Serve::grpc`].
///
/// They stand behind the same server stack as HTTP: identity, tokens, policy, limits, deadline, audit. An unknown method
/// is UNIMPLEMENTED, and HTTP beside it keeps its own 404.
///
/// ```
/// use axum::Router;
/// use tonic::service::Routes;
///
/// # async fn run(mesh: mesh_core::Mesh, services: Routes) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tower::serve(&mesh, listener, Router::new()).grpc(mesh_tonic::router(services)).await?;
/// # Ok(()) }
/// ```
pub fn router(services: Routes) -> Router {
    services.into_axum_router()
}
