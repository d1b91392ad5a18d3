//! `audit:` and `telemetry:` - where records and spans go.

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};

/// Where audit records go. Default: the `log` sink.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct TelemetryConfig {
    /// `{ otlp: { endpoint: "http://127.0.0.1:4318" } }`; needs a registered exporter.
    pub exporter: Option<PlugConfig>,
}

impl Decode for AuditConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let audit = Self { sink: fields.optional("sink"), queue: fields.or("queue", default.queue) };
        fields.finish();
        Some(audit)
    }
}

impl AuditConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("queue", self.queue, 16..=1_000_000);
    }
}

impl Decode for TelemetryConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let telemetry = Self { exporter: fields.optional("exporter") };
        fields.finish();
        Some(telemetry)
    }
}
