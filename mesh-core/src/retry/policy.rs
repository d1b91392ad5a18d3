//! What makes repeating safe, and the decision.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::Backoff;
use crate::config::RetryConfig;
use crate::deadline::Deadline;
use crate::health::Outcome;
use crate::rng::Rng;
use crate::telemetry::RetryReason;

/// What is known of a failed attempt, which decides whether it may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrySafety {
    /// The server provably did not begin it: never sent, REFUSED_STREAM, or above GOAWAY's last stream. Always safe.
    NotSent,
    /// It may have been processed, but is idempotent by method or by declaration.
    Idempotent,
    /// It may have been processed, and sending it again may do harm. Never repeated.
    MaybeProcessed,
}

/// What the server asked for beside its answer. (gRFC A6 `grpc-retry-pushback-ms`; RFC 9110 10.2.3 `Retry-After`)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushback {
    /// Nothing: the policy's own waits hold.
    #[default]
    None,
    /// Not before this time has passed.
    After(Duration),
    /// Not at all; also what a negative or unreadable pushback means.
    Never,
}

/// One attempt that was not answered well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailedAttempt {
    /// Attempts made so far, this one included; at least 1.
    pub attempts: u32,
    /// Whether it may be sent again.
    pub safety: RetrySafety,
    /// How it ended.
    pub outcome: Outcome,
    /// What the server asked for.
    pub pushback: Pushback,
    /// When an answer becomes worthless.
    pub deadline: Option<Deadline>,
}

/// Whether a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Once more, after this wait. The budget has been charged.
    Retry {
        /// How long to wait first.
        after: Duration,
        /// What to count it as.
        reason: RetryReason,
    },
    /// The last answer or error goes to the caller.
    Stop(StopReason),
}

/// Why a failed attempt is not repeated; for logs and spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It was answered well, or its caller is gone.
    #[error("nothing to repeat")]
    NotFailed,
    /// Another attempt would not mend it: the answer or error is not one of those that may go away.
    #[error("another attempt would not mend it")]
    NotRetryable,
    /// Its caller asked for one attempt.
    #[error("its caller asked for one attempt")]
    Once,
    /// More of the request body was sent than is kept (`retry.max_replay_bytes`).
    #[error("more of the request body was sent than is kept (retry.max_replay_bytes)")]
    Committed,
    /// The server may have begun it, and it is not known to be idempotent.
    #[error("the server may have processed it, and it is not idempotent")]
    MaybeProcessed,
    /// All attempts of the policy were made.
    #[error("all attempts were made")]
    Attempts,
    /// The server asked not to.
    #[error("the server asked not to repeat it")]
    Pushback,
    /// The answer is marked: its sender, or somebody behind it, says that repeating is in vain.
    #[error("its sender says that repeating is in vain")]
    Marked,
    /// The wait would outlast the deadline.
    #[error("too little time is left")]
    Deadline,
    /// The route's retry budget is exhausted.
    #[error("the retry budget is exhausted")]
    Budget,
    /// As many repeated attempts of the cluster are under way as may be (`limits.max_retries`).
    #[error("too many repeated attempts are under way (limits.max_retries)")]
    Limit,
}

impl StopReason {
    /// Whether callers further up should not try again either.
    ///
    /// Repeating would help here as little as it would there. Without it each hop adds its own budget's share, and three hops of 10 % are 33 % more at the last.
    pub fn is_in_vain(self) -> bool {
        matches!(self, Self::Budget | Self::Limit | Self::Marked | Self::Pushback)
    }
}

/// A route's retry rules, ready for use.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all.
    pub attempts: u32,
    /// How long one attempt may take.
    pub per_try_timeout: Option<Duration>,
    /// Declared by the route, if it was.
    pub idempotent: Option<bool>,
    /// The waits in between.
    pub backoff: Backoff,
    /// Bytes of a request body kept for another attempt.
    pub max_replay_bytes: usize,
}

impl RetryPolicy {
    /// What holds without a `retry:` section.
    ///
    /// Only what provably never was begun is sent again, twice at most, with Envoy's waits. 64 KiB of a body are kept
    /// for it, because a server that goes away refuses what it has received.
    pub const UNSENT_ONLY: Self = Self {
        attempts: 3,
        per_try_timeout: None,
        idempotent: Some(false),
        backoff: Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
        max_replay_bytes: 64 * 1024,
    };

    /// The rules of a route's `retry:` section.
    pub fn new(config: &RetryConfig) -> Self {
        Self {
            attempts: config.attempts,
            per_try_timeout: config.per_try_timeout,
            idempotent: config.idempotent,
            backoff: Backoff { base: config.backoff, max: config.max_backoff },
            max_replay_bytes: config.max_replay_bytes,
        }
    }

