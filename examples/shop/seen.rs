//! What a handler shows of what the mesh gave it. A real service needs none of this.

use mesh_tower::{Principal, RequestContext};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::pb;

/// Who called, and what came along without a line of code in the handlers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) service: String,
    pub(crate) peer: String,
    pub(crate) trace_id: String,
    pub(crate) deadline_ms: u64,
}

impl Seen {
    /// As it is in the handler that calls this.
    pub(crate) fn here(service: &str, peer: Option<&Principal>) -> Self {
        let context = RequestContext::current();
        let left =
            context.as_ref().and_then(RequestContext::deadline).map(|deadline| deadline.remaining(Instant::now()));
        Self {
            service: service.to_owned(),
            peer: peer.map_or_else(|| "anonymous".to_owned(), ToString::to_string),
            trace_id: context.map(|context| context.trace().trace_id_hex()).unwrap_or_default(),
            deadline_ms: left.and_then(|left| u64::try_from(left.as_millis()).ok()).unwrap_or_default(),
        }
    }
}

impl From<Seen> for pb::Seen {
    fn from(seen: Seen) -> Self {
        let Seen { service, peer, trace_id, deadline_ms } = seen;
        Self { service, peer, trace_id, deadline_ms }
    }
}

impl From<pb::Seen> for Seen {
    fn from(seen: pb::Seen) -> Self {
        let pb::Seen { service, peer, trace_id, deadline_ms } = seen;
        Self { service, peer, trace_id, deadline_ms }
    }
}
