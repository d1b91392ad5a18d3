//! `panic`, `locality` and `slow_start` of a cluster's `balance:`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Entry, Locality, Node, Value};

/// What happens when few endpoints of a priority are left.
///
/// Health is judged by each caller from what it saw, and can be wrong for all endpoints at once; and the few that are
/// left may not bear what all did. So below the threshold judgement is ignored (Envoy's panic mode) - unless other
/// priorities can take the load, or requests are to fail instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PanicConfig {
    /// Below this share of available endpoints a priority is in panic. Default 50, range 0 to 100; 0: never. (Envoy;
    /// Istio: 0)
    pub threshold_percent: u32,
    /// What is done with its requests then.
    pub action: PanicAction,
}

impl Default for PanicConfig {
    fn default() -> Self {
        Self { threshold_percent: 50, action: PanicAction::Route }
    }
}

/// What is done with requests of a priority in panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PanicAction {
    /// They go to all of its endpoints that can be reached, ejected or not; if none can, to any. Fails open.
    #[default]
    Route,
    /// They fail with `no_endpoints`. (Envoy's `fail_traffic_on_panic`)
    Fail,
}

/// What distance and place count for, within a priority.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum LocalityConfig {
    /// Nothing.
    #[default]
    Off,
    /// Each locality gets a share by its weight, less as its endpoints go out. (Envoy's locality-weighted balancing)
    Weighted(WeightedConfig),
    /// The own zone is preferred, in the first priority. (Envoy's zone-aware routing)
    ZoneAware(ZoneAwareConfig),
}

/// Settings of locality-weighted balancing.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct WeightedConfig {
    /// Weights by `REGION` or `REGION/ZONE`; the latter wins. Range 1 to 65,535; a locality that is not named has 1.
    pub weights: BTreeMap<String, u32>,
}

impl WeightedConfig {
    /// The weight of a locality.
    pub fn weight(&self, locality: &Locality) -> u32 {
        let Locality { region, zone } = locality;
        let zone = self.weights.get(&format!("{region}/{zone}"));
        zone.or_else(|| self.weights.get(region)).copied().unwrap_or(1)
    }
}

/// Settings of zone-aware balancing.
///
/// Envoy sends a zone the share of traffic that evens out all endpoints, which takes the number of callers in each zone.
/// Given those in `callers`, so do we. Without them the nearest endpoints - own zone, then own region, then the rest -
/// are like priorities of their own: each ring keeps its traffic while enough of it is available
/// (`overprovisioning_percent`), and gives up single requests while its endpoints have more to do than the next ring's
/// ([`spill`](Self::spill)), so that a zone with many callers and few endpoints is not burnt
/// (istio/istio#50727).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ZoneAwareConfig {
    /// With fewer available endpoints in the first priority, zones do not count. Default 6, range 0 to 1,000,000. (Envoy)
    pub min_endpoints: u32,
    /// How many callers there are in each `REGION/ZONE`, this process included. Empty (default): not known.
    pub callers: BTreeMap<String, u32>,
    /// A request leaves a ring when the endpoint chosen there would have more than so many times as much under way as
    /// one of the next ring. Default 2, range 1 to 1,000. Only where callers are not known.
    pub spill: u32,
}

impl Default for ZoneAwareConfig {
    fn default() -> Self {
        Self { min_endpoints: 6, callers: BTreeMap::new(), spill: 2 }
    }
}

impl ZoneAwareConfig {
    /// The number of callers in a locality.
    pub fn callers_in(&self, locality: &Locality) -> u64 {
        self.callers.get(&format!("{}/{}", locality.region, locality.zone)).copied().unwrap_or(0).into()
    }
}

