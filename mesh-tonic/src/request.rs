//! What a tonic handler can ask of its request.

use axum::response::IntoResponse;
use mesh_tower::{Claims, ClaimsRejection, Principal};
use serde::de::DeserializeOwned;
use tonic::{Request, Status};

/// The caller of a gRPC request, as the mesh's server stack proved it.
///
/// ```
/// use mesh_tonic::RequestExt;
/// use tonic::{Request, Response, Status};
///
/// async fn charge(request: Request<String>) -> Result<Response<String>, Status> {
///     let caller = request.principal()?;
///     Ok(Response::new(format!("charged for {caller}")))
/// }
/// ```
pub trait RequestExt {
    /// Who called. Fails closed: without the mesh's server stack there is no principal, and the status is INTERNAL, as
    /// that is our mistake and not the caller's; an anonymous caller that policy let in is UNAUTHENTICATED.
    fn principal(&self) -> Result<&Principal, Status>;

    /// The claims of the caller's verified token, as [`mesh_tower::Claims`] has them: UNAUTHENTICATED where none came,
    /// PERMISSION_DENIED where they are no `C`, INTERNAL without the mesh's server stack.
    ///
    /// An error is a refusal, counted and recorded as one: where a token may be missing, ask [`Claims::optional`] of the
    /// request's extensions.
    ///
    /// ```
    /// # use mesh_tonic::RequestExt;
    /// # use tonic::{Request, Response, Status};
    /// #[derive(serde::Deserialize)]
    /// struct Tenant {
    ///     tenant_id: u64,
    /// }
    ///
    /// async fn charge(request: Request<String>) -> Result<Response<String>, Status> {
    ///     let Tenant { tenant_id } = request.claims()?;
    ///     Ok(Response::new(format!("charged for tenant {tenant_id}")))
    /// }
    /// ```
    fn claims<C: DeserializeOwned>(&self) -> Result<C, Status>;
}

impl<T> RequestExt for Request<T> {
    fn principal(&self) -> Result<&Principal, Status> {
        match self.extensions().get::<Principal>() {
            Some(principal) if principal.is_anonymous() => Err(Status::unauthenticated("authentication required")),
            Some(principal) => Ok(principal),
            None => Err(Status::internal("internal error")),
        }
    }

    fn claims<C: DeserializeOwned>(&self) -> Result<C, Status> {
        Claims::of(self.extensions()).map(|Claims(claims)| claims).map_err(refused)
    }
}

/// The status of the response that says the same; making that response is what counts and records it.
fn refused(rejection: ClaimsRejection) -> Status {
    let response = rejection.into_response();
    let told = Status::from_header_map(response.headers());
    told.map_or_else(|| Status::internal("internal error"), |told| Status::new(told.code(), told.message()))
}
