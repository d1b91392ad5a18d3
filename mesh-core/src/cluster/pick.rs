//! One attempt's claim on an endpoint.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::EndpointState;
use super::endpoint::since;
use super::group::Slot;
use super::settings::AttemptSettings;
use crate::balance::Tick;
use crate::health::Outcome;
use crate::telemetry::AttemptOutcome;

/// The longest wait that an endpoint's own word may add to its latency. (Linkerd)
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A timeout says only that the answer would have taken longer. Counted as the time waited it would look like a slow
/// success; three times as long keeps traffic away (measured: with a third of it, a black hole still draws 0.1 %).
const TIMEOUT_FACTOR: u32 = 3;

/// Whoever gives an endpoint less than this times what the others take learns nothing about it.
const LEAST_FACTOR: u32 = 2;

/// An endpoint chosen for one attempt.
///
/// Counts as in flight until [`finish`](Self::finish) or drop. Dropped before [`headers`](Self::headers) it counts as
/// [`Outcome::Cancelled`]; dropped after, as what the headers said.
///
/// An attempt has one verdict: a failure told by the headers stands whatever follows, and a body or trailers that fail
/// overrule headers that did not.
///
/// Where it is the probe of a half-open breaker, that one verdict closes or opens it again; cancelled, headers or not, it
/// gives its place to the next request.
pub struct Pick<T> {
    endpoint: Arc<EndpointState<T>>,
    settings: AttemptSettings,
    started: Instant,
    /// What they said; the wait that they asked for is in the sample already.
    headers: Option<AttemptOutcome>,
    /// This attempt is the one that a half-open breaker lets through.
    probe: Option<NonZeroU64>,
    /// A timeout is that of a caller's own deadline.
    hurried: bool,
    over: bool,
}

impl<T> Pick<T> {
    /// By way of its state, the vitals would be two steps in memory; the slot's own are in the cache by now.
    #[inline]
    pub(super) fn new(slot: &Slot<T>, settings: &AttemptSettings, probe: Option<u64>, now: Instant) -> Self {
        let vitals = &slot.vitals;
        vitals.in_flight.fetch_add(1, Relaxed);
        if settings.count_active {
            vitals.shared.active.fetch_add(1, Relaxed);
        }
        let endpoint = Arc::clone(&slot.state);
        // Probes are numbered from 1.
        let probe = probe.and_then(NonZeroU64::new);
        Self { endpoint, settings: *settings, started: now, headers: None, probe, hurried: false, over: false }
    }

    /// The chosen endpoint.
    pub fn endpoint(&self) -> &Arc<EndpointState<T>> {
        &self.endpoint
    }

    /// The response headers (or trailers-only) arrived.
    ///
    /// The latency sample ends here, the load stays until the end.
    pub fn headers(&mut self, outcome: Outcome, now: Instant) {
        if self.headers.replace(outcome.label()).is_some() {
            return;
        }
        self.sample(outcome, now);
        if outcome.speaks_against() {
            self.judge(outcome, false, now);
        } else {
            self.answered(now);
        }
    }

    fn answered(&self, now: Instant) {
        let vitals = &self.endpoint.live.vitals;
        vitals.outlier.answered();
        if self.probe.is_some()
            && let Some(at) = vitals.outlier.probe_answered(since(vitals.shared.epoch, now), &self.settings.rules)
        {
            vitals.shared.next_return.by(at);
        }
    }

    /// The time that is up is what a caller gave, not what is configured.
    ///
    /// A timeout without headers then speaks against the endpoint only if it had twice the time that the others take: or
    /// whoever calls with a deadline that nobody can keep would have good endpoints ejected.
    pub fn hurried(&mut self) {
        self.hurried = true;
    }

    /// Whether nobody could have been expected to answer by now.
    fn had_no_time(&self, now: Instant) -> bool {
        let Some(core) = self.endpoint.live.core.upgrade() else { return false };
        let usual = core.set.load().usual_latency(&self.endpoint.live.vitals);
        let had = now.saturating_duration_since(self.started);
        usual.is_some_and(|usual| had < usual.saturating_mul(LEAST_FACTOR))
    }

