//! One attempt from its pick to the end of its answer.

use mesh_core::cluster::Pick;
use mesh_core::deadline::Deadline;
use mesh_core::health::Outcome;
use tokio::time::Instant;

use super::attempts::{AttemptReport, Attempts};
use super::limits::Held;
use super::pool::Pool;
use crate::error::{Error, ErrorKind};

/// One attempt's claim on an endpoint, and on its cluster's limits, until its body ends.
pub(crate) struct InFlight {
    pick: Option<Pick<Pool>>,
    deadline: Option<Deadline>,
    /// The deadline is a caller's, and nearer than the route's timeout.
    hurried: bool,
    _held: Held,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").field("over", &self.pick.is_none()).finish_non_exhaustive()
    }
}

impl InFlight {
    /// An attempt that counts as too slow if it is dropped, without an answer, after `deadline`.
    ///
    /// `hurried`: the deadline is a caller's own, and nearer than what the route allows.
    pub(super) fn new(pick: Pick<Pool>, deadline: Option<Deadline>, hurried: bool, held: Held) -> Self {
        Self { pick: Some(pick), deadline, hurried, _held: held }
    }

    /// Says nothing about the endpoint if it is dropped now, however late.
    pub(super) fn is_innocent(&mut self) {
        self.deadline = None;
    }

    /// The headers came.
    pub(super) fn answered(&mut self, outcome: Outcome, now: Instant) {
        // The headers have told the latency; from here on an expired deadline is the body's affair.
        self.deadline = None;
        if let Some(pick) = &mut self.pick {
            pick.headers(outcome, now);
        }
    }

    /// There will be no answer: `error` learns where the attempt went, by its report.
    pub(super) fn failed(mut self, error: Error, report: AttemptReport, now: Instant) -> Error {
        let Some(mut pick) = self.pick.take() else { return error };
        if self.hurried && self.is_late(now) {
            pick.hurried();
        }
        let outcome = match error.kind() {
            // Whoever is kept from connecting by this process has asked nothing of the endpoint.
            ErrorKind::Timeout if report.wait.is_some_and(|wait| wait.is_innocent()) => Outcome::Cancelled,
            ErrorKind::Timeout => Outcome::Timeout,
            ErrorKind::Connect | ErrorKind::PeerIdentity | ErrorKind::Connection => Outcome::Unreachable,
            // A body that the caller broke off, a token that is missing, a queue of this process that is full: not the
            // endpoint's fault.
            _ => Outcome::Cancelled,
        };
        let error = error.at_endpoint(&pick.endpoint().endpoint().key);
        pick.finish(outcome, now);
        error.with_attempts(Attempts::one(report))
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline.expired(now))
    }

    /// The answer ended: `None` as its headers said, else as its body showed.
    pub(crate) fn finish(mut self, outcome: Option<Outcome>, now: Instant) {
        if let Some(pick) = self.pick.take() {
            // An answer that its headers condemned is not redeemed by its end.
            pick.finish(outcome.unwrap_or(Outcome::Success), now);
        }
    }
}

impl Drop for InFlight {
    /// A call that is dropped because its time is up was too slow; dropped earlier, it says nothing. Without the
    /// difference a frozen endpoint would keep its good name, because nobody waits for it to the end.
    fn drop(&mut self) {
        if let Some(mut pick) = self.pick.take() {
            let now = Instant::now();
            if self.is_late(now) {
                if self.hurried {
                    pick.hurried();
                }
                pick.finish(Outcome::Timeout, now);
            }
        }
    }
}
