//! `clusters:` - the services that may be called, and how their endpoints are chosen and judged.

use std::time::Duration;

use super::balance::BalanceConfig;
use super::breaker::{BreakerConfig, check_replaced, refuse_replaced};
use super::checker::Checker;
use super::cluster_limits::ClusterLimitsConfig;
use super::health_check::HealthCheckConfig;
use super::issue::Errors;
use super::outlier::OutlierConfig;
use super::tls::TlsConfig;
use super::values::Size;
use super::walk::Fields;
use super::yaml::Decode;
use super::{HoldConfig, LocalityConfig, Node, PlugConfig, Value};
use crate::identity::SpiffeId;

/// One callable service.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Where its endpoints come from: `{ static: ["127.0.0.1:8443"] }`, `{ file: endpoints.yaml }`,
    /// `{ dns: "payments.shop.svc:8443" }` (feature `dns`), ...
    pub discover: PlugConfig,
    /// When endpoints that it no longer names stay in force.
    pub discover_hold: HoldConfig,
    /// The SPIFFE IDs that its endpoints may have; any other fails the handshake. Never empty.
    pub identities: Vec<SpiffeId>,
    /// How an endpoint is picked.
    pub balance: BalanceConfig,
    /// When an endpoint is taken out for a while.
    pub outlier: OutlierConfig,
    /// A circuit breaker for each endpoint, in the place of timed ejection; absent: none.
    pub breaker: Option<BreakerConfig>,
    /// What all endpoints together may hold of this process.
    pub limits: ClusterLimitsConfig,
    /// Whether endpoints are asked how they are; absent: only requests tell.
    pub health_check: Option<HealthCheckConfig>,
    /// Connections to each endpoint.
    pub pool: PoolConfig,
    /// What may be less than TLS 1.3 with full handshakes.
    pub tls: TlsConfig,
    /// A token to attach to every request, `{ file: token.jwt }`; absent: none.
    pub token: Option<PlugConfig>,
    /// The regions that traffic may go to, `[eu-west]`; empty (default): any. Fails closed: an endpoint elsewhere, or
    /// whose region is not known, gets nothing and is not connected to - not when all others are out, not in panic -
    /// and a request without another endpoint fails with `no_endpoints`. An endpoint's region is what discovery says.
    pub residency: Vec<String>,
}

impl ClusterConfig {
    /// A cluster with every default.
    pub fn new(discover: PlugConfig, identities: Vec<SpiffeId>) -> Self {
        Self {
            discover,
            discover_hold: HoldConfig::default(),
            identities,
            balance: BalanceConfig::default(),
            outlier: OutlierConfig::default(),
            breaker: None,
            limits: ClusterLimitsConfig::default(),
            health_check: None,
            pool: PoolConfig::default(),
            tls: TlsConfig::default(),
            token: None,
            residency: Vec::new(),
        }
    }
}

/// Connections to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Which HTTP versions are offered by ALPN.
    pub http: HttpVersion,
    /// TCP connect and TLS handshake together, without the wait for a turn (`limits.max_handshakes`). Default 1 s, range 10 ms to 60 s.
    pub connect_timeout: Duration,
    /// Connections at most. Default 4 for HTTP/2 (further ones are opened when streams run out); HTTP/1.1 uses
    /// 64 times as many. Those that waiting requests need are made together, 32 at once at most. Range 1 to 1,024.
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
    /// How long a connection takes requests, until a successor is connected; those under way finish. Up to 10 % less,
    /// by chance, so that what was connected together is not replaced together. A connection that lives for ever keeps to the
    /// servers that were there when it was made, behind a load balancer in particular. Settings that change hold for new
    /// connections. 0: no limit. Default 1 h, range 0 or 1 s to 24 h. (Envoy's `max_connection_duration`; gRPC A9)
    pub max_connection_age: Duration,
    /// How long a response body may come without a byte before it fails; 0: for ever. It bounds streams that nobody gave
    /// a deadline; one that is quiet for good reason needs messages of its own against it. Default 5 min, range 0 to
    /// 24 h. (Envoy)
    pub stream_idle_timeout: Duration,
    /// Decoded bytes of one response's headers, and of its trailers; more fail the request. Default 64 KiB, range 8 KiB
    /// to 1 MiB. (Envoy: 60 KiB)
    pub max_header_bytes: u32,
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
            max_connection_age: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(300),
            max_header_bytes: 64 * 1024,
        }
    }
}

