//! One endpoint's successes and failures over the last seconds, exactly.

use std::num::NonZeroU32;

use crate::balance::millis;
use crate::config::BreakerConfig;
use crate::window::{SLOTS, Window};

/// When too few succeed. Small: each attempt has a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RecentRule {
    /// The length of a slot in milliseconds; a window is ten minutes at most.
    slot: NonZeroU32,
    min_requests: u32,
    /// 0 switches it off.
    success_rate: f64,
}

impl RecentRule {
    pub(super) fn of(breaker: &BreakerConfig) -> Self {
        Self {
            slot: u32::try_from(millis(breaker.window) / SLOTS as u64)
                .map_or(NonZeroU32::MAX, |slot| NonZeroU32::new(slot).unwrap_or(NonZeroU32::MIN)),
            min_requests: breaker.min_requests,
            success_rate: breaker.success_rate,
        }
    }

    /// The whole window, in milliseconds.
    pub(super) fn window(self) -> u64 {
        u64::from(self.slot.get()) * SLOTS as u64
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
        all >= u64::from(rule.min_requests) && (successes as f64) < rule.success_rate * all as f64 - 1e-9
    }

    pub(super) fn clear(&self) {
        self.successes.clear();
        self.failures.clear();
    }
}

/// Truncation is a wrap, after 13 years of the shortest slots.
fn slot(now: u64, rule: RecentRule) -> u32 {
    (now / u64::from(rule.slot.get())) as u32
}
