//! Puts an axum router, tonic services, or any service on a port behind the mesh.
//!
//! HTTP/1.1, HTTP/2 and gRPC share one port and one stack. HTTP and gRPC keep apart by content type, so that each
//! keeps its own fallback: an unknown page is a 404, an unknown method is UNIMPLEMENTED.

mod app;
mod error;
mod server;
mod signal;
#[cfg(test)]
mod tests;

pub use app::{HttpApp, Opaque, Stack, Web};
pub use error::ServeError;
pub use server::Serve;
pub use signal::shutdown_signal;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use tokio::net::TcpListener;
use tower_service::Service;

use crate::accept::Accept;
use crate::server::Telemetry;
#[cfg(doc)]
use crate::server::{AuthorizeLayer, RouteLayer, TelemetryLayer};

/// Serves `router` on `listener`, behind mutual TLS and the mesh's server stack.
///
/// Await the result. It ends when the signal given to
/// [`with_graceful_shutdown`](Serve::with_graceful_shutdown) has come and all connections are drained; without one it
/// does not end. Dropping it cuts every connection. Fails closed: a peer without a valid SVID gets no connection, and
/// a request that no policy allows gets no handler.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// # async fn run(mesh: mesh_core::Mesh) -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::new().route("/orders/{id}", get(|| async { "order" }));
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tower::serve(&mesh, listener, router)
///     .with_graceful_shutdown(async { /* a signal */ })
///     .await?;
/// # Ok(())
/// # }
/// ```
pub fn serve<L: Accept>(mesh: &Mesh, listener: L, router: Router) -> Serve<L, Web> {
    Serve::new(mesh, listener, Web { http: router, grpc: None })
}

/// Serves any service on `listener`, behind mutual TLS and the mesh's server stack.
///
/// Like [`serve`], for what is no axum router. Only a router knows its routes: a policy that names a matched `route` is
/// [`ServeError::Routes`] here, and while this runs no reload brings one in.
pub fn serve_service<L: Accept, S: HttpApp>(mesh: &Mesh, listener: L, service: S) -> Serve<L, Opaque<S>> {
    Serve::new(mesh, listener, Opaque(service))
}

/// Serves layers that were put together by hand, behind mutual TLS.
///
/// The outermost must be a [`TelemetryLayer`]: it lets no answer out that no
/// [`AuthorizeLayer`] below it permitted. Install [`RouteLayer`] in a router yourself, so that
/// labels and audit records know its routes. Policies that name a `route` are refused, as by [`serve_service`].
///
/// ```no_run
/// use mesh_tower::server::{AuthenticateLayer, AuthorizeLayer, CanonicalLayer, HandlerLayer, TelemetryLayer};
/// use tower::ServiceBuilder;
///
/// # async fn run(mesh: mesh_core::Mesh, router: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// let stack = ServiceBuilder::new()
///     .layer(TelemetryLayer::new(&mesh))
///     .layer(CanonicalLayer::new(&mesh))
///     .layer(AuthenticateLayer::new(&mesh))
///     .layer(AuthorizeLayer::new(&mesh))
///     .layer(HandlerLayer::new(&mesh))
///     .service(router.layer(mesh_tower::server::RouteLayer));
/// let listener = mesh_tower::bind(&mesh, "default").await?;
/// mesh_tower::serve_stack(&mesh, listener, stack).await?;
/// # Ok(())
/// # }
/// ```
pub fn serve_stack<L, S>(mesh: &Mesh, listener: L, stack: Telemetry<S>) -> Serve<L, Stack<S>>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    Serve::new(mesh, listener, Stack(stack))
}

/// Binds the address of a configured listener.
///
/// # Errors
///
/// [`ServeError::UnknownListener`] without such a listener in `listeners:`, [`ServeError::Bind`] if its address is
/// taken or not ours.
pub async fn bind(mesh: &Mesh, listener: &str) -> Result<TcpListener, ServeError> {
    let config = server::configured(mesh, listener).ok_or_else(|| ServeError::unknown(mesh, listener))?;
    let address = config.address;
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind {
        what: format!("listener `{listener}`"),
        address,
        source,
    })
}
