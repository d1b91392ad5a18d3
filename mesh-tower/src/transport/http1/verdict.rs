//! What the guard found, for the edge that must answer it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::framing::Refused;
use super::refusal::Refusal;

/// Which request of a connection is the refused one. hyper takes heads one at a time and in order, so counting is enough.
#[derive(Debug, Default)]
pub(in crate::transport) struct Verdict {
    refused: OnceLock<Refused>,
    requests: AtomicU64,
}

impl Verdict {
    pub(super) fn refuse(&self, refused: Refused) {
        let _ = self.refused.set(refused); // the first ends the connection
    }

    /// Takes note of the next request: whether it stands for one that was refused.
    pub(in crate::transport) fn next_request(&self) -> Option<Refusal> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused.get()?;
        (refused.head == Some(before)).then_some(refused.refusal)
    }

    /// Why the connection was refused, if it was.
    pub(in crate::transport) fn refused(&self) -> Option<Refusal> {
        self.refused.get().map(|refused| refused.refusal)
    }
}
