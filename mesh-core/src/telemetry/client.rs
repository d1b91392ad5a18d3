//! Metrics of the client side.

use prometheus_client::registry::Registry;

/// What the client side counts.
#[derive(Debug, Default)]
pub struct ClientMetrics {}

impl ClientMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let _ = registry;
        Self {}
    }
}
