//! tonic's services on the port of the mesh.

use axum::Router;
use mesh_core::Mesh;
use mesh_tower::accept::Accept;
use mesh_tower::{Serve, Web};
use tonic::service::Routes;

/// Serves tonic services, and nothing beside them, on `listener`.
///
/// Behind mutual TLS and the mesh's server stack.
///
/// What [`mesh_tower::serve()`] is to an axum router; with HTTP on the same port, use that and [`router`].
///
/// ```
/// use tonic::service::Routes;
///
/// # async fn run(mesh: mesh_core::Mesh, services: Routes) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tonic::serve(&mesh, listener, services).with_graceful_shutdown(mesh_tower::shutdown_signal()).await?;
/// # Ok(()) }
/// ```
pub fn serve<L: Accept>(mesh: &Mesh, listener: L, services: Routes) -> Serve<L, Web> {
    mesh_tower::serve(mesh, listener, Router::new()).grpc(router(services))
}

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
