//! From a service and a request to a cluster, a timeout and retry rules, pinned once for the whole call.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::cluster::Tried;
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::call::{Call, Observed};
use super::checks;
use super::future::CallOr;
use super::key;
use super::registry::ClusterRegistry;
use crate::error::{Error, ErrorKind};
use crate::grpc;

/// Finds the route of each call.
///
/// Configuration may be replaced while a call is under way; the call keeps the route that it began with.
///
/// # Position
///
/// Above `deadline` and `retry`, because the route carries their settings; below `telemetry`, which counts calls
/// without a route too.
#[derive(Clone)]
pub struct RouteLayer {
    mesh: Mesh,
    service: Arc<str>,
    registry: Arc<ClusterRegistry>,
}

impl RouteLayer {
    /// Routes calls of `service` by the mesh's current configuration.
    pub fn new(mesh: &Mesh, service: &str) -> Self {
        Self { mesh: mesh.clone(), service: service.into(), registry: ClusterRegistry::of(mesh) }
    }

    fn route<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let revision = self.mesh.revision().load();
        let (method, path) = (request.method().as_str(), path_of(request));
        let Some(route) = revision.routes.find(&self.service, method, path) else {
            return Err(unroutable(method, path));
        };
        let cluster = self.registry.find(&self.mesh, &revision, &route.cluster, checks::begin)?;
        if let Some(Observed(observation)) = request.extensions().get() {
            // Set once: there is one route layer in a stack.
            let _ = observation.metrics.set(Arc::clone(cluster.cluster.metrics()));
        }
        let call = Call {
            route: Arc::clone(route),
            cluster,
            grpc: grpc::is_grpc(request.headers()),
            headers_by: None,
            whole_by: None,
            allowed: Duration::ZERO,
            chosen: None,
            hash: key::hash(&route.hash, request.headers()),
            tried: Tried::default(),
            retry: None,
        };
        request.extensions_mut().insert(call);
        Ok(())
    }
}

/// The path that routes go by.
pub(super) fn path_of<B>(request: &Request<B>) -> &str {
    let path = request.uri().path();
    if path.is_empty() { "/" } else { path }
}

pub(super) fn unroutable(method: &str, path: &str) -> Error {
    Error::new(ErrorKind::Unroutable, format!("no route takes {method} {path}"))
}

impl std::fmt::Debug for RouteLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteLayer").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RouteLayer {
    type Service = Route<S>;

    fn layer(&self, inner: S) -> Route<S> {
        Route { layer: self.clone(), inner }
    }
}

/// The service of [`RouteLayer`].
#[derive(Debug, Clone)]
pub struct Route<S> {
    layer: RouteLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Route<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallOr<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.layer.route(&mut request) {
            Ok(()) => CallOr::call(self.inner.call(request)),
            Err(error) => CallOr::refused(error),
        }
    }
}
