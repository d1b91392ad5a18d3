//! Metrics of the client side.
//!
//! The label `cluster` takes the names of the configuration only, the other labels are closed enums, so the number of
//! series is bounded. Every series exists, at zero, from the moment its cluster does: an alert can tell "never" from
//! "not scraped".

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::LatencyHistogram;
use super::balance::{BalanceFamilies, BalanceMetrics};
use super::labels::{Counters, Gauges, Labels, labels};

labels! {
    /// How a request ended for its caller, all attempts together.
    RequestOutcome, "outcome" {
        /// Answered, and not with an error of the server.
        Success = "success",
        /// Answered with an error of the server.
        Failure = "failure",
        /// No answer by its deadline or the route's timeout.
        Timeout = "timeout",
        /// No endpoint could be reached, or the connection broke.
        Unreachable = "unreachable",
        /// There was no endpoint to send it to.
        NoEndpoints = "no_endpoints",
        /// No route matched it.
        NoRoute = "no_route",
        /// Too many requests wait for a connection or are under way.
        Overloaded = "overloaded",
        /// The caller went away first.
        Cancelled = "cancelled",
        /// Any other error of this side.
        Internal = "internal",
    }
}

labels! {
    /// How one attempt ended.
    AttemptOutcome, "outcome" {
        /// Answered well.
        Success = "success",
        /// Answered with an error of the server.
        Failure = "failure",
        /// No answer in time.
        Timeout = "timeout",
        /// Not reached, or the connection broke.
        Unreachable = "unreachable",
        /// The caller went away before an answer.
        Cancelled = "cancelled",
    }
}

labels! {
    /// Why an attempt is repeated.
    RetryReason, "reason" {
        /// It was provably never begun.
        NotSent = "not_sent",
        /// The server answered with an error.
        Failure = "failure",
        /// It did not answer in time.
        Timeout = "timeout",
        /// It was not reached, or the connection broke.
        Unreachable = "unreachable",
    }
}

labels! {
    /// Why an endpoint is ejected.
    EjectReason, "reason" {
        /// Too many failures in a row.
        ConsecutiveFailures = "consecutive_failures",
        /// It stopped answering.
        Timeouts = "timeouts",
        /// Its success rate lies far below that of the others.
        SuccessRate = "success_rate",
        /// Too large a share of its requests failed in one interval.
        FailurePercentage = "failure_percentage",
        /// Too few of its breaker's window succeeded.
        WindowSuccessRate = "window_success_rate",
        /// The request that should have proved it failed too.
        ProbeFailed = "probe_failed",
    }
}

labels! {
    /// What a breaker did.
    BreakerEvent, "event" {
        /// It opened: the endpoint gets no requests.
        Opened = "opened",
        /// Its time is up: the next request is the probe.
        HalfOpened = "half_opened",
        /// A request became the probe.
        Probed = "probed",
        /// The caller gave the probe up; the next request is another one.
        GaveBack = "gave_back",
        /// The probe failed: open again, for longer.
        Reopened = "reopened",
        /// The probe succeeded: all requests follow.
        Closed = "closed",
    }
}

labels! {
    /// A limit that had no place left.
    ClusterLimit, "limit" {
        /// `limits.max_requests`: the request failed at once.
        MaxRequests = "max_requests",
        /// `limits.max_connections`: no further connection was opened, but for an endpoint's first.
        MaxConnections = "max_connections",
        /// `limits.max_handshakes`: a connection waited for its turn.
        MaxHandshakes = "max_handshakes",
        /// `pool.max_pending`: the request was not queued.
        MaxPending = "max_pending",
        /// `limits.max_retries`: the attempt was not repeated.
        MaxRetries = "max_retries",
    }
}

labels! {
    /// What one health check said.
    CheckResult, "result" {
        /// The endpoint is well.
        Healthy = "healthy",
        /// It is not.
        Unhealthy = "unhealthy",
        /// Nothing: it stays as it was.
        Inconclusive = "inconclusive",
    }
}

labels! {
    /// What a cluster's endpoints are counted by.
    EndpointState, "state" {
        /// Known to discovery.
        Known = "known",
        /// Ejected by the outlier detector, or by a breaker that is not closed.
        Ejected = "ejected",
        /// Held to be unreachable by its transport.
        Unready = "unready",
        /// Taken out by its health checks.
        Unhealthy = "unhealthy",
    }
}

labels! {
    /// What became of a word from discovery.
    DiscoveryEvent, "event" {
        /// A set was put in force.
        Applied = "applied",
        /// The source could not be read; the last good set stays.
        Stale = "stale",
        /// An empty set was held back; the last good set stays.
        EmptyHeld = "empty_held",
        /// Many endpoints vanished at once; those that the source still names are in force, and the others too.
        ShrinkHeld = "shrink_held",
        /// Endpoints that were held were let go: the source said for long enough that they are gone.
        Confirmed = "confirmed",
        /// The source had nothing to say at the start; the endpoints of the snapshot are in force.
        Snapshot = "snapshot",
        /// The snapshot is broken, too old or of something else, and is not used.
        SnapshotRefused = "snapshot_refused",
        /// A snapshot could not be written.
        SnapshotFailed = "snapshot_failed",
        /// The service is gone; the set is empty now.
        Gone = "gone",
    }
}

