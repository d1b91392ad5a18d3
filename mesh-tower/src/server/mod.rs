//! What every request to this service goes through before its handler.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use tower_service::Service;

/// The assembled default around `inner`: what `serve` puts in front of every handler.
pub fn stack<S>(
    mesh: &Mesh,
    inner: S,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S::Future: Send,
{
    let _ = mesh;
    inner
}
