//! What every request to this service goes through before its handler.
//!
//! | layer | does | refuses with |
//! |---|---|---|
//! | [`TelemetryLayer`] | starts the exchange, the span and the clock | 500 `wiring` |
//! | [`AuditLayer`] | one record for each decided request | |
//! | [`CanonicalLayer`] | one reading of the request; deadline; whom a gateway names; strips claims | 400 / UNIMPLEMENTED, 403, 413, 431 |
//! | [`AdmissionLayer`] | concurrency limits, of all and of each peer | 503 / UNAVAILABLE |
//! | [`DeadlineLayer`] | no work for callers that stopped waiting | 504 / DEADLINE_EXCEEDED |
//! | [`AuthenticateLayer`] | certificate and token make one principal | 401 / UNAUTHENTICATED |
//! | [`AuthorizeLayer`] | policy, and whom CUSTOM asks | 403 / PERMISSION_DENIED, 401 |
//! | [`RateLimitLayer`] | quota of each principal | 429 / RESOURCE_EXHAUSTED |
//! | [`AuditedLayer`] | no handler without its record, on routes that say so | 503 / UNAVAILABLE |
//! | [`HandlerLayer`] | request context, panics, permits of streams, decompression | 500 / INTERNAL, 400, 408, 413, 415 |
//! | [`ValidateLayer`] | inside a router: body size and type, depth of JSON, headers and query of a route | 400, 413, 414, 415, 431 |
//! | [`require`] | inside a router: scopes and roles that a route asks for | 401, 403 |
//! | [`RouteLayer`] | inside a router: the matched route, for labels, records and policies that name one | as policy |
//!
//! [`stack`] is all of them down to [`HandlerLayer`], in this order; of the others [`serve`](crate::serve()) puts
//! [`RouteLayer`] around each router. In a stack made by hand, admission, deadline, audit, audited and rate limit may
//! be left out; every other layer denies with reason `wiring` if one that it needs is missing or stands below it.
//!
//! ```
//! use mesh_tower::server::{AuthenticateLayer, AuthorizeLayer, CanonicalLayer, HandlerLayer, TelemetryLayer};
//! use tower::ServiceBuilder;
//!
//! # fn build<S>(mesh: &mesh_tower::Mesh, handler: S) -> impl Sized {
//! ServiceBuilder::new()
//!     .layer(TelemetryLayer::new(mesh))
//!     .layer(CanonicalLayer::new(mesh))
//!     .layer(AuthenticateLayer::new(mesh))
//!     .layer(AuthorizeLayer::new(mesh))
//!     .layer(HandlerLayer::new(mesh))
//!     .service(handler)
//! # }
//! ```

mod admission;
mod ask;
mod audit;
mod audited;
mod authenticate;
mod authorize;
mod canonical;
mod deadline;
mod decompress;
mod exchange;
mod flight;
mod forwarded;
mod gate;
mod handler;
mod permit;
mod rate_limit;
mod remote;
mod request_body;
pub mod require;
mod response_body;
mod route;
mod telemetry;
#[cfg(test)]
#[cfg(feature = "dev-ca")]
mod tests;
mod token;
mod validate;

pub use admission::{Admission, AdmissionLayer};
pub use audit::{Audit, AuditLayer};
pub use audited::{Audited, AuditedLayer};
pub use authenticate::{Authenticate, AuthenticateLayer};
pub(crate) use authorize::HeaderView;
pub use authorize::{Authorize, AuthorizeLayer};
pub use canonical::{CanonicalLayer, CanonicalService};
pub use deadline::{DeadlineLayer, DeadlineService};
pub(crate) use exchange::Exchange;
pub use gate::Gated;
pub use handler::{Handler, HandlerLayer};
pub use rate_limit::{RateLimit, RateLimitLayer};
pub(crate) use route::MethodLayer;
pub use route::{RouteLayer, RouteService};
pub use telemetry::{Telemetry, TelemetryLayer};
pub use validate::{Validate, ValidateLayer};

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use tower::ServiceBuilder;
use tower_service::Service;

/// The assembled default around `inner`: what [`serve`](crate::serve()) puts in front of every handler.
///
/// Clone it for each connection. Works only on requests of connections that the mesh accepted; any other is refused
/// with 500, reason `wiring`.
pub fn stack<S>(
    mesh: &Mesh,
    inner: S,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S::Future: Send,
{
    stack_with(mesh, AuthorizeLayer::new(mesh), inner)
}

/// [`stack`] around routers of which each has a [`RouteLayer`] over all of its routes and fallbacks.
pub(crate) fn stack_of_routers<S>(
    mesh: &Mesh,
    inner: S,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S::Future: Send,
{
    stack_with(mesh, AuthorizeLayer::before_router(mesh), inner)
}

fn stack_with<S>(
    mesh: &Mesh,
    authorize: AuthorizeLayer,
    inner: S,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S::Future: Send,
{
    ServiceBuilder::new()
        .layer(TelemetryLayer::new(mesh))
        .layer(AuditLayer::new(mesh))
        .layer(CanonicalLayer::new(mesh))
        .layer(AdmissionLayer::new(mesh))
        .layer(DeadlineLayer::new(mesh))
        .layer(AuthenticateLayer::new(mesh))
        .layer(authorize)
        .layer(RateLimitLayer::new(mesh))
        .layer(AuditedLayer::new(mesh))
        .layer(HandlerLayer::new(mesh))
        .service(inner)
}
