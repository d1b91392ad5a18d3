//! A record that must be written before its request may go on: who still waits, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use uuid::Uuid;

const QUEUED: u8 = 0;
const WITHDRAWN: u8 = 1;
const TAKEN: u8 = 2;
const WRITTEN: u8 = 3;
const FAILED: u8 = 4;
const ABANDONED: u8 = 5;

/// One record's way to the sink, seen from the request.
///
/// ```text
///   QUEUED --taken--> TAKEN --sink--> WRITTEN
///      |              |   |
///   withdrawn    failed   withdrawn
///      v              v   v
///   WITHDRAWN    FAILED   ABANDONED --failed--> counted as lost
/// ```
///
/// Where it is withdrawn or failed, the record is nowhere, and the request may write another.
#[derive(Debug, Clone)]
pub struct Ticket {
    id: Uuid,
    state: Arc<AtomicU8>,
}

impl Ticket {
    pub(super) fn new(id: Uuid) -> Self {
        Self { id, state: Arc::new(AtomicU8::new(QUEUED)) }
    }

    /// The id of the record.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Takes the record back.
    ///
    /// `true`: it is in no trail and will be in none. `false`: it is written, or just being written; if that fails, it
    /// is counted as lost.
    pub fn withdraw(&self) -> bool {
        let given_up = |state| match state {
            QUEUED => Some(WITHDRAWN),
            TAKEN => Some(ABANDONED),
            _ => None,
        };
        let before =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, given_up).unwrap_or_else(|state| state);
        matches!(before, QUEUED | WITHDRAWN | FAILED)
    }

    /// Whether the sink has it.
    pub fn is_written(&self) -> bool {
        self.state.load(Ordering::Acquire) == WRITTEN
    }

    /// `false`: nobody wants it any more.
    pub(super) fn take(&self) -> bool {
        self.state.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// `true`: it was not written, and its request has gone on in the belief that it would be.
    pub(super) fn settle(&self, written: bool) -> bool {
        let before = self.state.swap(if written { WRITTEN } else { FAILED }, Ordering::AcqRel);
        !written && before == ABANDONED
    }
}

/// A record that had to be written was not: the request must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAudited {
    /// The queue is full: the sink is stuck or too slow.
    #[error("the audit queue is full")]
    QueueFull,
    /// The sink took longer than the request waits.
    #[error("the audit sink did not answer in time")]
    TimedOut,
    /// The sink refused it, as a full disk does.
    #[error("the audit sink failed")]
    Failed,
}
