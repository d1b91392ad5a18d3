//! What a tonic handler can ask of its request.

use mesh_tower::Principal;
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
}

impl<T> RequestExt for Request<T> {
    fn principal(&self) -> Result<&Principal, Status> {
        match self.extensions().get::<Principal>() {
            Some(principal) if principal.is_anonymous() => Err(Status::unauthenticated("authentication required")),
            Some(principal) => Ok(principal),
            None => Err(Status::internal("internal error")),
        }
    }
}
