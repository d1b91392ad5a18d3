//! What axum handlers and routers use of the mesh.

use std::sync::Arc;

use axum::response::IntoResponse;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::Response;
use http::request::Parts;

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
