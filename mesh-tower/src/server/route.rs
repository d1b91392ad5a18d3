//! Tells the layers around a router what only the router knows: which route matched.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::Exchange;

/// Tells the server stack which route matched, for labels, spans and audit records.
///
/// # Position
/// Inside a router, by [`Router::layer`](axum::Router::layer): only there the route is known. [`serve`](crate::serve())
/// installs it; a router in a stack made by hand needs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteLayer;

impl<S> Layer<S> for RouteLayer {
    type Service = RouteService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RouteService { inner }
    }
}

/// What [`RouteLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct RouteService<S> {
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for RouteService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let extensions = request.extensions();
        if let (Some(exchange), Some(route)) = (extensions.get::<Arc<Exchange>>(), extensions.get::<MatchedPath>()) {
            exchange.set_route(route.as_str());
        }
        self.inner.call(request)
    }
}
