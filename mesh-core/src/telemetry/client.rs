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
        /// Too many requests wait for a connection.
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
    }
}

labels! {
    /// What a cluster's endpoints are counted by.
    EndpointState, "state" {
        /// Known to discovery.
        Known = "known",
        /// Ejected by the outlier detector.
        Ejected = "ejected",
        /// Held to be unreachable by its transport.
        Unready = "unready",
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
    endpoints: Family<Labels, Gauge>,
    panic_picks: Family<Labels, Counter>,
    balance: BalanceFamilies,
    discovery: Family<Labels, Counter>,
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
            "Ejections not made because too many endpoints are out already",
            &metrics.ejections_withheld,
        );
        counter(
            "picks_in_panic",
            "Picks for which ejections did not count, because too few endpoints are available",
            &metrics.panic_picks,
        );
        counter("discovery_events", "What became of each word from discovery", &metrics.discovery);
        counter("connections_opened", "Connections made", &metrics.connections_opened);
        counter("connections_failed", "Connections that could not be made", &metrics.connections_failed);
        counter("connections_closed", "Connections closed", &metrics.connections_closed);
        let mut gauge = |name: &str, help: &str, family: &Family<Labels, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge("endpoints", "Endpoints by state; ejected and unready ones are also known", &metrics.endpoints);
        gauge("discovery_stale", "1 while the last good set stands in for an unreadable source", &metrics.stale);
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
            endpoints: Gauges::of(&self.endpoints, cluster),
            panic_picks: self.panic_picks.get_or_create_owned(&own()),
            balance: self.balance.cluster(cluster),
            discovery: Counters::of(&self.discovery, cluster),
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
    /// Ejections not made because too many endpoints are out; counted by the cluster.
    pub ejections_withheld: Counters<EjectReason>,
    /// Endpoints by state; kept by the cluster.
    pub endpoints: Gauges<EndpointState>,
    /// Picks for which ejections did not count, because too few endpoints are available; counted by the cluster.
    pub panic_picks: Counter,
    /// What balancing decided; kept by the cluster.
    pub balance: BalanceMetrics,
    /// What became of each word from discovery; counted by the cluster.
    pub discovery: Counters<DiscoveryEvent>,
    /// 1 while the last good set stands in for a source that cannot be read; kept by the cluster.
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
