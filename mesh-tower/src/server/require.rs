//! What a route asks of its callers beside policy, said where the route is.
//!
//! ```
//! use axum::Router;
//! use axum::routing::{get, post};
//! use mesh_tower::require;
//!
//! # fn routes() -> Router {
//! let read = Router::new()
//!     .route("/orders/{id}", get(|| async { "an order" }))
//!     .route_layer(require::any_scope(["orders:read", "orders:write"]));
//! let write = Router::new()
//!     .route("/orders", post(|| async { "done" }))
//!     .route_layer(require::scope("orders:write"))
//!     .route_layer(require::role("orders-writer"));       // both
//! read.merge(write)
//! # }
//! ```
//!
//! Policy has let the caller in before: a requirement only narrows. It goes around gRPC routes the same way:
//!
//! ```
//! # use axum::Router;
//! # fn of_tonic(services: Router) -> Router { // mesh_tonic::router(..)
//! services.route_layer(mesh_tower::require::role("orders-writer"))
//! # }
//! ```

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use mesh_core::Mesh;
use mesh_core::policy::{PolicyEngine, RoleAnswer};
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use crate::reject::{Kind, Reject};

const SCOPE_REASON: &str = "require_scope";
pub(super) const ROLE_REASON: &str = "require_role";

/// Refuses callers whose token does not grant this scope, in `scope` or `scp`.
/// ([`VerifiedToken::scopes`](mesh_core::token::VerifiedToken::scopes))
pub fn scope(scope: impl Into<String>) -> RequireLayer {
    let scope = scope.into();
    RequireLayer::new(format!("require::scope({scope})"), Wants::AnyScope(vec![scope]))
}

/// Refuses callers whose token grants none of these scopes; of no scopes, everybody.
///
/// For all of several, layer [`scope`] several times.
pub fn any_scope<T: Into<String>>(scopes: impl IntoIterator<Item = T>) -> RequireLayer {
    let scopes: Vec<String> = scopes.into_iter().map(Into::into).collect();
    RequireLayer::new(format!("require::any_scope({})", scopes.join(", ")), Wants::AnyScope(scopes))
}

/// Refuses callers that do not have this role of `mesh.yaml`.
///
/// No [binding](mesh_core::config::BindingConfig) of it names their SPIFFE ID, or the principal, a group or a scope of
/// their token. What the role itself allows does not matter here.
///
/// Nobody has a role that is not in the configuration: everybody is refused, and the log says why.
pub fn role(role: impl Into<Arc<str>>) -> RequireLayer {
    let role = role.into();
    RequireLayer::new(format!("require::role({role})"), Wants::Role(role))
}

/// Refuses a request whose caller is not what the route requires.
///
/// 403 / PERMISSION_DENIED, or 401 / UNAUTHENTICATED where no token came and one could have helped. Made by [`scope`],
/// [`any_scope`] and [`role`].
///
/// Each refusal is counted, logged and recorded once, with reason `require_scope` or `require_role`, the route, and the
/// requirement in the place of the policy: `require::scope(orders:write)`. The caller learns its status alone.
///
/// A stream whose caller loses a required role to a reload is cut, as one that policy would not let in any more. Scopes
/// end with their token.
///
/// # Position
/// Around routes, inside of the stack ([`Router::route_layer`](axum::Router::route_layer)). Anywhere else it denies with
/// reason `wiring`.
#[derive(Clone)]
pub struct RequireLayer {
    name: Arc<str>,
    wants: Arc<Wants>,
}

enum Wants {
    AnyScope(Vec<String>),
    Role(Arc<str>),
}

/// What [`RequireLayer`] makes of a service.
pub type Require<S> = Gated<S, RequireLayer>;

impl RequireLayer {
    fn new(name: String, wants: Wants) -> Self {
        Self { name: name.into(), wants: Arc::new(wants) }
    }

    fn refused(&self, exchange: &Exchange, reason: &'static str, token_would_help: bool) -> Reject {
        exchange.set_denier(Arc::clone(&self.name));
        Reject::new(if token_would_help { Kind::Unauthenticated } else { Kind::Forbidden }, reason)
    }
}

impl fmt::Debug for RequireLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = Require<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for RequireLayer {
    const NAME: &'static str = "require";

    fn mesh(&self) -> Option<&Mesh> {
        None
    }

    fn pass(&self, exchange: &Arc<Exchange>, _request: &mut Request<Body>) -> Result<(), Reject> {
        let principal = exchange.principal().filter(|_| exchange.permitted()).ok_or(Reject::WIRING)?;
        let token = principal.token.as_deref();
        match &*self.wants {
            Wants::AnyScope(scopes) => {
                if token.is_some_and(|token| token.scopes().any(|scope| scopes.iter().any(|wanted| wanted == scope))) {
                    return Ok(());
                }
                Err(self.refused(exchange, SCOPE_REASON, token.is_none() && !scopes.is_empty()))
            }
            Wants::Role(role) => match exchange.revision.policy.role(role, principal.spiffe_id(), token) {
                RoleAnswer::Held => {
                    exchange.add_role(role);
                    Ok(())
                }
                RoleAnswer::NotHeld { token_would_help } => Err(self.refused(exchange, ROLE_REASON, token_would_help)),
                _ => {
                    tracing::error!(
                        role = &**role,
                        "a route requires a role that `roles` does not have: nobody is let in"
                    );
                    Err(self.refused(exchange, ROLE_REASON, false))
                }
            },
        }
    }
}

/// Whether `policy`, a newer one, does not give the caller a role any more that its route requires.
pub(super) fn lost_role(exchange: &Exchange, policy: &PolicyEngine) -> bool {
    let Some(principal) = exchange.principal() else { return true };
    let has = |role: &str| policy.role(role, principal.spiffe_id(), principal.token.as_deref()) == RoleAnswer::Held;
    exchange.any_role(|role| !has(role))
}
