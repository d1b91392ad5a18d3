//! The instant by which an answer is worthless.

use std::time::Duration;

use tokio::time::Instant;

/// An instant, against a timeout, which is a duration. Monotonic: clock jumps do not move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `timeout` from `now`.
    pub fn after(now: Instant, timeout: Duration) -> Self {
        // An instant that far away cannot be represented: a year stands for never.
        Self(now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)))
    }

    /// This instant.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero when it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed.
    pub fn expired(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// The nearer of the two; a deadline is only ever shortened.
    pub fn nearest(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| self.min(other))
    }
}
