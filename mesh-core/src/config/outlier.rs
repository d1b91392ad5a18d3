//! `clusters.*.outlier` - when an endpoint is taken out for a while.

use std::time::Duration;

use super::Node;
use super::checker::Checker;
use super::issue::Errors;
use super::values::Percent;
use super::walk::Fields;
use super::yaml::Decode;

/// Ejection of endpoints that fail. (Envoy's `outlier_detection`, gRPC A50)
///
/// `consecutive_failures` judges each endpoint alone and at once; `success_rate` and `failure_percentage` judge it
/// beside the others, once in an `interval`. With a [`breaker`](super::ClusterConfig::breaker) the way out and back is
/// the breaker's: `consecutive_failures`, `base_ejection`, `max_ejection` and `ejection_jitter` are refused beside it,
/// because it has settings of its own for each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct OutlierConfig {
    /// Failures in a row that eject; two timeouts without any answer do as well. Neither does while more than half of the
    /// others fail too: then it is no endpoint's own fault. Default 5, range 1 to 1,000; 0 switches both off. (Envoy, Istio)
    pub consecutive_failures: u32,
    /// Compared by success rate.
    pub success_rate: SuccessRateConfig,
    /// Compared with a fixed share of failures.
    pub failure_percentage: FailurePercentageConfig,
    /// How often the two comparisons are made, each over what was counted since the last. Default 10 s, range 100 ms to
    /// 1 h. (Envoy, A50)
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long, and n shrinks by one for each of it that the
    /// endpoint then stays in. Default 30 s, range 10 ms to 1 h.
    pub base_ejection: Duration,
    /// The longest ejection, before its jitter. Default 300 s, range 10 ms to 24 h, at least `base_ejection`.
    pub max_ejection: Duration,
    /// Each ejection lasts longer by a random part of it, up to this: callers that ejected together do not come back
    /// together. Default 10 %, range 0 to 100 %. (Envoy's `max_ejection_time_jitter` is a time, and off)
    pub ejection_jitter: f64,
    /// The share of endpoints that may be out at once, tested after the ejection (Envoy's reading; gRPC tests before).
    /// It holds for the breaker too. Default 50 %, range 0 to 100. (Envoy: 10 %)
    pub max_ejection_percent: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            success_rate: SuccessRateConfig::default(),
            failure_percentage: FailurePercentageConfig::default(),
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            ejection_jitter: 0.1,
            max_ejection_percent: 50,
        }
    }
}

/// Ejection of endpoints whose success rate lies far below that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SuccessRateConfig {
    /// Standard deviations below the mean that eject. Default 1.9, range 0.1 to 10; 0 switches it off. (Envoy, A50)
    pub stdev_factor: f64,
    /// Endpoints that must have had `min_requests`, or nobody is compared. Default 5, range 2 to 10,000. (Envoy, A50)
    pub min_hosts: u32,
    /// Requests of an endpoint in the interval, or it is not compared. Default 100, range 1 to 1,000,000. (Envoy, A50)
    pub min_requests: u32,
    /// Standard errors that the endpoint must be worse than the mean besides, so that chance ejects nobody. Default 4,
    /// range 0 to 10; 0 is Envoy's rule.
    pub significance: f64,
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self { stdev_factor: 1.9, min_hosts: 5, min_requests: 100, significance: 4.0 }
    }
}

/// Ejection of endpoints of which too large a share fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentageConfig {
    /// Failures in a hundred that eject, `>=` (Envoy's reading; gRPC reads `>`), unless more than half of the others fail too.
    /// Default 85, which Envoy has too but does not enforce unless asked; range 1 to 100; 0 switches it off.
    pub threshold: u32,
    /// Endpoints that must have had `min_requests`, or nobody is judged. Default 5, range 1 to 10,000. (Envoy, A50)
    pub min_hosts: u32,
    /// Requests of an endpoint in the interval, or it is not judged. Default 50, range 1 to 1,000,000. (Envoy, A50)
    pub min_requests: u32,
}

impl Default for FailurePercentageConfig {
    fn default() -> Self {
        Self { threshold: 85, min_hosts: 5, min_requests: 50 }
    }
}

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Decode for OutlierConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let outlier = Self {
            consecutive_failures: fields.or("consecutive_failures", default.consecutive_failures),
            success_rate: fields.or("success_rate", default.success_rate),
            failure_percentage: fields.or("failure_percentage", default.failure_percentage),
            interval: fields.or("interval", default.interval),
            base_ejection: fields.or("base_ejection", default.base_ejection),
            max_ejection: fields.or("max_ejection", default.max_ejection),
            ejection_jitter: fields.or("ejection_jitter", Percent(default.ejection_jitter)).0,
            max_ejection_percent: fields.or("max_ejection_percent", default.max_ejection_percent),
        };
        fields.finish();
        Some(outlier)
    }
}

impl OutlierConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("consecutive_failures", self.consecutive_failures, 0..=1_000);
        at.range("interval", self.interval, 100 * MILLI..=HOUR);
        at.range("base_ejection", self.base_ejection, 10 * MILLI..=HOUR);
        at.range("max_ejection", self.max_ejection, 10 * MILLI..=24 * HOUR);
        at.at_least("max_ejection", self.max_ejection, "base_ejection", self.base_ejection);
        at.range("ejection_jitter", Percent(self.ejection_jitter), Percent(0.0)..=Percent(1.0));
        at.range("max_ejection_percent", self.max_ejection_percent, 0..=100);
        at.below("success_rate", |at| {
            let rule = &self.success_rate;
            if rule.stdev_factor != 0.0 {
                at.range("stdev_factor", rule.stdev_factor, 0.1..=10.0);
            }
            at.range("min_hosts", rule.min_hosts, 2..=10_000);
            at.range("min_requests", rule.min_requests, 1..=1_000_000);
            at.range("significance", rule.significance, 0.0..=10.0);
        });
        at.below("failure_percentage", |at| {
            let rule = &self.failure_percentage;
            at.range("threshold", rule.threshold, 0..=100);
            at.range("min_hosts", rule.min_hosts, 1..=10_000);
            at.range("min_requests", rule.min_requests, 1..=1_000_000);
        });
    }
}

impl Decode for SuccessRateConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let rule = Self {
            stdev_factor: fields.or("stdev_factor", default.stdev_factor),
            min_hosts: fields.or("min_hosts", default.min_hosts),
            min_requests: fields.or("min_requests", default.min_requests),
            significance: fields.or("significance", default.significance),
        };
        fields.finish();
        Some(rule)
    }
}

impl Decode for FailurePercentageConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let rule = Self {
            threshold: fields.or("threshold", default.threshold),
            min_hosts: fields.or("min_hosts", default.min_hosts),
            min_requests: fields.or("min_requests", default.min_requests),
        };
        fields.finish();
        Some(rule)
    }
}
