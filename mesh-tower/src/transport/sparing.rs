//! Log lines that strangers can provoke, kept to a rate that leaves the log readable.
//!
//! Whoever reaches the port can have handshakes refused as fast as it connects. A line for each would fill the disk and
//! hide the one that matters; metrics count every one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One line of a reason in this time.
const PERIOD: Duration = Duration::from_secs(1);

/// When each reason was logged last, and how often it was not since.
///
/// Reasons are names in our code, so the map is bounded.
#[derive(Debug, Default)]
pub(crate) struct Sparing(Mutex<BTreeMap<&'static str, (Instant, u64)>>);

impl Sparing {
    /// Whether a line about `reason` may be written now, and how many were left out before it.
    pub(crate) fn line(&self, reason: &'static str, now: Instant) -> Option<u64> {
        // A map that a panic left is whole.
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reasons.get_mut(reason) {
            Some((last, left_out)) if now.saturating_duration_since(*last) < PERIOD => {
                *left_out = left_out.saturating_add(1);
                None
            }
            known => {
                let left_out = known.map_or(0, |(_, left_out)| *left_out);
                reasons.insert(reason, (now, 0));
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_for_each_reason_and_none_forgotten() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for (reason, millis, expected) in [
            ("expired", 0, Some(0)),
            ("expired", 10, None),
            ("expired", 999, None),
            ("untrusted", 999, Some(0)), // another reason is not drowned
            ("expired", 1_000, Some(2)),
            ("expired", 1_999, None),
            ("expired", 5_000, Some(1)),
            ("expired", 9_000, Some(0)),
        ] {
            assert_eq!(sparing.line(reason, at(millis)), expected, "{reason} at {millis} ms");
        }
    }
}