/// The HTTP versions that a client offers: `auto`, `http1` or `http2`.
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

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Decode for ClusterConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (discover, identities) = (fields.required("discover"), fields.required("identities"));
        let discover_hold = fields.optional("discover_hold");
        let (balance, outlier, pool) =
            (fields.optional("balance"), fields.optional("outlier"), fields.optional("pool"));
        let (tls, token) = (fields.optional("tls"), fields.optional("token"));
        let residency = fields.optional("residency");
        let (breaker, limits) = (fields.optional("breaker"), fields.optional("limits"));
        let health_check = fields.optional("health_check");
        if breaker.is_some()
            && let Some(outlier) = fields.node("outlier")
        {
            refuse_replaced(outlier, fields.errors());
        }
        fields.finish();
        Some(Self {
            discover_hold: discover_hold.unwrap_or_default(),
            balance: balance.unwrap_or_default(),
            outlier: outlier.unwrap_or_default(),
            breaker,
            limits: limits.unwrap_or_default(),
            health_check,
            pool: pool.unwrap_or_default(),
            tls: tls.unwrap_or_default(),
            token,
            residency: residency.unwrap_or_default(),
            ..Self::new(discover?, identities?)
        })
    }
}

impl ClusterConfig {
    /// The endpoints come from DNS, and nobody says where they run.
    fn tells_no_locality(&self) -> bool {
        let entries = if let Value::Map(entries) = &self.discover.settings.value { entries.as_slice() } else { &[] };
        self.discover.kind == "dns" && !entries.iter().any(|entry| entry.key == "locality")
    }

    /// `local`: it is known in which zone this process runs.
    pub(super) fn check(&self, local: bool, at: &mut Checker<'_>) {
        if self.identities.is_empty() && !at.has_gaps("identities", 0) {
            at.error(
                "identities",
                "at least one SPIFFE ID is required: without it any workload could pose as this one",
            );
        }
        for (index, id) in self.identities.iter().enumerate().filter(|(_, id)| id.path().is_empty()) {
            at.error(
                &format!("identities[{index}]"),
                format!("{id} names a trust domain, not a workload: add its path"),
            );
        }
        if self.tells_no_locality() {
            if !self.residency.is_empty() {
                at.error(
                    "residency",
                    "names tell no region, so all endpoints of `dns` would be shut out: say where they run, `dns: { locality: { region: ... } }`",
                );
            }
            if !matches!(self.balance.locality, LocalityConfig::Off) {
                at.error(
                    "balance.locality",
                    "names tell no locality, so all endpoints of `dns` would be in one: say where they run, `dns: { locality: ... }`, or leave this out",
                );
            }
        }
        for (index, _) in self.residency.iter().enumerate().filter(|(_, region)| region.is_empty()) {
            at.error(&format!("residency[{index}]"), "the name of a region cannot be empty");
        }
        at.below("discover_hold", |at| self.discover_hold.check(at));
        at.below("balance", |at| self.balance.check(local, at));
        at.below("outlier", |at| self.outlier.check(at));
        if let Some(breaker) = &self.breaker {
            at.below("outlier", |at| check_replaced(&self.outlier, at));
            at.below("breaker", |at| breaker.check(at));
        }
        at.below("limits", |at| self.limits.check(at));
        if let Some(health_check) = &self.health_check {
            at.below("health_check", |at| health_check.check(at));
        }
        at.below("pool", |at| self.pool.check(at));
    }
}

impl Decode for PoolConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let header_bytes: Option<Size> = fields.optional("max_header_bytes");
        let pool = Self {
            http: fields.or("http", default.http),
            connect_timeout: fields.or("connect_timeout", default.connect_timeout),
            max_connections: fields.or("max_connections", default.max_connections),
            max_pending: fields.or("max_pending", default.max_pending),
            ping_interval: fields.or("ping_interval", default.ping_interval),
            ping_timeout: fields.or("ping_timeout", default.ping_timeout),
            idle_timeout: fields.or("idle_timeout", default.idle_timeout),
            max_connection_age: fields.or("max_connection_age", default.max_connection_age),
            stream_idle_timeout: fields.or("stream_idle_timeout", default.stream_idle_timeout),
            // Beyond `u32` is beyond the range, which is checked later.
            max_header_bytes: header_bytes
                .map_or(default.max_header_bytes, |size| u32::try_from(size.0).unwrap_or(u32::MAX)),
        };
        fields.finish();
        Some(pool)
    }
}

impl PoolConfig {
    fn check(&self, at: &mut Checker<'_>) {
        at.range("connect_timeout", self.connect_timeout, 10 * MILLI..=60 * SECOND);
        at.range("max_connections", self.max_connections, 1..=1_024);
        at.range("max_pending", self.max_pending, 0..=1_000_000);
        at.range("ping_interval", self.ping_interval, 100 * MILLI..=HOUR);
        at.range("ping_timeout", self.ping_timeout, 100 * MILLI..=HOUR);
        at.range("idle_timeout", self.idle_timeout, SECOND..=24 * HOUR);
        if !self.max_connection_age.is_zero() {
            at.range("max_connection_age", self.max_connection_age, SECOND..=24 * HOUR);
        }
        at.range("stream_idle_timeout", self.stream_idle_timeout, Duration::ZERO..=24 * HOUR);
        at.range("max_header_bytes", Size(self.max_header_bytes.into()), Size(8 << 10)..=Size(1 << 20));
    }
}

impl Decode for HttpVersion {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("auto", Self::Auto), ("http1", Self::Http1), ("http2", Self::Http2)], errors)
    }
}
