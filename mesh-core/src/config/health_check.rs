//! `clusters.*.health_check` - asking endpoints how they are.

use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::values::Percent;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};

/// Active health checks of every endpoint, over the connections that requests use.
///
/// So with mTLS, and the cluster's identities required in the handshake. (Envoy's `health_checks`)
///
/// An endpoint that was never checked is in. `unhealthy_threshold` failures in a row take it out, `healthy_threshold`
/// successes let it in. Fails open: a check that cannot be made for a reason of our own - no valid SVID, no stream free in
/// time - or whose answer says nothing leaves the endpoint as it was, and is counted as `inconclusive`. If all are out, all
/// are picked.
///
/// The endpoint's own policy must let this workload ask: to be refused is to be unhealthy. Checks begin with the first call
/// of the cluster, and every caller makes its own: an endpoint answers callers / `interval` of them a second. A reload that
/// changes them makes the cluster anew, with new connections and nothing learnt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealthCheckConfig {
    /// What is asked: `{ http: { path: /readyz, statuses: [200-299] } }`, those statuses unless others are given, or with mesh-tonic's plugin
    /// `{ grpc: { service: "" } }`.
    pub check: PlugConfig,
    /// From the end of a check of an endpoint to the next. Default 10 s, range 100 ms to 1 h.
    pub interval: Duration,
    /// Intervals differ by a random part of it, up to this, both ways. Default 10 %, range 0 to 50 %.
    pub jitter: f64,
    /// How long an answer may take, with its body. Default 1 s, range 10 ms to 60 s.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out. Default 3, range 1 to 100.
    pub unhealthy_threshold: u32,
    /// Successes in a row that let it in again. Default 2, range 1 to 100.
    pub healthy_threshold: u32,
    /// Checks under way at once, in the whole cluster. Default 16, range 1 to 1,000.
    pub concurrency: usize,
    /// A success also ends an ejection. Default false: an endpoint that answers its health check and fails its requests
    /// would come back every time. (Envoy does so by default: `successful_active_health_check_uneject_host`)
    pub ends_ejection: bool,
}

impl HealthCheckConfig {
    /// A check with every default.
    pub fn new(check: PlugConfig) -> Self {
        Self {
            check,
            interval: Duration::from_secs(10),
            jitter: 0.1,
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            concurrency: 16,
            ends_ejection: false,
        }
    }
}

/// The settings of the kind `grpc`, which mesh-tonic brings: `{ service: shop.Payments }`.
///
/// Here, so that tools which know no protobuf can judge them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcCheckConfig {
    /// The service that is asked for. Default: empty, the whole process.
    pub service: String,
}

impl Decode for GrpcCheckConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let service = fields.or("service", String::new());
        fields.finish();
        Some(Self { service })
    }
}

const MILLI: Duration = Duration::from_millis(1);

impl Decode for HealthCheckConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let check: Option<PlugConfig> = fields.required("check");
        let default = Self::new(PlugConfig { kind: String::new(), settings: node.clone() });
        let read = Self {
            interval: fields.or("interval", default.interval),
            jitter: fields.or("jitter", Percent(default.jitter)).0,
            timeout: fields.or("timeout", default.timeout),
            unhealthy_threshold: fields.or("unhealthy_threshold", default.unhealthy_threshold),
            healthy_threshold: fields.or("healthy_threshold", default.healthy_threshold),
            concurrency: fields.or("concurrency", default.concurrency),
            ends_ejection: fields.or("ends_ejection", default.ends_ejection),
            check: default.check,
        };
        fields.finish();
        Some(Self { check: check?, ..read })
    }
}

impl HealthCheckConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("interval", self.interval, 100 * MILLI..=3_600_000 * MILLI);
        at.range("jitter", Percent(self.jitter), Percent(0.0)..=Percent(0.5));
        at.range("timeout", self.timeout, 10 * MILLI..=60_000 * MILLI);
        at.range("unhealthy_threshold", self.unhealthy_threshold, 1..=100);
        at.range("healthy_threshold", self.healthy_threshold, 1..=100);
        at.range("concurrency", self.concurrency, 1..=1_000);
    }
}