    /// Whether a request of this method may be sent twice. (RFC 9110 9.2.2)
    pub fn idempotent(&self, method: &str) -> bool {
        self.idempotent.unwrap_or(matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"))
    }

    /// Decides on a failed attempt.
    ///
    /// `pay` charges for its repetition, or says why that cannot be.
    ///
    /// It is asked last, so that nothing is spent on a retry that another rule forbids: a place among the repeated attempts
    /// first, then [`RetryBudget::withdraw`]. Unsent attempts pay too: in an outage they are the storm.
    ///
    /// [`RetryBudget::withdraw`]: super::RetryBudget::withdraw
    pub fn decide(
        &self,
        failed: &FailedAttempt,
        rng: &Rng,
        now: Instant,
        pay: impl FnOnce() -> Result<(), StopReason>,
    ) -> RetryDecision {
        use RetryDecision::Stop;
        let reason = match (failed.outcome, failed.safety) {
            (Outcome::Success | Outcome::Cancelled, _) => return Stop(StopReason::NotFailed),
            (_, RetrySafety::MaybeProcessed) => return Stop(StopReason::MaybeProcessed),
            (_, RetrySafety::NotSent) => RetryReason::NotSent,
            (Outcome::Failure { .. }, RetrySafety::Idempotent) => RetryReason::Failure,
            (Outcome::Timeout, RetrySafety::Idempotent) => RetryReason::Timeout,
            (Outcome::Unreachable, RetrySafety::Idempotent) => RetryReason::Unreachable,
        };
        if failed.attempts >= self.attempts {
            return Stop(StopReason::Attempts);
        }
        let after = match failed.pushback {
            Pushback::None => self.backoff.wait(failed.attempts.saturating_sub(1), rng),
            Pushback::After(wait) => wait,
            Pushback::Never => return Stop(StopReason::Pushback),
        };
        if failed.deadline.is_some_and(|deadline| deadline.remaining(now) <= after) {
            return Stop(StopReason::Deadline);
        }
        match pay() {
            Ok(()) => RetryDecision::Retry { after, reason },
            Err(reason) => Stop(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RetryBudget;
    use super::*;
    use crate::config::BudgetConfig;

    const UNREACHABLE: FailedAttempt = FailedAttempt {
        attempts: 1,
        safety: RetrySafety::NotSent,
        outcome: Outcome::Unreachable,
        pushback: Pushback::None,
        deadline: None,
    };

    #[test]
    fn decides_by_safety_attempts_pushback_deadline_and_budget_in_this_order() {
        use RetryDecision::Stop;
        let now = Instant::now();
        let policy = RetryPolicy::new(&RetryConfig { backoff: Duration::ZERO, ..RetryConfig::default() });
        let soon = Some(Deadline::after(now, Duration::from_secs(1)));
        let failure = Outcome::Failure { retry_after: None };
        let idempotent = FailedAttempt { safety: RetrySafety::Idempotent, ..UNREACHABLE };
        let again = |reason| RetryDecision::Retry { after: Duration::ZERO, reason };
        let cases = [
            (UNREACHABLE, again(RetryReason::NotSent)),
            (FailedAttempt { outcome: failure, ..idempotent }, again(RetryReason::Failure)),
            (FailedAttempt { outcome: Outcome::Timeout, ..idempotent }, again(RetryReason::Timeout)),
            (idempotent, again(RetryReason::Unreachable)),
            (FailedAttempt { attempts: 2, deadline: soon, ..idempotent }, again(RetryReason::Unreachable)),
            (FailedAttempt { outcome: Outcome::Success, ..idempotent }, Stop(StopReason::NotFailed)),
            (FailedAttempt { outcome: Outcome::Cancelled, ..UNREACHABLE }, Stop(StopReason::NotFailed)),
            (FailedAttempt { safety: RetrySafety::MaybeProcessed, ..UNREACHABLE }, Stop(StopReason::MaybeProcessed)),
            (FailedAttempt { attempts: 3, ..UNREACHABLE }, Stop(StopReason::Attempts)),
            (FailedAttempt { pushback: Pushback::Never, ..UNREACHABLE }, Stop(StopReason::Pushback)),
            (
                FailedAttempt { pushback: Pushback::After(Duration::from_secs(2)), deadline: soon, ..UNREACHABLE },
                Stop(StopReason::Deadline),
            ),
            (
                FailedAttempt { pushback: Pushback::After(Duration::from_secs(2)), ..UNREACHABLE },
                RetryDecision::Retry { after: Duration::from_secs(2), reason: RetryReason::NotSent },
            ),
        ];
        for (failed, expected) in cases {
            let from =
                |budget: RetryBudget| move || if budget.withdraw(now) { Ok(()) } else { Err(StopReason::Budget) };
            let budget = RetryBudget::new(BudgetConfig::default(), now);
            assert_eq!(policy.decide(&failed, &Rng::seeded(1), now, from(budget)), expected, "{failed:?}");
            let empty =
                RetryBudget::new(BudgetConfig { ratio: 0.0, min_per_second: 0, ..BudgetConfig::default() }, now);
            let unpaid = match expected {
                RetryDecision::Retry { .. } => Stop(StopReason::Budget),
                stop => stop,
            };
            assert_eq!(policy.decide(&failed, &Rng::seeded(1), now, from(empty)), unpaid, "{failed:?}");
        }
    }

    #[test]
    fn without_a_policy_only_the_unsent_is_repeated() {
        let policy = RetryPolicy::UNSENT_ONLY;
        assert!(!policy.idempotent("GET"));
        assert_eq!(policy.max_replay_bytes, 65_536);
        let declared = RetryPolicy { idempotent: Some(true), ..policy.clone() };
        assert!(declared.idempotent("POST"));
        let by_method = RetryPolicy { idempotent: None, ..policy };
        assert!(by_method.idempotent("PUT") && !by_method.idempotent("POST") && !by_method.idempotent("get"));
    }
}
