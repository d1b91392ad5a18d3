//! What an attempt says about the endpoint that it was sent to.

use std::time::Duration;

use crate::telemetry::AttemptOutcome;

/// How an attempt ended, as far as the endpoint's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the answer does not speak against it (also 4xx, and gRPC codes that blame the caller).
    Success,
    /// It answered with an error of its own (5xx, 429; UNAVAILABLE, INTERNAL, ...), maybe with the wait it asked for.
    Failure {
        /// `Retry-After` or `grpc-retry-pushback-ms`.
        retry_after: Option<Duration>,
    },
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, or the connection broke.
    Unreachable,
    /// The caller went away first: says nothing about the endpoint.
    Cancelled,
}

impl Outcome {
    pub(crate) fn label(self) -> AttemptOutcome {
        match self {
            Self::Success => AttemptOutcome::Success,
            Self::Failure { .. } => AttemptOutcome::Failure,
            Self::Timeout => AttemptOutcome::Timeout,
            Self::Unreachable => AttemptOutcome::Unreachable,
            Self::Cancelled => AttemptOutcome::Cancelled,
        }
    }

    /// One of this kind that asks for no wait.
    pub(crate) fn of(label: AttemptOutcome) -> Self {
        match label {
            AttemptOutcome::Success => Self::Success,
            AttemptOutcome::Failure => Self::Failure { retry_after: None },
            AttemptOutcome::Timeout => Self::Timeout,
            AttemptOutcome::Unreachable => Self::Unreachable,
            AttemptOutcome::Cancelled => Self::Cancelled,
        }
    }

    pub(crate) fn speaks_against(self) -> bool {
        matches!(self, Self::Failure { .. } | Self::Timeout | Self::Unreachable)
    }
}
