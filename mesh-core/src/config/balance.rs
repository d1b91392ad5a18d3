//! `clusters.*.balance:` - which endpoint takes an attempt.

use std::time::Duration;

use super::checker::Checker;
use super::hash::HashKey;
use super::issue::Errors;
use super::spread::{LocalityConfig, PanicConfig, SlowStartConfig};
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};

/// How an endpoint is picked among those that may be used.
///
/// In a file, the settings of a policy stand beside its name: `{ policy: ring_hash, hash: { header: x-user } }`. A
/// setting of another policy is an error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BalanceConfig {
    /// The algorithm: `peak_ewma` (default), `least_request`, `round_robin`, `random`, `ring_hash`, or a registered one.
    pub policy: BalancePolicy,
    /// How long a latency sample matters. Default 10 s, range 100 ms to 10 min. For `peak_ewma` and policies of your
    /// own. (Finagle, Linkerd)
    pub decay: Duration,
    /// The latency assumed of an endpoint that was never measured, where there are no others: else it is their median.
    /// Default 30 ms, range 1 us to 60 s. For `peak_ewma` and policies of your own. (Linkerd)
    pub default_rtt: Duration,
    /// What a failed or timed-out attempt counts as, if it was not slower. Default 5 s, range 0 to 5 min. A failure
    /// that is recorded as fast attracts traffic. For `peak_ewma` and policies of your own. (linkerd2-proxy load-biaser)
    pub failure_penalty: Duration,
    /// How much more than its share an endpoint can take, for priorities and localities: at 140, a priority keeps all of
    /// its traffic until fewer than 72 % of its endpoints are left. Default 140, range 100 to 1,000. (Envoy)
    pub overprovisioning_percent: u32,
    /// What happens when few endpoints are left.
    pub panic: PanicConfig,
    /// What distance and place count for.
    pub locality: LocalityConfig,
    /// How a new endpoint's share grows; absent: it has its full share at once.
    pub slow_start: Option<SlowStartConfig>,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            policy: BalancePolicy::PeakEwma,
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
            failure_penalty: Duration::from_secs(5),
            overprovisioning_percent: 140,
            panic: PanicConfig::default(),
            locality: LocalityConfig::default(),
            slow_start: None,
        }
    }
}

/// The picking algorithms, with their settings.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum BalancePolicy {
    /// The better of two distinct random endpoints, by latency x load, failures counted as slow.
    #[default]
    PeakEwma,
    /// The one of a few distinct random endpoints that has the fewest attempts under way for its weight.
    LeastRequest(LeastRequestConfig),
    /// One after the other, in proportion to the weights, from a random start.
    RoundRobin,
    /// Any, in proportion to the weights.
    Random,
    /// By a key of the request, on a consistent ring.
    RingHash(RingHashConfig),
    /// A policy that the program registered, and its `settings`.
    Custom(PlugConfig),
}

impl BalancePolicy {
    /// Those that this crate brings.
    pub const NAMES: [&str; 5] = ["peak_ewma", "least_request", "round_robin", "random", "ring_hash"];

    /// Its name in a file.
    pub fn name(&self) -> &str {
        match self {
            Self::PeakEwma => "peak_ewma",
            Self::LeastRequest(_) => "least_request",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::RingHash(_) => "ring_hash",
            Self::Custom(plug) => &plug.kind,
        }
    }

    /// Whether it goes by a key of the request.
    pub fn takes_hash(&self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Custom(_))
    }
}

/// Settings of `least_request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeastRequestConfig {
    /// How many endpoints are compared. Default 2, range 2 to 10. More herd all callers onto the idle ones. (gRPC A48)
    ///
    /// Weights steer the draw, so Envoy's `active_request_bias` has no counterpart.
    pub choices: u32,
}

impl Default for LeastRequestConfig {
    fn default() -> Self {
        Self { choices: 2 }
    }
}

/// Settings of `ring_hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingHashConfig {
    /// What requests are told apart by; the first that a request has. A route's own `hash` comes before it. Empty only
    /// where every route to the cluster has one. A request without any goes to a random endpoint.
    pub hash: Vec<HashKey>,
    /// Places on the ring at least. Default 1,024, range 1 to 8,388,608. More share keys more evenly. (Envoy)
    pub min_ring_size: u64,
    /// Places on the ring at most. Default 8,388,608, range 1 to 8,388,608, at least `min_ring_size`. A place takes
    /// 16 bytes; weights are distorted where this is too few for them. (Envoy; gRPC: 4,096)
    pub max_ring_size: u64,
    /// What an endpoint may have under way, in percent of its share, before its keys go elsewhere. Absent (default): not
    /// bounded. Range 100 to 10,000; typical 120 to 200. (Envoy `hash_balance_factor`)
    pub balance_factor: Option<u32>,
}

impl RingHashConfig {
    /// The longest ring.
    const MAX: u64 = 8_388_608;

