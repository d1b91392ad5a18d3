//! One validated [`Config`], from YAML, from code, or from both.
//!
//! A misspelt key that is silently ignored is an outage or a hole. So every field of every file is either used or
//! rejected, all problems are reported at once, and each carries file, line and field path. Code overrides the file.
//!
//! | step | where |
//! |---|---|
//! | text to a tree in which every node knows its place | [`yaml`] |
//! | tree to values; collects errors, refuses unknown fields | [`walk`] |
//! | values to the sections below | `Decode` beside each section |
//! | ranges, and sections against each other (a route names a cluster that exists ...) | [`Config::check`] |
//! | the files of a configuration and their policies, read whole | [`Sources`] |
//!
//! In code a section starts from its constructor or default; its fields are public, and each has a method to chain:
//!
//! ```
//! use mesh_core::config::{ClusterConfig, OutlierConfig, PathMatch, PlugConfig, RetryConfig, RouteConfig, RouteMatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use mesh_core::{Config, config::{IdentityConfig, Workload}};
//! # let source = PlugConfig::new("dev_ca", &serde_json::json!({ "dir": ".mesh" }));
//! # let identity = IdentityConfig::new("shop.example".parse()?, source);
//! # let mut config = Config::new(Workload::new("orders", "shop"), identity);
//! let discover = PlugConfig::new("static", &serde_json::json!(["127.0.0.1:9443"]));
//! let payments = ClusterConfig::new(discover, vec!["spiffe://shop.example/ns/shop/sa/payments".parse()?])
//!     .outlier(OutlierConfig::default().consecutive_failures(3));
//! let charges = RouteConfig::to("payments")
//!     .matches(RouteMatch::default().method("POST").path(PathMatch::Prefix("/charges/".into())))
//!     .retry(RetryConfig::default().attempts(5).idempotent(true));
//!
//! config.clusters.insert("payments".into(), payments);
//! config.routes.insert("payments".into(), vec![charges]);
//! config.check()?;
//! # Ok(()) }
//! ```
//!
//! Relative paths in a file are relative to that file's directory. Every duration carries a unit (`250ms`), every
//! size too (`64KiB`). A value out of range is an error, never clamped.

mod audit;
mod balance;
mod breaker;
mod check;
mod checker;
mod cluster;
mod cluster_limits;
mod discovery;
mod forwarded;
mod hash;
mod health_check;
mod identity;
mod issue;
mod limits;
mod listener;
mod load;
mod mtls;
mod nearest;
mod opt_in;
mod outlier;
mod plug;
mod roles;
mod route;
mod setters;
mod spread;
mod tls;
mod token;
mod values;
pub mod walk;
mod workload;
pub mod yaml;

pub use audit::{AuditConfig, AuditMode, AuditRoute, CheckpointConfig, SubjectConfig, TelemetryConfig};
pub use balance::{BalanceConfig, BalancePolicy, LeastRequestConfig, RingHashConfig};
pub use breaker::BreakerConfig;
pub use cluster::{ClusterConfig, HttpVersion, PoolConfig};
pub use cluster_limits::{ClusterLimitsConfig, MaxRetries};
pub use discovery::{DiscoveryConfig, HoldConfig};
pub use forwarded::ForwardedConfig;
pub use hash::HashKey;
pub use health_check::{GrpcCheckConfig, HealthCheckConfig};
pub use identity::IdentityConfig;
pub use issue::{ConfigIssue, Errors, Place};
pub use limits::{LimitsConfig, RateLimitConfig};
pub use listener::{HealthConfig, ListenerConfig};
pub use load::Sources;
pub use mtls::Mtls;
pub(crate) use mtls::Timestamp;
#[cfg(test)]
mod tests;

pub(crate) use checker::place;
pub(crate) use load::{base_dir, read_text};
pub use nearest::{nearest, suggestion};
pub use outlier::{FailurePercentageConfig, OutlierConfig, SuccessRateConfig};
pub use plug::PlugConfig;
pub use roles::{BindingConfig, PermissionConfig, SubjectsConfig};
pub use route::{BudgetConfig, PathMatch, RetryConfig, RouteConfig, RouteMatch};
pub use spread::{LocalityConfig, PanicAction, PanicConfig, SlowStartConfig, WeightedConfig, ZoneAwareConfig};
pub use tls::{TlsConfig, TlsVersion};
pub use token::{ClaimHeader, IssuerConfig, TokenHeader};
pub use values::{Percent, Quantity, Size};
pub use walk::Fields;
pub use workload::{Locality, Workload};
pub use yaml::{Decode, Entry, Node, Value};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::TrustDomain;
use crate::policy::Mode;
use crate::policy::canonical::Canonicalization;

