//! `clusters.*.breaker` - a circuit breaker for each endpoint.

use std::time::Duration;

use super::Node;
use super::checker::Checker;
use super::issue::Errors;
use super::outlier::OutlierConfig;
use super::values::Percent;
use super::walk::Fields;
use super::yaml::Decode;

/// A circuit breaker for each endpoint, in the place of timed ejection. (Linkerd's failure accrual)
///
/// Timed ejection ([`OutlierConfig`](super::OutlierConfig)) lets an endpoint in again, with its whole share of traffic,
/// because time has passed. A breaker asks it first: one live request is the probe, and only its success lets the others
/// follow. An endpoint has one or the other, never both.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open it; two timeouts without any answer do as well. Neither does while more
    /// than half of the others fail too. Default 7, range 1 to 1,000; 0 switches both off. (Linkerd)
    pub consecutive_failures: u32,
    /// It opens when a failure leaves the share of successes in the window below this, unless more than half of the others
    /// fail too. Default 80 %, range 1 to 100 %; 0 % switches it off. (Linkerd, Finagle)
    pub success_rate: f64,
    /// The window, counted exactly in ten parts: bursts are not smoothed away. Default 10 s, range 100 ms to 10 min.
    /// (Linkerd)
    pub window: Duration,
    /// Requests in the window, or the success rate says nothing. Default 5, range 1 to 1,000,000. (Linkerd, Finagle)
    pub min_requests: u32,
    /// How long it is open the first time; each further time doubles it, until the endpoint has stayed closed for as
    /// long, at least for `window`.
    /// Default 1 s, range 10 ms to 1 h. (Linkerd)
    pub backoff: Duration,
    /// The longest it is open, jitter included. Default 1 min, range 10 ms to 24 h, at least `backoff`. (Linkerd)
    pub max_backoff: Duration,
    /// It stays open longer by a random part, up to this. Default 50 %, range 0 to 100 %. (Linkerd)
    pub jitter: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 7,
            success_rate: 0.8,
            window: Duration::from_secs(10),
            min_requests: 5,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            jitter: 0.5,
        }
    }
}

/// Settings of `outlier:` that a breaker has itself, and what they are called there.
const REPLACED: [(&str, &str); 4] = [
    ("consecutive_failures", "consecutive_failures"),
    ("base_ejection", "backoff"),
    ("max_ejection", "max_backoff"),
    ("ejection_jitter", "jitter"),
];

/// Refuses settings of `outlier:` that would not be used beside a breaker.
pub(super) fn refuse_replaced(outlier: &Node, errors: &mut Errors) {
    let Some(entries) = outlier.entries(errors) else { return };
    for entry in entries {
        if let Some((name, own)) = REPLACED.iter().find(|(name, _)| *name == entry.key) {
            let message = format!("`{name}` is not used beside `breaker:`; set `breaker.{own}` and remove it here");
            errors.push(&entry.value.place, message);
        }
    }
}

/// The same of settings made in code: what is as by default was not set, and what the file has is refused already.
pub(super) fn check_replaced(outlier: &OutlierConfig, at: &mut Checker<'_>) {
    let default = OutlierConfig::default();
    let set = [
        outlier.consecutive_failures != default.consecutive_failures,
        outlier.base_ejection != default.base_ejection,
        outlier.max_ejection != default.max_ejection,
        outlier.ejection_jitter != default.ejection_jitter,
    ];
    for ((name, own), _) in REPLACED.iter().zip(set).filter(|(_, set)| *set) {
        if !at.is_written(name) {
            let message =
                format!("`{name}` is not used beside `breaker`; set `breaker.{own}`, and leave it as it is here");
            at.error(name, message);
        }
    }
}

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Decode for BreakerConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let breaker = Self {
            consecutive_failures: fields.or("consecutive_failures", default.consecutive_failures),
            success_rate: fields.or("success_rate", Percent(default.success_rate)).0,
            window: fields.or("window", default.window),
            min_requests: fields.or("min_requests", default.min_requests),
            backoff: fields.or("backoff", default.backoff),
            max_backoff: fields.or("max_backoff", default.max_backoff),
            jitter: fields.or("jitter", Percent(default.jitter)).0,
        };
        fields.finish();
        Some(breaker)
    }
}

impl BreakerConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("consecutive_failures", self.consecutive_failures, 0..=1_000);
        if self.success_rate != 0.0 {
            at.range("success_rate", Percent(self.success_rate), Percent(0.01)..=Percent(1.0));
        }
        at.range("window", self.window, 100 * MILLI..=HOUR / 6);
        at.range("min_requests", self.min_requests, 1..=1_000_000);
        at.range("backoff", self.backoff, 10 * MILLI..=HOUR);
        at.range("max_backoff", self.max_backoff, 10 * MILLI..=24 * HOUR);
        at.at_least("max_backoff", self.max_backoff, "backoff", self.backoff);
        at.range("jitter", Percent(self.jitter), Percent(0.0)..=Percent(1.0));
    }
}
