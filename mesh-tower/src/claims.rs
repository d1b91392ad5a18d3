//! The claims of the caller's token, as a type of the application.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use axum::response::IntoResponse;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::Response;
use http::Extensions;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::reject::{Kind, Reject};
use crate::server::Exchange;

/// The claims of the token that the mesh verified, as an axum extractor.
///
/// In tonic: `request.claims::<T>()` of `mesh_tonic::RequestExt`.
///
/// Only the mesh's own server stack makes them, and only after policy let the request in: whatever else a request carries
/// is never read. As an extractor it fails closed, and like a denial by policy each failure is counted, logged and
/// recorded, with `Claims<T>` in the place of the policy, while the caller learns the status alone:
///
/// | | status | reason |
/// |---|---|---|
/// | no token came | 401 / UNAUTHENTICATED | `claims_missing` |
/// | the claims are no `T` | 403 / PERMISSION_DENIED | `claims_unfit` |
/// | the handler is served without the mesh | 500 / INTERNAL | `wiring` |
///
/// `Option<Claims<T>>` is `None` where no token came, and fails like the other where it does not fit. Why claims do not fit
/// goes to the log at level `debug`, because it may quote them.
///
/// ```
/// use mesh_tower::Claims;
///
/// #[derive(serde::Deserialize)]
/// struct Tenant {
///     sub: String,
///     tenant_id: u64,
/// }
///
/// async fn show(Claims(tenant): Claims<Tenant>) -> String {
///     format!("{} of {}", tenant.sub, tenant.tenant_id)
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(show));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claims<T>(pub T);

impl<T: DeserializeOwned> Claims<T> {
    /// Of a request with these extensions.
    pub fn of(extensions: &Extensions) -> Result<Self, ClaimsRejection> {
        let missing = || ClaimsRejection::new::<T>(extensions, Reject::new(Kind::Unauthenticated, "claims_missing"));
        Self::optional(extensions)?.ok_or_else(missing)
    }

    /// Of a request with these extensions that may have come without a token.
    pub fn optional(extensions: &Extensions) -> Result<Option<Self>, ClaimsRejection> {
        let exchange = extensions.get::<Arc<Exchange>>().filter(|exchange| exchange.permitted());
        let principal = exchange.and_then(|exchange| exchange.principal());
        let Some(principal) = principal else { return Err(ClaimsRejection::new::<T>(extensions, Reject::WIRING)) };
        let Some(token) = principal.token.as_deref() else { return Ok(None) };
        T::deserialize(&token.claims).map(|claims| Some(Self(claims))).map_err(|error| {
            tracing::debug!(claims = type_name::<T>(), %error, "the claims of a token do not fit");
            ClaimsRejection::new::<T>(extensions, Reject::new(Kind::Forbidden, "claims_unfit"))
        })
    }
}

/// Why a handler got no [`Claims`].
///
/// The refusal is counted and recorded when it becomes the response.
pub struct ClaimsRejection {
    reject: Reject,
    denier: String,
    exchange: Option<Arc<Exchange>>,
}

impl ClaimsRejection {
    fn new<T>(extensions: &Extensions, reject: Reject) -> Self {
        let exchange = extensions.get::<Arc<Exchange>>().cloned();
        Self { reject, denier: format!("Claims<{}>", type_name::<T>()), exchange }
    }

    /// `claims_missing`, `claims_unfit` or `wiring`.
    pub fn reason(&self) -> &'static str {
        self.reject.reason
    }
}

impl fmt::Debug for ClaimsRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimsRejection").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

impl fmt::Display for ClaimsRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reject.kind {
            Kind::Unauthenticated => "the caller brought no token",
            Kind::Forbidden => "the claims of the caller's token do not fit",
            _ => "no mesh around this handler: serve it with mesh_tower::serve",
        })
    }
}

impl std::error::Error for ClaimsRejection {}

impl IntoResponse for ClaimsRejection {
    fn into_response(self) -> Response {
        let Some(exchange) = &self.exchange else {
            tracing::error!(reason = self.reject.reason, "{self}");
            return self.reject.into_response(false);
        };
        if self.reject != Reject::WIRING {
            exchange.set_denier(self.denier.as_str().into());
        }
        exchange.refuse(self.reject)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
    type Rejection = ClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Self::of(&parts.extensions)
    }
}

impl<S: Sync, T: DeserializeOwned> OptionalFromRequestParts<S> for Claims<T> {
    type Rejection = ClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Self::Rejection> {
        Self::optional(&parts.extensions)
    }
}
