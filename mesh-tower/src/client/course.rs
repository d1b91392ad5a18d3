//! One attempt under way: what its report will tell, and when its time is up.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::cluster::PickReason;
use mesh_core::deadline::Deadline;
use tokio::time::Instant;

use super::attempts::{AttemptNext, AttemptOutcome, AttemptReport, ConnectionWait};
use super::call::Call;
use super::deadline::unanswered;
use super::pool::Chosen;
use crate::error::Error;

/// Kept by the balancer from the pick to the headers.
#[derive(Debug)]
pub(super) struct Course {
    chosen: Arc<Chosen>,
    reason: PickReason,
    started: Instant,
    headers_by: Option<Deadline>,
    allowed: Duration,
    polled: bool,
}

impl Course {
    pub(super) fn new(chosen: Arc<Chosen>, reason: PickReason, call: &Call, now: Instant) -> Self {
        Self { chosen, reason, started: now, headers_by: call.headers_by, allowed: call.allowed, polled: false }
    }

    /// The error of a call whose time is up while it waits for this attempt.
    ///
    /// The deadline ends a call by dropping it, and with it all that is known of its attempts; so the attempt looks for
    /// itself whenever it is polled in vain, but for the first time: then it has just been sent.
    pub(super) fn overdue(&mut self) -> Option<Error> {
        let again = std::mem::replace(&mut self.polled, true);
        let due = self.headers_by.filter(|_| again)?;
        due.expired(Instant::now()).then(|| unanswered(self.allowed))
    }

    /// Nothing of the request can have been sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.chosen.progress.is_waiting()
    }

    /// The wait for a connection of an attempt that has taken so long.
    pub(super) fn wait(&self, took: Duration) -> Option<ConnectionWait> {
        let pool = self.chosen.endpoint.transport();
        self.chosen.progress.wait(took, || pool.held_up_since(self.started))
    }

    pub(super) fn report(&self, outcome: AttemptOutcome, now: Instant) -> AttemptReport {
        let endpoint = self.chosen.endpoint.endpoint();
        let took = now.saturating_duration_since(self.started);
        AttemptReport {
            endpoint: Some(endpoint.key.clone()),
            address: Some(endpoint.address),
            reason: Some(self.reason),
            wait: self.wait(took),
            took,
            outcome,
            next: AttemptNext::Answered,
        }
    }
}