/// Everything a mesh is told.
///
/// Only `workload` and `identity` have no default: who a process is cannot be guessed.
///
/// A file has most fields under the same names. `authorization:` has `mode`, `no_policy`, `root_namespace`,
/// `trust_domain_aliases`, `canonical` and `custom_timeout`; [`poll_interval`](Self::poll_interval) is
/// `reload: { interval: 500ms }`. `egress: registry_only` may be written, and is always so: only clusters can be called.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Who this process is.
    pub workload: Workload,
    /// Where its certificate and trust come from.
    pub identity: IdentityConfig,
    /// Where it listens, by name. If there is any, one is called `default`: it is the one that `serve` uses unless told
    /// otherwise.
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// The plain listener for `/livez`, `/readyz` and `/metrics`; absent: none.
    pub health: Option<HealthConfig>,
    /// Whose JWTs are accepted; in a mesh, with the rules of every `RequestAuthentication` that selects it. Empty: a bearer
    /// token is refused, because nobody could vouch for it.
    pub tokens: Vec<IssuerConfig>,
    /// Files and directories with `AuthorizationPolicy`, `PeerAuthentication` and `RequestAuthentication` documents
    /// (`*.yaml`, `*.yml`), resolved.
    pub policies: Vec<PathBuf>,
    /// Who may do what, in short: what each role may do, by name. Compiled to policies that stand beside the others.
    pub roles: BTreeMap<String, Vec<PermissionConfig>>,
    /// Who has which role.
    pub bindings: Vec<BindingConfig>,
    /// Where in a token the groups are that `bindings` name: the names that lead to the claim, in a file one name
    /// (`groups_claim: groups`) or a list (`groups_claim: [realm_access, roles]`). Default `groups`.
    pub groups_claim: Vec<String>,
    /// How policies are read and judged. Default strict.
    pub policy_mode: Mode,
    /// What holds where no policy selects this workload. Default deny; in a file with `mode: compat`, allow.
    pub no_policy: NoPolicy,
    /// Policies of this namespace hold for every workload. Default `istio-system` (Istio).
    pub root_namespace: String,
    /// Other names of the own trust domain in policies, as Istio's `trustDomainAliases`. Default none, at most 64.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// How the path of a request becomes what policy matches. Default `reject`; in a file with `mode: compat`, `base`.
    pub canonical: Canonicalization,
    /// How long external authorizers of CUSTOM policies have for one request, all together. Default 1 s, range 1 ms to 30 s.
    pub custom_timeout: Duration,
    /// Services that may be called, by name.
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// How requests to a service are sent, by service name; first match wins.
    pub routes: BTreeMap<String, Vec<RouteConfig>>,
    /// What is kept of endpoints for the next start.
    pub discovery: DiscoveryConfig,
    /// Limits of the server stack.
    pub limits: LimitsConfig,
    /// Where audit records go.
    pub audit: AuditConfig,
    /// Where spans go.
    pub telemetry: TelemetryConfig,
    /// How often watched files are compared. Default 500 ms, range 50 ms to 60 s.
    pub poll_interval: Duration,
}

/// The verdict for a workload that no policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoPolicy {
    /// Deny: the default, so that a lost policy file closes.
    #[default]
    Deny,
    /// Allow every authenticated and anonymous caller, as Istio does.
    Allow,
}

impl NoPolicy {
    /// What holds unless the configuration says it: in compat mode Istio's default.
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::Strict => Self::Deny,
            Mode::Compat => Self::Allow,
        }
    }
}

impl Config {
    /// The default poll interval of watched files.
    pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

    /// The default namespace of policies that hold for every workload.
    pub const ROOT_NAMESPACE: &str = "istio-system";

    /// The default time of external authorizers.
    pub const CUSTOM_TIMEOUT: Duration = Duration::from_secs(1);

    /// The default claim that holds the groups of a token's subject.
    pub const GROUPS_CLAIM: &str = "groups";

    /// Each principal of a policy is looked at under every alias of its trust domain.
    const MAX_ALIASES: usize = 64;

    /// A configuration with every default, for building in code.
    pub fn new(workload: Workload, identity: IdentityConfig) -> Self {
        Self {
            workload,
            identity,
            listeners: BTreeMap::new(),
            health: None,
            tokens: Vec::new(),
            policies: Vec::new(),
            roles: BTreeMap::new(),
            bindings: Vec::new(),
            groups_claim: vec![Self::GROUPS_CLAIM.to_owned()],
            policy_mode: Mode::Strict,
            no_policy: NoPolicy::Deny,
            root_namespace: Self::ROOT_NAMESPACE.to_owned(),
            trust_domain_aliases: Vec::new(),
            canonical: Canonicalization::Reject,
            custom_timeout: Self::CUSTOM_TIMEOUT,
            clusters: BTreeMap::new(),
            routes: BTreeMap::new(),
            discovery: DiscoveryConfig::default(),
            limits: LimitsConfig::default(),
            audit: AuditConfig::default(),
            telemetry: TelemetryConfig::default(),
            poll_interval: Self::POLL_INTERVAL,
        }
    }
}

/// Why a configuration was refused: every problem, in file order.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    issues: Vec<ConfigIssue>,
}

impl ConfigError {
    /// An error made of at least one issue; they are put in file order.
    pub fn new(mut issues: Vec<ConfigIssue>) -> Self {
        let mut files: Vec<std::sync::Arc<str>> = Vec::new();
        for issue in &issues {
            if !files.contains(&issue.place.file) {
                files.push(std::sync::Arc::clone(&issue.place.file));
            }
        }
        issues.sort_by_cached_key(|ConfigIssue { place, .. }| {
            (files.iter().position(|file| *file == place.file), place.line, place.column)
        });
        Self { issues }
    }

    /// Every problem.
    pub fn issues(&self) -> &[ConfigIssue] {
        &self.issues
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "configuration refused, {} problem(s)", self.issues.len())?;
        self.issues.iter().try_for_each(|issue| write!(f, "\n  {issue}"))
    }
}

impl std::fmt::Debug for ConfigError {
    /// As for people: it is what `main` shows of an error that it returns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}
