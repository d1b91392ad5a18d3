//! Rows of tier `model`: a scenario each, and the same without what is meant to help.

mod endpoints;
mod load;

use std::time::Duration;

use mesh_core::config::{BalancePolicy, BreakerConfig, ClusterConfig, PlugConfig, RetryConfig, RouteConfig};

use super::{Row, Seen};
use crate::model::{Scenario, TOWER_POLICY};

pub(super) fn rows() -> Vec<Row> {
    endpoints::ROWS.iter().chain(&load::ROWS).copied().collect()
}

/// Reads a scenario of this crate.
///
/// # Panics
///
/// If it cannot be read: every test run reads them all.
fn scenario(text: &str) -> Scenario {
    match Scenario::parse("scorecard", text, ".".as_ref()) {
        Ok(scenario) => scenario,
        Err(error) => unreachable!("{error}"),
    }
}

/// `whole` in `cargo xtask scorecard`, `part` in the test command.
fn sized(whole: u64, part: u64) -> Duration {
    Duration::from_secs(if cfg!(debug_assertions) { part } else { whole })
}

/// The same seen of each of several runs: all have to meet the target, and the worst of them speaks.
fn each(scenarios: impl IntoIterator<Item = Scenario>, seed: u64, look: fn(Scenario, u64) -> Seen) -> Seen {
    let seen: Vec<Seen> = scenarios.into_iter().map(|scenario| look(scenario, seed)).collect();
    let texts: Vec<&str> = seen.iter().map(|seen| seen.text.as_str()).collect();
    Seen {
        met: seen.iter().all(|seen| seen.met),
        text: texts.join("; "),
        badness: seen.iter().map(|seen| seen.badness).fold(f64::NEG_INFINITY, f64::max),
    }
}

trait Change: Sized {
    /// Every cluster, changed.
    fn clusters(self, change: impl Fn(&mut ClusterConfig)) -> Self;
    /// Every route, changed.
    fn routes(self, change: impl Fn(&mut RouteConfig)) -> Self;

    /// No server is ever judged by how it answers, and a failure counts as fast as it came.
    fn without_judging(self) -> Self {
        self.without_ejection().without_penalty()
    }

    /// The picker takes a failure for as fast as it was.
    fn without_penalty(self) -> Self {
        self.clusters(|cluster| cluster.balance.failure_penalty = Duration::ZERO)
    }

    /// Nobody waits for longer than a second.
    fn impatient(self) -> Self {
        self.routes(|route| route.timeout = Duration::from_secs(1))
    }

    fn with_breaker(self) -> Self {
        self.clusters(|cluster| cluster.breaker = Some(BreakerConfig::default()))
    }

    fn without_ejection(self) -> Self {
        self.clusters(|cluster| {
            cluster.outlier.consecutive_failures = 0;
            cluster.outlier.success_rate.stdev_factor = 0.0;
            cluster.outlier.failure_percentage.threshold = 0;
        })
    }

    fn balanced_by(self, policy: &BalancePolicy) -> Self {
        self.clusters(|cluster| cluster.balance.policy = policy.clone())
    }

    /// tower's balancer as it comes, which knows no failures.
    fn stock_tower(self) -> Self {
        self.balanced_by(&BalancePolicy::Custom(PlugConfig::new(TOWER_POLICY, &serde_json::Value::Null)))
    }

    fn without_retries(self) -> Self {
        self.routes(|route| route.retry = None)
    }

    /// Retries as they come.
    fn retried(self) -> Self {
        self.routes(|route| route.retry = Some(RetryConfig::default()))
    }

    /// Retries are sent at once.
    fn without_backoff(self) -> Self {
        self.routes(|route| {
            let retry = route.retry.get_or_insert_with(RetryConfig::default);
            (retry.backoff, retry.max_backoff) = (Duration::ZERO, Duration::ZERO);
        })
    }

    /// As many retries as the attempts of a route allow.
    fn without_budget(self) -> Self {
        self.routes(|route| {
            let retry = route.retry.get_or_insert_with(RetryConfig::default);
            retry.budget.ratio = 10.0;
        })
    }
}

impl Change for Scenario {
    fn clusters(mut self, change: impl Fn(&mut ClusterConfig)) -> Self {
        self.config.clusters.values_mut().for_each(change);
        self
    }

    fn routes(mut self, change: impl Fn(&mut RouteConfig)) -> Self {
        self.config.routes.values_mut().flatten().for_each(change);
        self
    }
}
