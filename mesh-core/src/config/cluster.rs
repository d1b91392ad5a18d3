//! `clusters:` - the services that may be called, and how their endpoints are chosen and judged.

use std::time::Duration;

use super::PlugConfig;
use crate::identity::SpiffeId;

/// One callable service.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Where its endpoints come from: `{ static: ["127.0.0.1:8443"] }`, `{ file: endpoints.yaml }`, ...
    pub discover: PlugConfig,
    /// The SPIFFE IDs that its endpoints may have; any other fails the handshake. Never empty.
    pub identities: Vec<SpiffeId>,
    /// How an endpoint is picked.
    pub balance: BalanceConfig,
    /// When an endpoint is taken out for a while.
    pub outlier: OutlierConfig,
    /// Connections to each endpoint.
    pub pool: PoolConfig,
    /// A token to attach to every request, `{ file: token.jwt }`; absent: none.
    pub token: Option<PlugConfig>,
}

impl ClusterConfig {
    /// A cluster with every default.
    pub fn new(discover: PlugConfig, identities: Vec<SpiffeId>) -> Self {
        Self {
            discover,
            identities,
            balance: BalanceConfig::default(),
            outlier: OutlierConfig::default(),
            pool: PoolConfig::default(),
            token: None,
        }
    }
}

/// How an endpoint is picked among those that may be used.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BalanceConfig {
    /// The algorithm.
    pub policy: BalancePolicy,
    /// How long a latency sample matters. Default 10 s, range 100 ms to 10 min. (Finagle, Linkerd)
    pub decay: Duration,
    /// The latency assumed of an endpoint that was never measured. Default 30 ms, range 1 us to 60 s. (Linkerd)
    pub default_rtt: Duration,
    /// What a failed or timed-out attempt counts as, if it was not slower. Default 5 s, range 0 to 5 min. A failure
    /// that is recorded as fast attracts traffic. (linkerd2-proxy load-biaser)
    pub failure_penalty: Duration,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            policy: BalancePolicy::PeakEwma,
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
            failure_penalty: Duration::from_secs(5),
        }
    }
}

/// The picking algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BalancePolicy {
    /// The better of two distinct random endpoints, by latency x load, failures counted as slow.
    #[default]
    PeakEwma,
}

/// Consecutive-failure ejection. (Envoy's `outlier_detection`)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierConfig {
    /// Failures in a row that eject. Default 5, range 1 to 1,000; 0 switches ejection off.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; the n-th lasts n times as long. Default 30 s, range 10 ms to 1 h.
    pub base_ejection: Duration,
    /// The longest ejection. Default 300 s, range 10 ms to 24 h, at least `base_ejection`.
    pub max_ejection: Duration,
    /// The share of endpoints that may be ejected at once, tested after the ejection (Envoy's reading). Default 50 %,
    /// range 0 to 100.
    pub max_ejection_percent: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }
}

/// Connections to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Which HTTP versions are offered by ALPN.
    pub http: HttpVersion,
    /// TCP connect and TLS handshake together. Default 1 s, range 10 ms to 60 s.
    pub connect_timeout: Duration,
    /// Connections at most. Default 4 for HTTP/2 (a further one is opened when streams run out); HTTP/1.1 uses
    /// 64 times as many. Range 1 to 1,024.
    pub max_connections: usize,
    /// Requests that may wait for a connection; further ones fail at once with `overloaded`. Default 1,024, range 0 to
    /// 1,000,000.
    pub max_pending: usize,
    /// How often a quiet HTTP/2 connection with requests in flight is pinged. Default 5 s, range 100 ms to 1 h.
    pub ping_interval: Duration,
    /// How long a ping may be unanswered before the connection is dead. Default 2 s, range 100 ms to 1 h.
    pub ping_timeout: Duration,
    /// How long an unused connection is kept. Default 90 s, range 1 s to 24 h.
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            http: HttpVersion::Auto,
            connect_timeout: Duration::from_secs(1),
            max_connections: 4,
            max_pending: 1024,
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// The HTTP versions that a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpVersion {
    /// HTTP/2, or HTTP/1.1 where the server has no HTTP/2.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}