/// How the share of an endpoint that is new, or was out, grows. (Envoy's `slow_start_config`)
///
/// Its weight counts as `weight * max(min_weight, (t / window) ^ (1 / aggression))`. Where all endpoints are equally new
/// they share equally, as ever.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SlowStartConfig {
    /// How long it lasts. Range 1 s to 1 h.
    pub window: Duration,
    /// The least share, in percent of the weight. Default 10, range 1 to 100. With little an endpoint may not be asked
    /// at all for a while (envoyproxy/envoy#29259).
    pub min_weight_percent: u32,
    /// How fast it grows at first: 1 evenly, above 1 faster, below 1 slower. Default 1, range 0.1 to 10.
    pub aggression: f64,
}

impl SlowStartConfig {
    /// A slow start of this length.
    pub fn over(window: Duration) -> Self {
        Self { window, min_weight_percent: 10, aggression: 1.0 }
    }
}

impl Decode for PanicConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let panic = Self {
            threshold_percent: fields.or("threshold_percent", default.threshold_percent),
            action: fields.or("action", default.action),
        };
        fields.finish();
        Some(panic)
    }
}

impl PanicConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("threshold_percent", self.threshold_percent, 0..=100);
    }
}

impl Decode for PanicAction {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("route", Self::Route), ("fail", Self::Fail)], errors)
    }
}

impl Decode for LocalityConfig {
    /// `off`, `weighted`, `zone_aware`, or one of the last two with its settings.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => match entries.as_slice() {
                [Entry { key, value, .. }] if key == "weighted" => {
                    WeightedConfig::decode(value, errors).map(Self::Weighted)
                }
                [Entry { key, value, .. }] if key == "zone_aware" => {
                    ZoneAwareConfig::decode(value, errors).map(Self::ZoneAware)
                }
                _ => node
                    .expected("off, weighted or zone_aware, with settings as in { zone_aware: { spill: 3 } }", errors),
            },
            // YAML 1.1 would read `off` as false; here it is a word.
            _ => node.choice(
                &[
                    ("off", Self::Off),
                    ("weighted", Self::Weighted(WeightedConfig::default())),
                    ("zone_aware", Self::ZoneAware(ZoneAwareConfig::default())),
                ],
                errors,
            ),
        }
    }
}

impl LocalityConfig {
    pub(super) fn check(&self, local: bool, at: &mut Checker<'_>) {
        match self {
            Self::Off => {}
            Self::Weighted(config) => at.below("weighted", |at| {
                for (name, weight) in &config.weights {
                    at.range(&format!("weights.{name}"), *weight, 1..=65_535);
                }
            }),
            Self::ZoneAware(config) => {
                if !local {
                    at.error(
                        "",
                        "no zone can be preferred while `workload.locality.zone` does not say which is the own",
                    );
                }
                at.below("zone_aware", |at| {
                    at.range("min_endpoints", config.min_endpoints, 0..=1_000_000);
                    at.range("spill", config.spill, 1..=1_000);
                    for name in config.callers.keys().filter(|name| !name.contains('/')) {
                        at.error(&format!("callers.{name}"), "expected REGION/ZONE");
                    }
                });
            }
        }
    }
}

impl Decode for WeightedConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let weighted = Self { weights: fields.optional("weights").unwrap_or_default() };
        fields.finish();
        Some(weighted)
    }
}

impl Decode for ZoneAwareConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let zone_aware = Self {
            min_endpoints: fields.or("min_endpoints", default.min_endpoints),
            callers: fields.optional("callers").unwrap_or_default(),
            spill: fields.or("spill", default.spill),
        };
        fields.finish();
        Some(zone_aware)
    }
}

impl Decode for SlowStartConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::over(Duration::ZERO);
        let mut fields = Fields::of(node, errors)?;
        let window = fields.required("window");
        let slow_start = Self {
            window: window.unwrap_or_default(),
            min_weight_percent: fields.or("min_weight_percent", default.min_weight_percent),
            aggression: fields.or("aggression", default.aggression),
        };
        fields.finish();
        window.map(|_| slow_start)
    }
}

impl SlowStartConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("window", self.window, Duration::from_secs(1)..=Duration::from_secs(3_600));
        at.range("min_weight_percent", self.min_weight_percent, 1..=100);
        at.range("aggression", self.aggression, 0.1..=10.0);
    }
}
