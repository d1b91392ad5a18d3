//! What happened to the process itself: keys, policy, the trail.

use std::time::SystemTime;

use serde_json::{Map, Value};

/// A record that is not of a request.
///
/// Never secrets: its fields are for whoever reads the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// When it happened.
    pub time: SystemTime,
    /// What happened, for example `policy.load`.
    pub kind: &'static str,
    fields: Map<String, Value>,
}

/// The most of a text that a field keeps.
const MAX_TEXT: usize = 512;

impl AuditEvent {
    /// Our own certificate was replaced: `serial`, `not_after`.
    pub const SVID_ROTATE: &str = "svid.rotate";
    /// Configuration and policy were put in force: `generation`, `policies`.
    pub const POLICY_LOAD: &str = "policy.load";
    /// A change of them was refused, and the last good ones stay: `problems`, `first`.
    pub const POLICY_REJECT: &str = "policy.reject";
    /// How a request ended whose record was written before its handler ran: `request`, `status`, `grpc_status`.
    pub const REQUEST_END: &str = "request.end";

    /// An event without fields yet.
    pub fn new(time: SystemTime, kind: &'static str) -> Self {
        Self { time, kind, fields: Map::new() }
    }

    /// Adds a text, of which 512 bytes are kept.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.fields.insert(name.to_owned(), super::canonical::prefix(text, MAX_TEXT).into());
        self
    }

    /// Adds a whole number.
    #[must_use]
    pub fn number(mut self, name: &str, number: u64) -> Self {
        self.fields.insert(name.to_owned(), number.into());
        self
    }

    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.fields
    }
}
