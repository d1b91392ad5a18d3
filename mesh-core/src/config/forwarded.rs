//! `forwarded_identity:` - gateways whose word about their clients is taken.

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::{Decode, Node};
use crate::identity::SpiffeId;

/// Whom a listener lets speak for somebody else, by `x-forwarded-client-cert`. (Envoy)
///
/// From any other peer, and over plaintext, that header is removed unread. A request of a gateway that comes without
/// it is the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardedConfig {
    /// The SPIFFE IDs of the gateways. Never empty. Each must *set* the header, not pass on what its client sent
    /// (Envoy: `forward_client_cert_details: SANITIZE_SET` or `APPEND_FORWARD`, with `uri: true`).
    pub gateways: Vec<SpiffeId>,
}

impl ForwardedConfig {
    /// Takes the word of these gateways.
    pub fn new(gateways: Vec<SpiffeId>) -> Self {
        Self { gateways }
    }

    pub(super) fn check(&self, at: &mut Checker<'_>) {
        if self.gateways.is_empty() && !at.has_gaps("gateways", 0) {
            at.error("gateways", "at least one SPIFFE ID is required; leave `forwarded_identity` out to trust nobody");
        }
        for (index, id) in self.gateways.iter().enumerate().filter(|(_, id)| id.path().is_empty()) {
            at.error(&format!("gateways[{index}]"), format!("{id} names a trust domain, not a gateway: add its path"));
        }
    }
}

impl ForwardedConfig {
    /// How many gateways are named before the rest is only counted.
    const NAMED: usize = 16;

    /// Says whose word is taken.
    pub(super) fn warn(&self, at: &mut Checker<'_>) {
        let mut names = self.gateways.iter().take(Self::NAMED).map(SpiffeId::as_str).collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = self.gateways.len().checked_sub(Self::NAMED) {
            names.push_str(&format!(" and {more} more"));
        }
        at.error("gateways", format!("identity from x-forwarded-client-cert is believed from {names}"));
    }
}

impl Decode for ForwardedConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let gateways = fields.required("gateways");
        fields.finish();
        Some(Self { gateways: gateways? })
    }
}
