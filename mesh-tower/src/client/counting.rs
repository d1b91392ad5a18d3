//! One count for each call, taken when the last byte of its answer was read, or when nobody waits for it any more.

use std::sync::Arc;

use mesh_core::health::Outcome;
use mesh_core::telemetry::{ClusterMetrics, RequestOutcome};
use tokio::time::Instant;

use super::call::Observed;
use crate::error::ErrorKind;

/// Counts a call that the caller gives up before its headers.
pub(super) struct Counting {
    observed: Observed,
    unrouted: Arc<ClusterMetrics>,
    started: Instant,
    over: bool,
}

impl Counting {
    /// Begins now. What is not routed is counted in `unrouted`.
    pub(super) fn begin(observed: Observed, unrouted: Arc<ClusterMetrics>) -> Self {
        Self { observed, unrouted, started: Instant::now(), over: false }
    }

    fn metrics(&self) -> &Arc<ClusterMetrics> {
        self.observed.0.metrics.get().unwrap_or(&self.unrouted)
    }

    /// The answer began; the rest is the guard's.
    pub(super) fn answered(&mut self, outcome: Outcome) -> CallGuard {
        self.headers(of_outcome(outcome))
    }

    /// There will be no answer.
    pub(super) fn failed(&mut self, kind: ErrorKind) {
        drop(self.headers(of_error(kind)));
    }

    fn headers(&mut self, outcome: RequestOutcome) -> CallGuard {
        self.over = true;
        let metrics = Arc::clone(self.metrics());
        metrics.request_duration.observe(self.started.elapsed());
        CallGuard { metrics, outcome }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if !self.over {
            self.metrics().requests.inc(RequestOutcome::Cancelled);
        }
    }
}

/// Counts the call when its body ends, or is dropped: then as the headers said.
#[derive(Debug)]
pub(crate) struct CallGuard {
    metrics: Arc<ClusterMetrics>,
    outcome: RequestOutcome,
}

impl CallGuard {
    /// The body said more than the headers.
    pub(crate) fn finish(mut self, outcome: Option<Outcome>) {
        if let (Some(outcome), RequestOutcome::Success) = (outcome, self.outcome) {
            self.outcome = of_outcome(outcome);
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.metrics.requests.inc(self.outcome);
    }
}

fn of_outcome(outcome: Outcome) -> RequestOutcome {
    match outcome {
        Outcome::Success => RequestOutcome::Success,
        Outcome::Failure { .. } => RequestOutcome::Failure,
        Outcome::Timeout => RequestOutcome::Timeout,
        Outcome::Unreachable => RequestOutcome::Unreachable,
        Outcome::Cancelled => RequestOutcome::Cancelled,
    }
}

fn of_error(kind: ErrorKind) -> RequestOutcome {
    match kind {
        ErrorKind::Timeout => RequestOutcome::Timeout,
        ErrorKind::Connect | ErrorKind::PeerIdentity | ErrorKind::Connection => RequestOutcome::Unreachable,
        ErrorKind::Unresolved | ErrorKind::NoEndpoints => RequestOutcome::NoEndpoints,
        ErrorKind::Unroutable => RequestOutcome::NoRoute,
        ErrorKind::Overloaded | ErrorKind::LimitReached => RequestOutcome::Overloaded,
        _ => RequestOutcome::Internal,
    }
}
