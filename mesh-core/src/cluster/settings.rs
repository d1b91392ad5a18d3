//! What the configuration of a cluster says, as picks, attempts and judgements read it.

use std::time::Duration;

use crate::balance::{Decay, SlowStart};
use crate::config::{BalancePolicy, ClusterConfig, HoldConfig, OutlierConfig, PanicAction};
use crate::health::{Absence, Rules, compares};

/// What decides who is out, and for how long. Asked when somebody may go out or in, not by every pick.
#[derive(Debug)]
pub(super) struct HealthSettings {
    pub(super) outlier: OutlierConfig,
    pub(super) absence: Absence,
    pub(super) compares: bool,
}

impl HealthSettings {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        Self { outlier: config.outlier, absence: Absence::of(config), compares: compares(config) }
    }
}

/// What a choice needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) decay: Decay,
    pub(super) default_rtt: Duration,
    pub(super) penalty: Duration,
    pub(super) rules: Rules,
    pub(super) hold: HoldConfig,
    pub(super) panic: PanicAction,
    /// Of panic, in percent.
    pub(super) threshold: u32,
    pub(super) slow_start: Option<SlowStart>,
    /// Load is bounded by what is under way in the whole cluster.
    pub(super) count_active: bool,
}

/// Of those, what an attempt needs when it ends. Each keeps what held when it was made, so it is kept small.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptSettings {
    pub(super) decay: Decay,
    pub(super) penalty: Duration,
    pub(super) rules: Rules,
    pub(super) count_active: bool,
}

impl Settings {
    pub(super) fn of_attempt(&self) -> AttemptSettings {
        let Self { decay, penalty, rules, count_active, .. } = *self;
        AttemptSettings { decay, penalty, rules, count_active }
    }

    pub(super) fn new(config: &ClusterConfig) -> Self {
        let balance = &config.balance;
        let slow_start = balance
            .slow_start
            .map(|slow| SlowStart::new(slow.window, f64::from(slow.min_weight_percent) / 100.0, slow.aggression));
        Self {
            decay: Decay::new(balance.decay),
            default_rtt: balance.default_rtt,
            penalty: balance.failure_penalty,
            rules: Rules::of(config),
            hold: config.discover_hold,
            panic: balance.panic.action,
            threshold: balance.panic.threshold_percent,
            slow_start,
            count_active: matches!(&balance.policy, BalancePolicy::RingHash(ring) if ring.balance_factor.is_some()),
        }
    }
}
