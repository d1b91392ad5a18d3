//! The instant by which an answer is worthless.

use std::time::Duration;

use tokio::time::Instant;

/// An instant, against a timeout, which is a duration.
///
/// Monotonic: clock jumps do not move it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_only_ever_shortened_and_never_underflows() {
        let now = Instant::now();
        let after = |secs| Deadline::after(now, Duration::from_secs(secs));
        assert_eq!(after(2).nearest(Some(after(1))), after(1));
        assert_eq!(after(1).nearest(Some(after(2))), after(1));
        assert_eq!(after(1).nearest(None), after(1));
        let passed = after(1).instant();
        assert!(after(1).expired(passed) && !after(2).expired(passed));
        assert_eq!(after(1).remaining(passed + Duration::from_secs(9)), Duration::ZERO);
        assert!(!Deadline::after(now, Duration::MAX).expired(passed), "too far away to be represented");
    }
}