labels! {
    /// Why a connection could not be made.
    ConnectFailure, "reason" {
        /// TCP refused or unreachable.
        Tcp = "tcp",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The peer's identity is not one that the cluster may have.
        Identity = "identity",
        /// Not done within `connect_timeout`.
        Timeout = "timeout",
        /// The HTTP handshake failed.
        Http = "http",
    }
}

labels! {
    /// Why a connection was closed.
    CloseReason, "reason" {
        /// Nobody used it for `idle_timeout`.
        Idle = "idle",
        /// The peer closed it or sent GOAWAY.
        Peer = "peer",
        /// It broke.
        Error = "error",
        /// Its pings were not answered.
        PingTimeout = "ping_timeout",
        /// A certificate grew old; a successor took over.
        Identity = "identity",
        /// It reached `max_connection_age`; a successor took over.
        MaxAge = "max_age",
        /// Many of its streams were cancelled within a short time; a successor took over.
        Cancellations = "cancellations",
        /// No bundle vouches for the server any more.
        Distrusted = "distrusted",
        /// The server's certificate ended, or ours without a successor.
        CertificateExpired = "certificate_expired",
        /// Its endpoint left the set.
        EndpointRemoved = "endpoint_removed",
    }
}

/// What the client side counts, by cluster.
#[derive(Debug, Default)]
pub struct ClientMetrics {
    requests: Family<Labels, Counter>,
    request_duration: Family<Labels, LatencyHistogram>,
    attempts: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    budget_exhausted: Family<Labels, Counter>,
    ejections: Family<Labels, Counter>,
    ejections_withheld: Family<Labels, Counter>,
    breaker: Family<Labels, Counter>,
    limit_overflows: Family<Labels, Counter>,
    health_checks: Family<Labels, Counter>,
    endpoints: Family<Labels, Gauge>,
    panic_picks: Family<Labels, Counter>,
    balance: BalanceFamilies,
    discovery: Family<Labels, Counter>,
    held: Family<Labels, Gauge>,
    left_out: Family<Labels, Gauge>,
    snapshot_timestamp: Family<Labels, Gauge>,
    stale: Family<Labels, Gauge>,
    connections: Family<Labels, Gauge>,
    connections_opened: Family<Labels, Counter>,
    connections_failed: Family<Labels, Counter>,
    connections_closed: Family<Labels, Counter>,
}

impl ClientMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { balance: BalanceFamilies::register(registry), ..Self::default() };
        let mut counter = |name: &str, help: &str, family: &Family<Labels, Counter>| {
            registry.register(name, help, family.clone());
        };
        counter("requests", "Requests by how they ended, all attempts together", &metrics.requests);
        counter("attempts", "Attempts by how they ended", &metrics.attempts);
        counter("retries", "Attempts that were repeated", &metrics.retries);
        counter("retry_budget_exhausted", "Retries refused by the budget", &metrics.budget_exhausted);
        counter("endpoint_ejections", "Endpoints taken out for a while", &metrics.ejections);
        counter(
            "endpoint_ejections_withheld",
            "Ejections not made because too many endpoints are out, or fail as well",
            &metrics.ejections_withheld,
        );
        counter(
            "picks_in_panic",
            "Picks for which ejections did not count, because too few endpoints are available",
            &metrics.panic_picks,
        );
        counter("breaker_events", "What the breakers of endpoints did", &metrics.breaker);
        counter("limit_overflows", "What found no place within a limit", &metrics.limit_overflows);
        counter("health_checks", "Active health checks by what they said", &metrics.health_checks);
        counter("discovery_events", "What became of each word from discovery", &metrics.discovery);
        counter("connections_opened", "Connections made", &metrics.connections_opened);
        counter("connections_failed", "Connections that could not be made", &metrics.connections_failed);
        counter("connections_closed", "Connections closed", &metrics.connections_closed);
        let mut gauge = |name: &str, help: &str, family: &Family<Labels, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge("endpoints", "Endpoints by state; ejected and unready ones are also known", &metrics.endpoints);
        gauge(
            "discovery_stale",
            "1 while the last good set stands in for a source that is unreadable or not believed",
            &metrics.stale,
        );
        gauge(
            "discovery_held_endpoints",
            "Endpoints in force that discovery no longer names, until that is confirmed",
            &metrics.held,
        );
        gauge("discovery_left_out_endpoints", "Endpoints that discovery has beyond a bound", &metrics.left_out);
        gauge(
            "discovery_snapshot_timestamp_seconds",
            "When the snapshot of the last good endpoints was written, in seconds since 1970; 0: there is none",
            &metrics.snapshot_timestamp,
        );
        gauge("connections", "Connections open now", &metrics.connections);
        registry.register(
            "request_duration_seconds",
            "From the call to the response headers, all attempts together",
            metrics.request_duration.clone(),
        );
        metrics
    }

    /// The handles of one cluster. Keep them: finding them takes a lock.
    pub fn cluster(&self, cluster: &str) -> Arc<ClusterMetrics> {
        let own = || vec![("cluster", cluster.to_owned())];
        Arc::new(ClusterMetrics {
            requests: Counters::of(&self.requests, cluster),
            request_duration: self.request_duration.get_or_create_owned(&own()),
            attempts: Counters::of(&self.attempts, cluster),
            retries: Counters::of(&self.retries, cluster),
            budget_exhausted: self.budget_exhausted.get_or_create_owned(&own()),
            ejections: Counters::of(&self.ejections, cluster),
            ejections_withheld: Counters::of(&self.ejections_withheld, cluster),
            breaker: Counters::of(&self.breaker, cluster),
            limit_overflows: Counters::of(&self.limit_overflows, cluster),
            health_checks: Counters::of(&self.health_checks, cluster),
            endpoints: Gauges::of(&self.endpoints, cluster),
            panic_picks: self.panic_picks.get_or_create_owned(&own()),
            balance: self.balance.cluster(cluster),
            discovery: Counters::of(&self.discovery, cluster),
            held: self.held.get_or_create_owned(&own()),
            left_out: self.left_out.get_or_create_owned(&own()),
            snapshot_timestamp: self.snapshot_timestamp.get_or_create_owned(&own()),
            stale: self.stale.get_or_create_owned(&own()),
            connections: self.connections.get_or_create_owned(&own()),
            connections_opened: self.connections_opened.get_or_create_owned(&own()),
            connections_failed: Counters::of(&self.connections_failed, cluster),
            connections_closed: Counters::of(&self.connections_closed, cluster),
        })
    }
}