    /// A ring for these keys.
    pub fn by(hash: Vec<HashKey>) -> Self {
        Self { hash, min_ring_size: 1_024, max_ring_size: Self::MAX, balance_factor: None }
    }
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Settings that belong to some policies only.
const OF_POLICIES: [(&str, &[&str]); 9] = [
    ("decay", &["peak_ewma"]),
    ("default_rtt", &["peak_ewma"]),
    ("failure_penalty", &["peak_ewma"]),
    ("choices", &["least_request"]),
    ("min_ring_size", &["ring_hash"]),
    ("max_ring_size", &["ring_hash"]),
    ("hash_balance_factor", &["ring_hash"]),
    ("hash", &["ring_hash"]),
    ("settings", &[]),
];

/// Settings that a policy of the program's own may have, too.
const OF_CUSTOM: [&str; 4] = ["decay", "default_rtt", "failure_penalty", "settings"];

impl Decode for BalanceConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let name = fields.optional::<String>("policy");
        let named = name.as_deref().unwrap_or("peak_ewma");
        let hash = fields.optional::<HashKeys>("hash").unwrap_or_default().0;
        let (least, ring) = (LeastRequestConfig::default(), RingHashConfig::by(hash));
        let (choices, balance_factor) = (fields.or("choices", least.choices), fields.optional("hash_balance_factor"));
        let (min_ring_size, max_ring_size) =
            (fields.or("min_ring_size", ring.min_ring_size), fields.or("max_ring_size", ring.max_ring_size));
        let settings = fields.node("settings").cloned();
        let policy = match named {
            "peak_ewma" => BalancePolicy::PeakEwma,
            "least_request" => BalancePolicy::LeastRequest(LeastRequestConfig { choices }),
            "round_robin" => BalancePolicy::RoundRobin,
            "random" => BalancePolicy::Random,
            "ring_hash" => {
                BalancePolicy::RingHash(RingHashConfig { min_ring_size, max_ring_size, balance_factor, ..ring })
            }
            custom => {
                let null = Node { place: fields.place("policy"), value: super::Value::Null };
                BalancePolicy::Custom(PlugConfig { kind: custom.to_owned(), settings: settings.unwrap_or(null) })
            }
        };
        let custom = matches!(policy, BalancePolicy::Custom(_));
        for (field, policies) in OF_POLICIES {
            let fits = policies.contains(&named) || (custom && OF_CUSTOM.contains(&field));
            if fields.node(field).is_some() && !fits {
                let whose = policies
                    .first()
                    .map_or("a policy that the program registers".to_owned(), |policy| format!("policy `{policy}`"));
                let place = fields.place(field);
                fields.errors().push(&place, format!("a setting of {whose}, not of `{named}`: leave it out"));
            }
        }
        let balance = Self {
            policy,
            decay: fields.or("decay", default.decay),
            default_rtt: fields.or("default_rtt", default.default_rtt),
            failure_penalty: fields.or("failure_penalty", default.failure_penalty),
            overprovisioning_percent: fields.or("overprovisioning_percent", default.overprovisioning_percent),
            panic: fields.or("panic", default.panic),
            locality: fields.or("locality", default.locality),
            slow_start: fields.optional("slow_start"),
        };
        fields.finish();
        Some(balance)
    }
}

impl BalanceConfig {
    /// `local`: it is known in which zone this process runs.
    pub(super) fn check(&self, local: bool, at: &mut Checker<'_>) {
        at.range("decay", self.decay, 100 * MILLI..=600 * SECOND);
        at.range("default_rtt", self.default_rtt, Duration::from_micros(1)..=60 * SECOND);
        at.range("failure_penalty", self.failure_penalty, Duration::ZERO..=300 * SECOND);
        at.range("overprovisioning_percent", self.overprovisioning_percent, 100..=1_000);
        at.below("panic", |at| self.panic.check(at));
        at.below("locality", |at| self.locality.check(local, at));
        if let Some(slow_start) = &self.slow_start {
            at.below("slow_start", |at| slow_start.check(at));
        }
        match &self.policy {
            BalancePolicy::LeastRequest(config) => at.range("choices", config.choices, 2..=10),
            BalancePolicy::RingHash(config) => {
                at.range("min_ring_size", config.min_ring_size, 1..=RingHashConfig::MAX);
                at.range("max_ring_size", config.max_ring_size, 1..=RingHashConfig::MAX);
                if config.min_ring_size > config.max_ring_size {
                    let (min, max) = (config.min_ring_size, config.max_ring_size);
                    at.error("max_ring_size", format!("{max} is less than min_ring_size ({min})"));
                }
                if let Some(factor) = config.balance_factor {
                    at.range("hash_balance_factor", factor, 100..=10_000);
                }
                config.hash.iter().for_each(|key| key.check("hash", at));
                if self.slow_start.is_some() {
                    let message =
                        "`ring_hash` has no slow start: a key's endpoint is its endpoint from the first request";
                    at.error("slow_start", message);
                }
                if matches!(self.locality, LocalityConfig::ZoneAware(_)) {
                    at.error(
                        "locality",
                        "`ring_hash` cannot prefer a zone: a key has one endpoint for callers of all zones",
                    );
                }
            }
            BalancePolicy::Custom(plug) if plug.kind.is_empty() => at.error("policy", "the name cannot be empty"),
            _ => {}
        }
    }
}

/// One key, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HashKeys(pub(super) Vec<HashKey>);

impl Decode for HashKeys {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        if matches!(node.value, super::Value::List(_)) {
            return Vec::decode(node, errors).map(Self);
        }
        HashKey::decode(node, errors).map(|key| Self(vec![key]))
    }
}
