//! Whether a failed attempt is repeated, and when.

use std::time::Duration;

use http::{Extensions, Method, Response};
use mesh_core::health::Outcome;
use mesh_core::retry::{FailedAttempt, Pushback, RetryDecision, RetryPolicy, RetrySafety, StopReason};
use mesh_core::rng::Rng;
use mesh_core::route::Route;
use mesh_core::telemetry::RetryReason;
use tokio::time::Instant;

use crate::classify::{Class, NO_RETRY};
use crate::client::Body;
use crate::client::attempts::AttemptNext;
use crate::client::call::{Call, Idempotent};
use crate::client::limits::Overflow;
use crate::client::replay::Replay;
use crate::error::{Error, ErrorKind};
use crate::places::Place;

/// How one attempt ended.
pub(super) type Answer = Result<Response<Body>, Error>;

/// One more attempt: when, why it is safe, and its place among the repeated ones or those that wait to be.
pub(super) struct Again {
    pub(super) wait: Duration,
    pub(super) reason: RetryReason,
    pub(super) place: Option<Place>,
    /// It waits because the endpoint asked for it, and has its place among the repeated ones only then.
    pub(super) postponed: bool,
}

/// Whether a request may be sent again although it may have been processed.
pub(in crate::client) fn is_idempotent(route: &Route, method: &Method, extensions: &Extensions) -> bool {
    let declared = extensions.get::<Idempotent>().is_some();
    // Without rules of its own a route repeats only what was never sent, whatever the caller vouches for.
    route.retry.as_ref().is_some_and(|retry| declared || retry.idempotent(method.as_str()))
}

/// What one call's route allows.
pub(super) struct Rules {
    pub(super) call: Call,
    /// Sent at most once, come what may.
    pub(super) once: bool,
    /// May be sent again although it may have been processed.
    pub(super) idempotent: bool,
}

impl Rules {
    pub(super) fn policy(&self) -> &RetryPolicy {
        self.call.route.retry_policy()
    }

    /// Whether to send again, after which wait. Core decides; here it is found out what happened.
    pub(super) fn repeat(
        &self,
        answer: &Answer,
        class: Option<Class>,
        made: usize,
        replay: &Replay,
        rng: &Rng,
    ) -> Result<Again, AttemptNext> {
        const NOT_RETRYABLE: AttemptNext = AttemptNext::Stopped(StopReason::NotRetryable);
        // Somebody further down has said so, for all who are above: also where it is not repeated here for other reasons.
        if class.is_some_and(|class| class.pushback == Pushback::Never && class.outcome != Outcome::Success) {
            return Err(AttemptNext::Stopped(told(answer)));
        }
        let (safety, outcome, pushback) = match (answer, class) {
            (Err(error), _) => {
                let safety = if error.is_never_sent() { RetrySafety::NotSent } else { self.processed() };
                (safety, of_error(error.kind()).ok_or(NOT_RETRYABLE)?, Pushback::None)
            }
            (Ok(_), Some(class)) if class.retryable => (self.processed(), class.outcome, class.pushback),
            (Ok(_), Some(class)) if class.outcome != Outcome::Success => return Err(NOT_RETRYABLE),
            (Ok(_), _) => return Err(AttemptNext::Answered),
        };
        if self.once {
            return Err(AttemptNext::Stopped(StopReason::Once));
        }
        if !replay.is_whole() {
            return Err(AttemptNext::Stopped(StopReason::Committed));
        }
        let attempts = u32::try_from(made).unwrap_or(u32::MAX).saturating_add(1);
        let failed = FailedAttempt { attempts, safety, outcome, pushback, deadline: self.call.headers_by };
        let route = &self.call.route;
        let metrics = self.call.cluster.cluster.metrics();
        let (limits, now) = (&self.call.cluster.limits, Instant::now());
        let postponed = matches!(pushback, Pushback::After(wait) if !wait.is_zero());
        let mut place = None;
        let decision = self.policy().decide(&failed, rng, now, || {
            place = if postponed { limits.postpone() } else { limits.retry() }.map_err(|Overflow| StopReason::Limit)?;
            if route.budget.withdraw(now) { Ok(()) } else { Err(StopReason::Budget) }
        });
        match decision {
            RetryDecision::Retry { after, reason } => Ok(Again { wait: after, reason, place, postponed }),
            RetryDecision::Stop(reason) => {
                match reason {
                    StopReason::Budget => _ = metrics.budget_exhausted.inc(),
                    StopReason::Limit => limits.retry_refused(),
                    _ => {}
                }
                Err(AttemptNext::Stopped(reason))
            }
        }
    }

    /// The place among the repeated attempts of one whose wait is over.
    pub(super) fn place(&self, again: &mut Again) -> Result<Option<Place>, Overflow> {
        let cluster = &self.call.cluster;
        let mut place = again.place.take();
        if again.postponed {
            drop(place);
            place = cluster.limits.retry().inspect_err(|_| cluster.limits.retry_refused())?;
        }
        cluster.cluster.metrics().retries.inc(again.reason);
        Ok(place)
    }

    fn processed(&self) -> RetrySafety {
        if self.idempotent { RetrySafety::Idempotent } else { RetrySafety::MaybeProcessed }
    }
}

/// How an answer says that it is not to be repeated: it is marked, or its sender asks not to.
fn told(answer: &Answer) -> StopReason {
    let marked = answer.as_ref().is_ok_and(|response| {
        response.headers().contains_key(NO_RETRY)
            || response.body().peeked_trailers().is_some_and(|trailers| trailers.contains_key(NO_RETRY))
    });
    if marked { StopReason::Marked } else { StopReason::Pushback }
}

/// `None` for what another attempt cannot mend.
fn of_error(kind: ErrorKind) -> Option<Outcome> {
    Some(match kind {
        ErrorKind::Timeout => Outcome::Timeout,
        ErrorKind::Overloaded => Outcome::Failure { retry_after: None },
        ErrorKind::Connect | ErrorKind::PeerIdentity | ErrorKind::Connection | ErrorKind::Body => Outcome::Unreachable,
        _ => return None,
    })
}
