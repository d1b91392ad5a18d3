//! Metrics of the server side.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{LatencyHistogram, Series};

/// Label sets of one metric at most; more come from route templates that nobody has, or from an attack.
const MAX_SERIES: usize = 1024;

/// How a finished request is counted. Every value comes from a bounded set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// A method of RFC 9110 or PATCH; any other is `OTHER`.
    pub method: &'static str,
    /// The matched route template or known gRPC method; `-` where none is known.
    pub route: Arc<str>,
    /// `2xx`, ...; `-` where the caller left before the response head.
    pub status: &'static str,
    /// The number of the gRPC status; `-` for HTTP.
    pub grpc_status: &'static str,
}

/// Which policy and rule kept a request out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DenialLabels {
    /// `NAMESPACE/NAME`; `-` where no policy decided.
    pub policy: Arc<str>,
    /// 0-based; -1 where no rule decided.
    pub rule: i64,
    /// [`crate::policy::Reason::as_str`].
    pub reason: &'static str,
}

/// Why a stage other than policy refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectLabels {
    /// A stable code, for example `path_dot_segment`, `overloaded` or `token_expired`.
    pub reason: &'static str,
}

/// What became of a question to an external authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CustomLabels {
    /// `spec.provider.name`.
    pub provider: Arc<str>,
    /// `allow`, `deny`, `error`, `timeout` or `unknown`: see [`crate::policy::CustomAnswer`].
    pub outcome: &'static str,
}

/// What the server side counts.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Requests being answered now.
    pub in_flight: Gauge,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Responses cut because a newer policy would not have let the request in.
    pub streams_revoked: Counter,
    /// Buckets of callers that were forgotten to make room for others.
    pub rate_limit_evictions: Counter,
    requests: Series<RequestLabels, LatencyHistogram>,
    denied: Series<DenialLabels, Counter<u64, AtomicU64>>,
    rejected: Series<RejectLabels, Counter<u64, AtomicU64>>,
    custom: Series<CustomLabels, LatencyHistogram>,
}

impl ServerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let dash: Arc<str> = Arc::from("-");
        let metrics = Self {
            in_flight: Gauge::default(),
            panics: Counter::default(),
            streams_revoked: Counter::default(),
            rate_limit_evictions: Counter::default(),
            requests: Series::new(
                MAX_SERIES,
                RequestLabels { method: "OTHER", route: Arc::clone(&dash), status: "-", grpc_status: "-" },
            ),
            denied: Series::new(MAX_SERIES, DenialLabels { policy: dash, rule: -1, reason: "other" }),
            rejected: Series::new(MAX_SERIES, RejectLabels { reason: "other" }),
            custom: Series::new(MAX_SERIES, CustomLabels { provider: Arc::from("-"), outcome: "other" }),
        };
        registry.register("requests_in_flight", "Requests being answered now", metrics.in_flight.clone());
        registry.register("panics", "Handlers and layers that panicked", metrics.panics.clone());
        registry.register("streams_revoked", "Responses cut by a newer policy", metrics.streams_revoked.clone());
        registry.register(
            "rate_limit_evictions",
            "Callers forgotten by the rate limit to make room",
            metrics.rate_limit_evictions.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From request head to the end of the response body",
            metrics.requests.clone(),
        );
        registry.register("denied", "Requests that policy kept out", metrics.denied.clone());
        registry.register("rejected", "Requests that another stage refused", metrics.rejected.clone());
        registry.register(
            "custom_duration_seconds",
            "Questions to external authorizers, and how long their answers took",
            metrics.custom.clone(),
        );
        metrics
    }

    /// Counts a request whose response ended, or that was given up.
    pub fn finished(&self, labels: &RequestLabels, took: Duration) {
        self.requests.with(labels, |latency| latency.observe(took));
    }

    /// Counts a denial by policy, or by what a route requires in code.
    ///
    /// The name of the latter stands for the policy's.
    pub fn denied(&self, labels: &DenialLabels) {
        self.denied.with(labels, |counter| {
            counter.inc();
        });
    }

    /// Counts a question to an external authorizer.
    pub fn asked(&self, labels: &CustomLabels, took: Duration) {
        self.custom.with(labels, |latency| latency.observe(took));
    }

    /// Counts a refusal by any other stage.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.with(&RejectLabels { reason }, |counter| {
            counter.inc();
        });
    }
}
