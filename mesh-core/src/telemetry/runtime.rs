//! Metrics of the runtime side.

use prometheus_client::registry::Registry;

/// What the runtime side counts.
#[derive(Debug, Default)]
pub struct RuntimeMetrics {}

impl RuntimeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let _ = registry;
        Self {}
    }
}
