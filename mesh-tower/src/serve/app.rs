//! What can be served, and how HTTP and gRPC keep apart.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::{Request, Response};
use tower::ServiceExt;
use tower::util::MapResponse;
use tower_service::Service;

use crate::transport::{BodyLimit, MaxBody};
use crate::{grpc, server};

/// An HTTP router and, beside it, maybe one for gRPC.
#[derive(Debug)]
pub struct Web {
    pub(super) http: Router,
    pub(super) grpc: Option<Router>,
}

/// A service that the mesh knows nothing of.
#[derive(Debug)]
pub struct Opaque<S>(pub(super) S);

/// A stack of layers that its user made.
#[derive(Debug)]
pub struct Stack<S>(pub(super) server::Telemetry<S>);

/// HTTP and gRPC side by side.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    pub(super) http: Router,
    pub(super) grpc: Option<Router>,
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // axum's routers always are
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match &mut self.grpc {
            Some(router) if grpc::is_grpc(request.headers()) => router.call(request),
            // Without a gRPC router its content type is only a header, and must not lift the limit of the body.
            _ => {
                // In the place of axum's own 2 MB. What came is bounded already; this bounds what extractors read behind a
                // layer of the router that decompresses. A router that sets a limit of its own has the last word.
                if let Some(MaxBody(max)) = request.extensions().get() {
                    DefaultBodyLimit::max(*max).apply(&mut request);
                }
                match request.extensions_mut().remove::<BodyLimit>() {
                    Some(limit) => self.http.call(limit.apply(request)),
                    None => self.http.call(request),
                }
            }
        }
    }
}

/// What [`serve_service`](crate::serve_service) takes: any cloneable, infallible HTTP service.
///
/// Implemented for every `Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>`; not meant to be
/// implemented by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served by the mesh",
    label = "not an infallible HTTP service",
    note = "needed: `tower::Service<Request<axum::body::Body>, Response = Response<B>, Error = Infallible>`, \
            and it must be `Clone + Send + 'static` with a `Send` future",
    note = "an axum `Router` goes to `mesh_tower::serve`, after `.with_state(..)`"
)]
pub trait HttpApp: Send + 'static {
    /// The service with its body boxed.
    type Service: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static;

    /// Boxes the body.
    fn into_service(self) -> Self::Service;
}

impl<S, B> HttpApp for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Service = MapResponse<S, fn(Response<B>) -> Response<Body>>;

    fn into_service(self) -> Self::Service {
        self.map_response(|response| response.map(Body::new))
    }
}
