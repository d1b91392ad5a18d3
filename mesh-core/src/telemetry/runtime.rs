//! Metrics of what runs in the background: configuration, identity, audit, tasks.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What the background of a mesh counts.
#[derive(Debug, Default)]
pub struct RuntimeMetrics {
    config_reloads: Family<ResultLabel, Counter>,
    identity_updates: Family<ResultLabel, Counter>,
    identity_held: Family<ReasonLabel, Counter>,
    identity_refreshes: Family<ResultLabel, Counter>,
    key_updates: Family<ResultLabel, Counter>,
    /// The generation of configuration and policy that is in force.
    pub config_generation: Gauge,
    /// 1 while the last reload was refused and an older configuration stays in force.
    pub config_stale: Gauge,
    /// Seconds until the own SVID expires; negative when it has.
    pub svid_remaining: Gauge<f64, AtomicU64>,
    /// Audit records that their sink took.
    pub audit_written: Counter,
    /// Audit records that were lost: the queue was full or the sink failed.
    pub audit_dropped: Counter,
    /// Background tasks that panicked.
    pub task_panics: Counter,
}

/// Whether an update was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateResult {
    /// It is in force.
    Ok,
    /// It was refused, or none came; the last good one stays in force.
    Error,
    /// Only a part of it is in force; the rest waits.
    Held,
}

impl UpdateResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Held => "held",
        }
    }
}

impl<T, E> From<&Result<T, E>> for UpdateResult {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Ok } else { Self::Error }
    }
}

/// What became of a wish that the source of identity look now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRefresh {
    /// A newer identity is in force.
    Renewed,
    /// The source looked and found nothing new, or nothing usable.
    Unchanged,
    /// The source did not look in time.
    TimedOut,
    /// It shares a look that another wish began.
    Joined,
}

impl IdentityRefresh {
    /// The label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Unchanged => "unchanged",
            Self::TimedOut => "timed_out",
            Self::Joined => "joined",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl RuntimeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // Both results are shown from the start: an alert needs a zero to rise from.
        for result in [UpdateResult::Ok, UpdateResult::Error] {
            for family in [&metrics.config_reloads, &metrics.identity_updates, &metrics.key_updates] {
                drop(family.get_or_create(&ResultLabel { result: result.as_str() }));
            }
        }
        registry.register("config_reloads", "Reloads of configuration and policy", metrics.config_reloads.clone());
        registry.register("config_generation", "Generation in force", metrics.config_generation.clone());
        registry.register("config_stale", "1 while the last reload was refused", metrics.config_stale.clone());
        registry.register("identity_updates", "Revisions of SVIDs and bundles", metrics.identity_updates.clone());
        let held = metrics.identity_held.clone();
        registry.register("identity_held", "SVIDs and bundles that were not put in force, by reason", held);
        let refreshes = metrics.identity_refreshes.clone();
        registry.register("identity_refreshes", "Wishes that the source of identity look now", refreshes);
        registry.register("key_updates", "Revisions of issuers' key sets", metrics.key_updates.clone());
        let remaining = metrics.svid_remaining.clone();
        registry.register_with_unit("svid_remaining", "Until the own SVID expires", Unit::Seconds, remaining);
        registry.register("audit_written", "Audit records written", metrics.audit_written.clone());
        registry.register("audit_dropped", "Audit records lost", metrics.audit_dropped.clone());
        registry.register("task_panics", "Background tasks that panicked", metrics.task_panics.clone());
        metrics
    }

    /// Counts a reload of configuration and policy.
    pub fn config_reload(&self, result: UpdateResult) {
        self.config_reloads.get_or_create(&ResultLabel { result: result.as_str() }).inc();
    }

    /// Counts a revision of SVIDs and bundles.
    pub fn identity_update(&self, result: UpdateResult) {
        self.identity_updates.get_or_create(&ResultLabel { result: result.as_str() }).inc();
    }

    /// Counts an SVID, or bundles, that were not put in force; `reason` is a stable word.
    pub fn identity_held(&self, reason: &'static str) {
        self.identity_held.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// How many were not put in force for `reason`.
    pub fn identity_held_for(&self, reason: &'static str) -> u64 {
        self.identity_held.get_or_create(&ReasonLabel { reason }).get()
    }

    /// Counts a wish that the source of identity look now.
    pub fn identity_refresh(&self, result: IdentityRefresh) {
        self.identity_refreshes.get_or_create(&ResultLabel { result: result.as_str() }).inc();
    }

    /// How many such wishes ended so.
    pub fn identity_refreshes(&self, result: IdentityRefresh) -> u64 {
        self.identity_refreshes.get_or_create(&ResultLabel { result: result.as_str() }).get()
    }

    /// Counts a revision of an issuer's keys.
    pub fn key_update(&self, result: UpdateResult) {
        self.key_updates.get_or_create(&ResultLabel { result: result.as_str() }).inc();
    }
}
