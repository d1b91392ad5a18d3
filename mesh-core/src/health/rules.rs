//! What the configuration says about judging, in the form in which it is asked.

use std::time::Duration;

use super::recent::RecentRule;
use crate::balance::millis;
use crate::config::ClusterConfig;
use crate::rng::Rng;

/// What an attempt must know to judge its endpoint by itself. Small: each attempt has a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rules {
    pub(super) consecutive_failures: u32,
    /// Somebody compares what endpoints did in each interval.
    pub(super) compared: bool,
    /// The breaker's window.
    pub(super) recent: Option<RecentRule>,
}

impl Rules {
    /// Those of a cluster.
    pub(crate) fn of(config: &ClusterConfig) -> Self {
        let outlier = &config.outlier;
        Self {
            consecutive_failures: config.breaker.map_or(outlier.consecutive_failures, |own| own.consecutive_failures),
            compared: compares(config),
            recent: config.breaker.as_ref().map(RecentRule::of),
        }
    }
}

/// Whether endpoints are compared with each other at all.
pub(crate) fn compares(config: &ClusterConfig) -> bool {
    config.outlier.success_rate.stdev_factor > 0.0 || config.outlier.failure_percentage.threshold > 0
}

/// How long an endpoint stays out, and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Absence {
    base: Duration,
    max: Duration,
    jitter: f64,
    /// The least time in, in milliseconds, that makes good for one.
    trial: u64,
    /// A live request must have proved it: it is a breaker's.
    pub(super) probed: bool,
}

impl Absence {
    /// The breaker's if there is one, else the timed ejection's.
    pub(crate) fn of(config: &ClusterConfig) -> Self {
        match (&config.breaker, &config.outlier) {
            (Some(own), _) => Self {
                base: own.backoff,
                max: own.max_backoff,
                jitter: own.jitter,
                trial: millis(own.window.max(own.backoff)).max(1),
                probed: true,
            },
            (None, timed) => Self {
                base: timed.base_ejection,
                max: timed.max_ejection,
                jitter: timed.ejection_jitter,
                trial: millis(timed.base_ejection).max(1),
                probed: false,
            },
        }
    }

    /// Whether it ends with a probe: whether it is a breaker's.
    pub(crate) fn is_probed(&self) -> bool {
        self.probed
    }

    /// How long the `n`-th lasts, from 1.
    pub(super) fn duration(&self, n: u32, rng: &Rng) -> Duration {
        let factor = if self.probed { 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX) } else { n };
        let grown = self.base.saturating_mul(factor.max(1)).min(self.max);
        let jittered = grown + grown.mul_f64(self.jitter * rng.unit());
        if self.probed { jittered.min(self.max) } else { jittered }
    }

    /// Of the last absences, how many have been made good by staying in since.
    ///
    /// A breaker is open for a second at first, and whoever fails by silence is found out later than that: without the
    /// window, each failure would make good for the one before.
    pub(super) fn forgiven(&self, healthy: u64, last: u64) -> u32 {
        let each = if self.probed { last.max(self.trial) } else { self.trial };
        u32::try_from(healthy / each).unwrap_or(u32::MAX)
    }
}