/// What one cluster's clients count; handles that need no lookup.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Requests by how they ended, all attempts together.
    pub requests: Counters<RequestOutcome>,
    /// From the call to the response headers, all attempts together.
    pub request_duration: LatencyHistogram,
    /// Attempts by how they ended; counted by [`Pick`](crate::cluster::Pick).
    pub attempts: Counters<AttemptOutcome>,
    /// Attempts that were repeated.
    pub retries: Counters<RetryReason>,
    /// Retries refused by the budget.
    pub budget_exhausted: Counter,
    /// Endpoints taken out; counted by [`Cluster`](crate::cluster::Cluster).
    pub ejections: Counters<EjectReason>,
    /// Ejections not made because too many endpoints are out, or most fail; counted by the cluster.
    pub ejections_withheld: Counters<EjectReason>,
    /// What the breakers of endpoints did; counted by the cluster.
    pub breaker: Counters<BreakerEvent>,
    /// What found no place within a limit.
    pub limit_overflows: Counters<ClusterLimit>,
    /// Active health checks by what they said; counted by the cluster.
    pub health_checks: Counters<CheckResult>,
    /// Endpoints by state; kept by the cluster.
    pub endpoints: Gauges<EndpointState>,
    /// Picks for which ejections did not count, because too few endpoints are available; counted by the cluster.
    pub panic_picks: Counter,
    /// What balancing decided; kept by the cluster.
    pub balance: BalanceMetrics,
    /// What became of each word from discovery; counted by the cluster.
    pub discovery: Counters<DiscoveryEvent>,
    /// Endpoints in force that the source no longer names; kept by the cluster.
    pub held: Gauge,
    /// Endpoints that the source has beyond a bound; kept by the cluster.
    pub left_out: Gauge,
    /// When the snapshot in use or written last was written, in seconds since 1970; kept by the cluster.
    pub snapshot_timestamp: Gauge,
    /// 1 while the last good set, or a part of it, stands in for a source that cannot be read or is not believed; kept by
    /// the cluster.
    pub stale: Gauge,
    /// Connections open now.
    pub connections: Gauge,
    /// Connections made.
    pub connections_opened: Counter,
    /// Connections that could not be made.
    pub connections_failed: Counters<ConnectFailure>,
    /// Connections closed.
    pub connections_closed: Counters<CloseReason>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn every_series_stands_at_zero_from_the_start() {
        let metrics = Metrics::default();
        let payments = metrics.client.cluster("payments");
        payments.retries.inc(RetryReason::Timeout);
        let text = metrics.encode();
        for line in [
            "mesh_client_requests_total{cluster=\"payments\",outcome=\"no_endpoints\"} 0",
            "mesh_client_retries_total{cluster=\"payments\",reason=\"timeout\"} 1",
            "mesh_client_endpoints{cluster=\"payments\",state=\"ejected\"} 0",
            "mesh_client_request_duration_seconds_count{cluster=\"payments\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert_eq!(metrics.client.cluster("payments").retries.count(RetryReason::Timeout), 1);
    }
}
