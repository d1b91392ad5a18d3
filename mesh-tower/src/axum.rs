//! What axum handlers and routers use of the mesh.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::IntoResponse;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::Response;
use http::Request;
use http::request::Parts;
use tower_layer::Layer;
use tower_service::Service;

use crate::principal::Principal;
use crate::reject::{Kind, Reject};
use crate::server::Exchange;

/// Why a handler got no [`Principal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalRejection {
    /// The request did not come through the mesh's server stack: 500.
    #[error("no mesh around this handler: serve it with mesh_tower::serve")]
    Wiring,
    /// The caller is anonymous: 401.
    #[error("the caller is anonymous")]
    Anonymous,
}

impl IntoResponse for PrincipalRejection {
    fn into_response(self) -> Response {
        let reject = match self {
            Self::Wiring => {
                tracing::error!(reason = Reject::WIRING.reason, "{self}");
                Reject::WIRING
            }
            Self::Anonymous => Reject::new(Kind::Unauthenticated, "anonymous"),
        };
        reject.into_response(false)
    }
}

fn principal(parts: &Parts) -> Result<Option<Principal>, PrincipalRejection> {
    let exchange = parts.extensions.get::<Arc<Exchange>>().ok_or(PrincipalRejection::Wiring)?;
    let principal = exchange.principal().filter(|_| exchange.permitted()).ok_or(PrincipalRejection::Wiring)?;
    Ok((!principal.is_anonymous()).then(|| principal.clone()))
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = PrincipalRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        principal(parts)?.ok_or(PrincipalRejection::Anonymous)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = PrincipalRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Self::Rejection> {
        principal(parts)
    }
}

/// Tells the server stack which route matched, for labels, spans and audit records.
///
/// # Position
/// Inside a router, by [`Router::layer`](axum::Router::layer): only there the route is known. `serve` installs it.
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
