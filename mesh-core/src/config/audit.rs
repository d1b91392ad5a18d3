//! `audit:` and `telemetry:` - where records and spans go.

use super::PlugConfig;

/// Where audit records go. Default: the `log` sink.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditConfig {
    /// `{ log: {} }`, `{ stdout: {} }`, `{ file: { path: audit.jsonl } }`, or a registered kind.
    pub sink: Option<PlugConfig>,
    /// Records that may wait for the sink; beyond it they are dropped and counted. Default 4,096, range 16 to
    /// 1,000,000.
    pub queue: usize,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { sink: None, queue: 4096 }
    }
}

/// Where spans go. Default: nowhere but the process's own `tracing` subscriber.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TelemetryConfig {
    /// `{ otlp: { endpoint: "http://127.0.0.1:4318" } }`; needs a registered exporter.
    pub exporter: Option<PlugConfig>,
}
