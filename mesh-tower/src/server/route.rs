//! Tells the layers around a router what only the router knows: which route matched.

use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::authorize::{ResponseFuture, authorize};
use super::exchange::Exchange;

/// Tells the server stack which route matched.
///
/// For labels, spans and audit records; asks policy where it had to wait for the route.
///
/// A fallback, a service nested as a whole, and a router inside of it have no route that is known here: policy judges
/// them without. No ALLOW rule that names a route lets them in, every DENY rule that names one keeps them out.
///
/// # Position
/// Inside a router, by [`Router::layer`](axum::Router::layer): only there the route is known. [`serve`](crate::serve())
/// installs it; a router in a stack made by hand needs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteLayer;

impl<S> Layer<S> for RouteLayer {
    type Service = RouteService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RouteService { inner, grpc: false }
    }
}

/// [`RouteLayer`] for a router of gRPC services, whose routes are methods: `/PACKAGE.SERVICE/METHOD`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodLayer;

impl<S> Layer<S> for MethodLayer {
    type Service = RouteService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RouteService { inner, grpc: true }
    }
}

/// What [`RouteLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct RouteService<S> {
    inner: S,
    grpc: bool,
}

impl<S> Service<Request<Body>> for RouteService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(exchange) = Exchange::of(&request) else { return ResponseFuture::inner(self.inner.call(request)) };
        if let Some(route) = request.extensions().get::<MatchedPath>() {
            exchange.set_route(route.as_str(), self.grpc);
        }
        if !exchange.take_up() {
            return ResponseFuture::inner(self.inner.call(request));
        }
        authorize(&mut self.inner, exchange, request, true)
    }
}
