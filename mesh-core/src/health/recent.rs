//! One endpoint's successes and failures over the last seconds, exactly.

use crate::balance::millis;
use crate::config::BreakerConfig;
use crate::window::{SLOTS, Window};

/// When too few succeed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecentRule {
    /// The length of a slot in milliseconds, at least 1.
    slot: u64,
    min_requests: u64,
    /// 0 switches it off.
    success_rate: f64,
}

impl RecentRule {
    pub(super) fn of(breaker: &BreakerConfig) -> Self {
        Self {
            slot: (millis(breaker.window) / SLOTS as u64).max(1),
            min_requests: breaker.min_requests.into(),
            success_rate: breaker.success_rate,
        }
    }

    /// The whole window, in milliseconds.
    pub(super) fn window(self) -> u64 {
        self.slot.saturating_mul(SLOTS as u64)
    }
}

/// Two sliding windows. A weighted average would let a burst of failures vanish behind the rate of what came before.
#[derive(Debug, Default)]
pub(super) struct Recent {
    successes: Window,
    failures: Window,
}

impl Recent {
    pub(super) fn succeeded(&self, now: u64, rule: RecentRule) {
        self.successes.add(slot(now, rule));
    }

    /// Whether too few succeed now. Only a failure can make it so.
    pub(super) fn failed(&self, now: u64, rule: RecentRule) -> bool {
        let slot = slot(now, rule);
        self.failures.add(slot);
        let (successes, failures) = (self.successes.sum(slot), self.failures.sum(slot));
        let all = successes + failures;
        // 0.7 * 10 is a little more than 7 in binary; it is meant to be 7.
        all >= rule.min_requests && (successes as f64) < rule.success_rate * all as f64 - 1e-9
    }

    pub(super) fn clear(&self) {
        self.successes.clear();
        self.failures.clear();
    }
}

/// Truncation is a wrap, after 13 years of the shortest slots.
fn slot(now: u64, rule: RecentRule) -> u32 {
    (now / rule.slot) as u32
}
