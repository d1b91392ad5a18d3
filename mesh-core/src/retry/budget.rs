//! Keeps retries a bounded share of requests, whatever fails.

use tokio::time::Instant;

use crate::config::BudgetConfig;

/// Deposits by requests, withdrawals by retries, over a sliding window; right at any ratio.
///
/// Lock-free; shared by all calls of a route.
#[derive(Debug)]
pub struct RetryBudget {
    config: BudgetConfig,
}

impl RetryBudget {
    /// A budget with its floor and nothing deposited.
    pub fn new(config: BudgetConfig, now: Instant) -> Self {
        let _ = now;
        Self { config }
    }

    /// A first attempt was made.
    pub fn deposit(&self, now: Instant) {
        let _ = (now, &self.config);
        unimplemented!()
    }

    /// Takes one retry, or says that the budget is exhausted.
    pub fn withdraw(&self, now: Instant) -> bool {
        let _ = now;
        unimplemented!()
    }
}
