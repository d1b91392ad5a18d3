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
    pub(super) attempt: AttemptSettings,
    pub(super) hold: HoldConfig,
    pub(super) panic: PanicAction,
    /// Of panic, in percent.
    pub(super) threshold: u32,
    pub(super) slow_start: Option<SlowStart>,
}

/// Of those, what an attempt needs when it ends. Each keeps what held when it was made, so it is kept small: what is
/// handed on through memory costs a pick more than what it computes.
///
/// [`Duration`]s would be twice as large.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptSettings {
    pub(super) decay: Decay,
    /// In microseconds; 300 s at most.
    penalty: u32,
    pub(super) rules: Rules,
    /// Load is bounded by what is under way in the whole cluster.
    pub(super) count_active: bool,
}

impl AttemptSettings {
    fn new(config: &ClusterConfig, decay: Decay, count_active: bool) -> Self {
        let penalty = u32::try_from(config.balance.failure_penalty.as_micros()).unwrap_or(u32::MAX);
        Self { decay, penalty, rules: Rules::of(config), count_active }
    }

    /// What a failure counts for at least.
    pub(super) fn penalty(&self) -> Duration {
        Duration::from_micros(self.penalty.into())
    }
}

impl Settings {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        let balance = &config.balance;
        let slow_start = balance
            .slow_start
            .map(|slow| SlowStart::new(slow.window, f64::from(slow.min_weight_percent) / 100.0, slow.aggression));
        let decay = Decay::new(balance.decay);
        let count_active = matches!(&balance.policy, BalancePolicy::RingHash(ring) if ring.balance_factor.is_some());
        Self {
            decay,
            default_rtt: balance.default_rtt,
            attempt: AttemptSettings::new(config, decay, count_active),
            hold: config.discover_hold,
            panic: balance.panic.action,
            threshold: balance.panic.threshold_percent,
            slow_start,
        }
    }
}
