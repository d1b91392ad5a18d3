//! The proof that a caller was authenticated and let in.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use mesh_core::identity::Principal as Caller;

/// The authenticated caller, as an axum extractor and a request extension.
///
/// Only the mesh's own server stack makes one, and only after policy let the request in, so holding it is proof. In
/// tonic: `request.extensions().get::<mesh_tower::Principal>()`.
///
/// As an extractor it fails closed: an anonymous caller gets 401, and a handler that is served without the mesh
/// answers 500. `Option<Principal>` takes anonymous callers too.
///
/// ```
/// use mesh_tower::Principal;
///
/// async fn show(peer: Principal) -> String {
///     format!("hello, {peer}")
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(show));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Principal(Arc<Caller>);

impl Principal {
    pub(crate) fn new(caller: Caller) -> Self {
        Self(Arc::new(caller))
    }
}

impl Deref for Principal {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl fmt::Display for Principal {
    /// Like [`Caller`]: the SPIFFE ID, else `ISSUER/SUBJECT` of the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
