//! Metrics of the server side.

use prometheus_client::registry::Registry;

/// What the server side counts.
#[derive(Debug, Default)]
pub struct ServerMetrics {}

impl ServerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let _ = registry;
        Self {}
    }
}
