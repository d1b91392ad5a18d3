//! Metrics of accepted connections and their handshakes.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What the accept loop counts. Every label value is a constant of the program.
#[derive(Debug, Default)]
pub struct TransportMetrics {
    handshakes: Family<ResultLabel, Counter>,
    accept_errors: Family<ReasonLabel, Counter>,
    accepted: Family<AcceptedLabels, Counter>,
    permissive_remaining: Family<ListenerLabel, Gauge<f64, AtomicU64>>,
    connections: Gauge,
    closed: Family<ReasonLabel, Counter>,
    rechecks: Counter,
    unreadable: Family<ReasonLabel, Counter>,
    /// Connections whose handshake is not done.
    pub half_open: Gauge,
    refused: Family<ReasonLabel, Counter>,
    waits: Family<LimitLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AcceptedLabels {
    listener: String,
    security: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: String,
}

impl TransportMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("handshakes", "TLS handshakes by result", metrics.handshakes.clone());
        registry.register("accept_errors", "Failed accepts by reason", metrics.accept_errors.clone());
        registry.register(
            "accepted",
            "Connections that may send requests, by listener and by plaintext or version of TLS",
            metrics.accepted.clone(),
        );
        registry.register_with_unit(
            "permissive_remaining",
            "Until a listener takes no more plaintext",
            Unit::Seconds,
            metrics.permissive_remaining.clone(),
        );
        registry.register("connections", "Connections that are open, handshakes included", metrics.connections.clone());
        registry.register(
            "unreadable_messages",
            "HTTP/1.1 messages without a single reading, by reason; each ended its connection",
            metrics.unreadable.clone(),
        );
        registry.register("half_open", "Connections whose handshake is not done", metrics.half_open.clone());
        registry.register("connections_refused", "Connections beyond a limit, by limit", metrics.refused.clone());
        registry.register("limit_waits", "How often newcomers had to wait, by limit", metrics.waits.clone());
        registry.register("connections_closed", "Connections closed, by reason", metrics.closed.clone());
        registry.register(
            "connection_rechecks",
            "Open connections judged again because trust or policy changed",
            metrics.rechecks.clone(),
        );
        metrics
    }

    /// Counts a handshake; `result` is `ok` or a stable reason.
    pub fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabel { result }).inc();
    }

    /// How many handshakes had `result`.
    pub fn handshakes(&self, result: &'static str) -> u64 {
        self.handshakes.get_or_create(&ResultLabel { result }).get()
    }

    /// Counts a connection that may send requests.
    ///
    /// `listener` is one of the configuration; `security` is `plaintext`, `tls12`, `tls13`, `tls12_resumed` or
    /// `tls13_resumed`.
    pub fn accepted(&self, listener: &str, security: &'static str) {
        self.accepted.get_or_create(&AcceptedLabels { listener: listener.to_owned(), security }).inc();
    }

    /// How many connections of `listener` had this `security`.
    pub fn accepted_with(&self, listener: &str, security: &'static str) -> u64 {
        self.accepted.get_or_create(&AcceptedLabels { listener: listener.to_owned(), security }).get()
    }

    /// Says for how long a listener takes plaintext; zero once it does not.
    pub fn permissive_remaining(&self, listener: &str, left: Duration) {
        let label = ListenerLabel { listener: listener.to_owned() };
        self.permissive_remaining.get_or_create(&label).set(left.as_secs_f64());
    }

    /// Counts an accept that failed.
    pub fn accept_error(&self, reason: &'static str) {
        self.accept_errors.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection { connections: self.connections.clone() }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }

    /// Counts an HTTP/1.1 message without a single reading, which ended its connection.
    pub fn unreadable(&self, reason: &'static str) {
        self.unreadable.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// How many HTTP/1.1 messages were refused for `reason`.
    pub fn unreadable_for(&self, reason: &'static str) -> u64 {
        self.unreadable.get_or_create(&ReasonLabel { reason }).get()
    }

    /// Counts a connection that was closed because of a limit.
    ///
    /// Because its address (`per_ip`) or peer (`per_peer`) has too many, because those in plaintext have half of the
    /// places (`plaintext_limit`), or because its peer is in debt (`reset_budget`).
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// How many connections were refused for `reason`.
    pub fn refused_for(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabel { reason }).get()
    }

    /// Counts that somebody waits because of `limit`.
    ///
    /// A handshake for `max_handshakes`, and newcomers, each time that places run out, for `max_connections` (`health`:
    /// for a place at the health listener).
    pub fn waited(&self, limit: &'static str) {
        self.waits.get_or_create(&LimitLabel { limit }).inc();
    }

    /// How often somebody had to wait because of `limit`.
    pub fn waited_for(&self, limit: &'static str) -> u64 {
        self.waits.get_or_create(&LimitLabel { limit }).get()
    }

    /// Counts the end of a connection whose handshake was done.
    ///
    /// Reasons are, beside what a peer did (`peer`, `error`, `unreadable`) and the limits that it reached: `idle`,
    /// `header_timeout`, `max_age`, `stopping`, `drain_timeout`; `permissive_ended` (plaintext, on a listener that is strict
    /// by now); `certificate_expired` (the peer's) and `own_certificate_expired` (ours, and none followed); `distrusted` (no bundle vouches for the peer any more) and `policy_removed` (policy has room for no
    /// request of the peer any more).
    pub fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts open connections that were judged again.
    pub fn rechecked(&self, connections: usize) {
        self.rechecks.inc_by(connections as u64);
    }

    /// How many connections ended for `reason`.
    pub fn closed_for(&self, reason: &'static str) -> u64 {
        self.closed.get_or_create(&ReasonLabel { reason }).get()
    }
}

/// One open connection in the gauge, for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Gauge,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.dec();
    }
}