    /// The attempt is over.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        self.end(outcome, now);
    }

    fn end(&mut self, outcome: Outcome, now: Instant) {
        self.over = true;
        let hurried = self.hurried && outcome == Outcome::Timeout && self.headers.is_none();
        let outcome = if hurried && self.had_no_time(now) { Outcome::Cancelled } else { outcome };
        let vitals = &self.endpoint.live.vitals;
        let last = vitals.in_flight.fetch_sub(1, Relaxed) == 1;
        if self.settings.count_active {
            vitals.shared.active.fetch_sub(1, Relaxed);
        }
        // Before this attempt's own sample.
        let silent = last && !vitals.ewma.changed_since(Tick::at(vitals.shared.epoch, self.started));
        let headers = self.headers.map(Outcome::of);
        let verdict = match headers {
            Some(told) if told.speaks_against() || outcome == Outcome::Cancelled => told,
            _ => outcome,
        };
        vitals.shared.metrics.attempts.inc(verdict.label());
        match headers {
            None => {
                self.sample(verdict, now);
                self.judge(verdict, silent, now);
            }
            Some(told) if told.speaks_against() => {}
            Some(_) => {
                if verdict.speaks_against() {
                    self.sample(verdict, now);
                }
                // Good headers do not prove an endpoint whose answer nobody heard to its end.
                let unproven = self.probe.is_some() && outcome == Outcome::Cancelled;
                self.judge(if unproven { Outcome::Cancelled } else { verdict }, false, now);
            }
        }
    }

    fn sample(&self, outcome: Outcome, now: Instant) {
        let (decay, penalty) = (self.settings.decay, self.settings.penalty());
        let (vitals, elapsed) = (&self.endpoint.live.vitals, now.saturating_duration_since(self.started));
        let tick = Tick::at(vitals.shared.epoch, now);
        match outcome {
            Outcome::Success => vitals.ewma.record(elapsed, tick, decay),
            // The endpoint would have taken at least this long: never let that pass for a fast answer.
            Outcome::Cancelled => vitals.ewma.record_at_least(elapsed, tick, decay),
            Outcome::Failure { retry_after } => {
                let asked = retry_after.unwrap_or(penalty).min(MAX_RETRY_AFTER);
                vitals.ewma.record(elapsed.max(penalty).max(asked), tick, decay);
            }
            Outcome::Unreachable => vitals.ewma.record(elapsed.max(penalty), tick, decay),
            Outcome::Timeout => {
                vitals.ewma.record(elapsed.saturating_mul(TIMEOUT_FACTOR).max(penalty), tick, decay);
            }
        }
    }

    fn judge(&mut self, outcome: Outcome, silent: bool, now: Instant) {
        let live = &self.endpoint.live;
        if let Some(probe) = self.probe.take() {
            if let Some(core) = live.core.upgrade() {
                core.probed(live, probe.get(), outcome, now);
            }
            return;
        }
        let at = since(live.vitals.shared.epoch, now);
        let Some(reason) = live.vitals.outlier.observe(outcome, silent, at, &self.settings.rules) else { return };
        if let Some(core) = live.core.upgrade() {
            core.eject(live, reason, now);
        }
    }
}

impl<T> Drop for Pick<T> {
    fn drop(&mut self) {
        if !self.over {
            self.end(Outcome::Cancelled, Instant::now());
        }
    }
}

impl<T> fmt::Debug for Pick<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick").field("endpoint", &self.endpoint).field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// Discovery has not answered yet.
    #[error("endpoints are not known yet")]
    Unresolved,
    /// Discovery says that there are none.
    #[error("the cluster has no endpoints")]
    Empty,
    /// There are some, but none in the regions that the cluster's `residency` allows.
    #[error("no endpoint is in a region that the cluster's `residency` allows")]
    Residency,
    /// Too few endpoints are available, and the cluster's `balance.panic` forbids to use those that are out.
    #[error("too few endpoints are available, and `balance.panic` forbids to use those that are out")]
    Unavailable,
}
