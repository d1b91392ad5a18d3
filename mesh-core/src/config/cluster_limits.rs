//! `clusters.*.limits` - how much of this process one cluster may take up.

use super::Node;
use super::checker::Checker;
use super::issue::Errors;
use super::values::Percent;
use super::walk::Fields;
use super::yaml::Decode;

/// What all endpoints of one cluster together may hold. (Envoy's `circuit_breakers.thresholds`)
///
/// A cluster that has become slow keeps whatever is sent to it: memory, sockets, and the requests of our own callers. Beyond
/// `max_requests` an attempt fails at once (`mesh_tower::ErrorKind::LimitReached`); beyond `max_connections` it waits in the
/// queue of its endpoint; beyond `max_handshakes` connecting takes turns; beyond `max_retries` it is not repeated. Each is counted in `mesh_client_limit_overflows_total`.
/// The place of an attempt is held to the end of the response body, or until the caller drops it.
///
/// How many requests may wait for a connection is a limit of each endpoint,
/// [`PoolConfig::max_pending`](super::PoolConfig::max_pending): one that hangs must not take the places of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ClusterLimitsConfig {
    /// Attempts under way, from the pick to the end of the body. Default 1,024, range 1 to 1,000,000. (Envoy; gRPC has the
    /// same number, unconfigured and unseen: istio/istio#55202)
    pub max_requests: usize,
    /// Connections to all endpoints, those being made included. An endpoint without any gets its first one all the same
    /// (Envoy's reading), or its requests could never be sent; requests for more wait in its queue. Default 1,024, range 1
    /// to 1,000,000.
    pub max_connections: usize,
    /// TLS handshakes under way; further connections wait for their turn once TCP stands. That wait is not part of
    /// `pool.connect_timeout`. When many endpoints are met at once, handshakes that all share the processors would all be too
    /// late; in turns each is in time. Whose time is up before its turn blames no endpoint for it. A server
    /// that accepts and then says nothing holds a turn for 250 ms. Default 64, range 1 to 1,000,000.
    pub max_handshakes: usize,
    /// Repeated attempts under way or in a back-off of ours; one that waits because its endpoint asked for it has its place
    /// only then, and as many as `max_requests` may wait so. Absent: as many as the budgets of routes allow. Envoy's 3
    /// loses requests whenever a connection with four streams breaks (envoyproxy/envoy#10869).
    pub max_retries: Option<MaxRetries>,
}

impl Default for ClusterLimitsConfig {
    fn default() -> Self {
        Self { max_requests: 1024, max_connections: 1024, max_handshakes: 64, max_retries: None }
    }
}

/// How many attempts may be repeated ones: `3`, or `20%` of those under way.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum MaxRetries {
    /// So many. Range 0 to 1,000,000.
    Count(usize),
    /// This share of the attempts under way, and always [three](Self::LEAST). Range 0 to 100 %. (Envoy's `retry_budget`)
    Share(f64),
}

impl MaxRetries {
    /// What a share allows however little is under way. (Envoy's `min_retry_concurrency`)
    pub const LEAST: usize = 3;

    /// How many may be, beside this many attempts.
    pub fn of(self, attempts: usize) -> usize {
        match self {
            Self::Count(count) => count,
            // A share of a count fits a count; what 0.29 * 100 lacks in binary is given back.
            Self::Share(share) => ((attempts as f64 * share + 1e-6) as usize).max(Self::LEAST),
        }
    }
}

impl Decode for MaxRetries {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str() {
            Some(_) => Percent::decode(node, errors).map(|share| Self::Share(share.0)),
            None => usize::decode(node, errors).map(Self::Count),
        }
    }
}

impl Decode for ClusterLimitsConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let limits = Self {
            max_requests: fields.or("max_requests", default.max_requests),
            max_connections: fields.or("max_connections", default.max_connections),
            max_handshakes: fields.or("max_handshakes", default.max_handshakes),
            max_retries: fields.optional("max_retries"),
        };
        if fields.node("max_pending").is_some() {
            let place = fields.place("max_pending");
            fields.errors().push(&place, "it is a limit of each endpoint: write `pool: { max_pending: ... }`");
        }
        fields.finish();
        Some(limits)
    }
}

impl ClusterLimitsConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("max_requests", self.max_requests, 1..=1_000_000);
        at.range("max_connections", self.max_connections, 1..=1_000_000);
        at.range("max_handshakes", self.max_handshakes, 1..=1_000_000);
        match self.max_retries {
            Some(MaxRetries::Count(count)) => at.range("max_retries", count, 0..=1_000_000),
            Some(MaxRetries::Share(share)) => at.range("max_retries", Percent(share), Percent(0.0)..=Percent(1.0)),
            None => {}
        }
    }
}
