//! Every span, metric and attribute name of the mesh, in one place.
//!
//! Metrics live in a registry of their own for each mesh: no globals, two meshes fit one process.

pub mod attributes;
mod balance;
mod client;
mod histogram;
mod labels;
mod runtime;
mod series;
mod server;
mod transport;

pub use balance::{BalanceMetrics, Distance, PickRefusal, PriorityLabel};
pub use client::{
    AttemptOutcome, BreakerEvent, CheckResult, ClientMetrics, CloseReason, ClusterLimit, ClusterMetrics,
    ConnectFailure, DiscoveryEvent, EjectReason, EndpointState, RequestOutcome, RetryReason,
};
pub use histogram::LatencyHistogram;
pub use labels::{Counters, Gauges, Label};
pub use runtime::{IdentityRefresh, KeyLookup, RuntimeMetrics, UpdateResult};
pub use series::Series;
pub use server::{CustomLabels, DenialLabels, RejectLabels, RequestLabels, ServerMetrics};
pub use transport::{OpenConnection, TransportMetrics};

use prometheus_client::registry::Registry;

/// All metrics of one mesh.
#[derive(Debug)]
pub struct Metrics {
    /// What the server stack counts.
    pub server: ServerMetrics,
    /// What the accept loop counts.
    pub transport: TransportMetrics,
    /// What the client stack counts.
    pub client: ClientMetrics,
    /// What identity, configuration and audit count.
    pub runtime: RuntimeMetrics,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mesh");
        Self {
            server: ServerMetrics::register(registry.sub_registry_with_prefix("server")),
            transport: TransportMetrics::register(registry.sub_registry_with_prefix("server")),
            client: ClientMetrics::register(registry.sub_registry_with_prefix("client")),
            runtime: RuntimeMetrics::register(&mut registry),
            registry,
        }
    }
}

impl Metrics {
    /// The OpenMetrics text of `/metrics`.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
