//! Keeps retries a bounded share of requests, whatever fails.

use serde::Serialize;
use tokio::time::Instant;

use crate::config::BudgetConfig;
use crate::window::{SLOTS, Window};

/// Deposits by requests, withdrawals by retries, over a sliding window; right at any ratio.
///
/// A retry is granted while `retries + 1 <= ratio * requests + min_per_second * window`, both counted over the window.
/// When everything fails, the load on the servers is therefore at most `1 + ratio` times what was asked, beside the
/// floor; the floor may be spent at once.
///
/// Lock-free; shared by all calls of a route. A withdrawal is a compare-and-swap on the newest slot after the sum, so
/// two threads cannot both take the last retry - except in the instant in which a new slot begins, when each thread
/// that still sees the old one may be granted one too many.
#[derive(Debug)]
pub struct RetryBudget {
    config: BudgetConfig,
    epoch: Instant,
    /// A slot's length in nanoseconds, at least 1.
    slot: u64,
    deposits: Window,
    withdrawals: Window,
}

/// What a budget holds at one moment, over its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BudgetState {
    /// First attempts that were made.
    pub requests: u64,
    /// Retries that were granted.
    pub retries: u64,
    /// Retries that would be granted now.
    pub left: u64,
}

impl RetryBudget {
    /// A budget with its floor and nothing deposited.
    pub fn new(config: BudgetConfig, now: Instant) -> Self {
        let slot = u64::try_from(config.window.as_nanos() / SLOTS as u128).unwrap_or(u64::MAX).max(1);
        Self { config, epoch: now, slot, deposits: Window::default(), withdrawals: Window::default() }
    }

    /// What it was made from.
    pub fn config(&self) -> &BudgetConfig {
        &self.config
    }

    /// What it holds; nothing is taken.
    pub fn state(&self, now: Instant) -> BudgetState {
        let number = self.number(now);
        let (requests, retries) = (self.deposits.sum(number), self.withdrawals.sum(number));
        BudgetState { requests, retries, left: self.allowed(number).saturating_sub(retries) }
    }

    /// A first attempt was made.
    pub fn deposit(&self, now: Instant) {
        self.deposits.add(self.number(now));
    }

    /// Takes one retry, or says that the budget is exhausted.
    pub fn withdraw(&self, now: Instant) -> bool {
        let number = self.number(now);
        loop {
            let newest = self.withdrawals.newest(number);
            if self.withdrawals.sum(number) + 1 > self.allowed(number) {
                return false;
            }
            if self.withdrawals.try_add(number, newest) {
                return true;
            }
        }
    }

    fn allowed(&self, number: u32) -> u64 {
        let floor = f64::from(self.config.min_per_second) * self.config.window.as_secs_f64();
        let share = self.config.ratio * self.deposits.sum(number) as f64;
        // 0.29 * 100 is 28.999999999999996 in binary; it is meant to be 29.
        (floor + share + 1e-6) as u64
    }

    /// The number of the slot that `now` is in. Wraps after 13 years of the shortest slots.
    fn number(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.epoch);
        let nanos = elapsed.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(elapsed.subsec_nanos()));
        (nanos / self.slot) as u32
    }
}
