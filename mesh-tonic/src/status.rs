//! From the mesh's errors to gRPC's.

use std::sync::Arc;

use mesh_tower::classify::forbid_retry;
use mesh_tower::{Error, ErrorKind};
use tonic::{Code, Status};

/// The status of a call that the mesh could not complete.
///
/// Its message is bare, because a handler that passes it on with `?` sends it to its own caller; the whole story is the
/// status's `source`, which never goes over the wire.
pub fn status(error: Error) -> Status {
    let (code, message) = match error.kind() {
        ErrorKind::Timeout => (Code::DeadlineExceeded, "deadline exceeded"),
        ErrorKind::Unresolved
        | ErrorKind::NoEndpoints
        | ErrorKind::Connect
        | ErrorKind::PeerIdentity
        | ErrorKind::OwnIdentity
        | ErrorKind::Connection
        | ErrorKind::Overloaded
        | ErrorKind::LimitReached
        | ErrorKind::Body => (Code::Unavailable, "upstream unavailable"),
        _ => (Code::Internal, "upstream call failed"),
    };
    let mut status = Status::new(code, message);
    if error.is_in_vain() {
        // Retries that multiply from hop to hop turn a small outage into a large one.
        forbid_retry(status.metadata_mut().as_mut());
    }
    status.set_source(Arc::new(error));
    status
}
