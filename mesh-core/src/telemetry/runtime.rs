//! Metrics of what runs in the background: configuration, identity, audit, tasks.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

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
    key_lookups: Family<ResultLabel, Counter>,
    keys_confirmed: Family<IssuerLabel, Gauge<f64, AtomicU64>>,
    keys_stale: Family<IssuerLabel, Gauge>,
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
#[non_exhaustive]
pub enum UpdateResult {
    /// It is in force.
    Ok,
    /// It was refused, or none came; the last good one stays in force.
    Error,
    /// Only a part of it is in force; the rest waits.
    Held,
    /// The source was asked and has nothing new.
    Unchanged,
    /// None came for so long that the last good one is in force no more.
    Stale,
}

impl UpdateResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Held => "held",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
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
#[non_exhaustive]
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

/// What became of a token whose key nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyLookup {
    /// The issuer's source was asked for it.
    Asked,
    /// It waits for a lookup that is under way.
    Joined,
    /// A lookup began less than 30 s ago.
    Limited,
    /// This very key was looked for a moment ago.
    Repeated,
    /// Too many wait already.
    Crowded,
}

impl KeyLookup {
    /// The label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Joined => "joined",
            Self::Limited => "limited",
            Self::Repeated => "repeated",
            Self::Crowded => "crowded",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
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
        registry.register("key_updates", "Answers of sources of issuers' keys", metrics.key_updates.clone());
        registry.register(
            "key_lookups",
            "Tokens whose key nobody knows, by what became of it",
            metrics.key_lookups.clone(),
        );
        let confirmed = metrics.keys_confirmed.clone();
        registry.register("keys_confirmed_timestamp_seconds", "When an issuer's keys were confirmed last", confirmed);
        let stale = metrics.keys_stale.clone();
        registry.register("keys_stale", "1 while an issuer's keys are too old to be trusted", stale);
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

    /// Counts an SVID, or bundles, that were not put in force.
    ///
    /// `reason` is a stable word.
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

    /// How many such answers there were.
    pub fn key_updates(&self, result: UpdateResult) -> u64 {
        self.key_updates.get_or_create(&ResultLabel { result: result.as_str() }).get()
    }

    /// Notes that an issuer's keys were confirmed at `now`.
    ///
    /// Or that they are trusted no more.
    pub fn keys_state(&self, issuer: &str, confirmed: Option<SystemTime>) {
        let label = IssuerLabel { issuer: issuer.to_owned() };
        self.keys_stale.get_or_create(&label).set(i64::from(confirmed.is_none()));
        if let Some(since) = confirmed.and_then(|now| now.duration_since(UNIX_EPOCH).ok()) {
            self.keys_confirmed.get_or_create(&label).set(since.as_secs_f64());
        }
    }

    /// Shows nothing more of an issuer that is accepted no more.
    pub fn keys_gone(&self, issuer: &str) {
        let label = IssuerLabel { issuer: issuer.to_owned() };
        self.keys_stale.remove(&label);
        self.keys_confirmed.remove(&label);
    }

    /// Counts a token whose key nobody knows.
    pub fn key_lookup(&self, result: KeyLookup) {
        self.key_lookups.get_or_create(&ResultLabel { result: result.as_str() }).inc();
    }

    /// How many such tokens there were.
    pub fn key_lookups(&self, result: KeyLookup) -> u64 {
        self.key_lookups.get_or_create(&ResultLabel { result: result.as_str() }).get()
    }
}
