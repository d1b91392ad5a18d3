//! What makes repeating safe.

use std::time::Duration;

use super::Backoff;
use crate::config::RetryConfig;

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
}
