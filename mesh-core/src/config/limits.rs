//! `limits:` - what the server stack admits.

use super::Node;
use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;

/// Limits that hold for all requests of this process together, and for each caller.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Requests at once in this process; further ones are shed with 503 / UNAVAILABLE, reason `overloaded` in log,
    /// audit and `mesh_server_rejected_total`. Default 1,024, range 1 to 1,000,000.
    pub max_concurrent_requests: usize,
    /// Requests at once of one peer, all of its connections to one listener together; further ones are shed the same way,
    /// reason `peer_overloaded`. A gateway is one peer, for all its clients. Default half of `max_concurrent_requests`,
    /// range 1 to 1,000,000.
    pub max_concurrent_requests_per_peer: Option<usize>,
    /// Requests of each principal over time; absent: unlimited.
    pub rate: Option<RateLimitConfig>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_concurrent_requests: 1024, max_concurrent_requests_per_peer: None, rate: None }
    }
}

impl LimitsConfig {
    /// [`max_concurrent_requests_per_peer`](Self::max_concurrent_requests_per_peer), or its default.
    pub fn requests_per_peer(&self) -> usize {
        self.max_concurrent_requests_per_peer.unwrap_or(self.max_concurrent_requests.div_ceil(2))
    }
}

/// A token bucket for each authenticated principal.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// Sustained requests a second. Range 0.001 to 1,000,000.
    pub per_second: f64,
    /// Requests that may come at once. Default: `per_second`, at least 1. Range 1 to 1,000,000.
    pub burst: u32,
    /// Principals remembered; the least recently seen is forgotten first. Default 10,000, range 1 to 1,000,000. Each
    /// costs about 200 bytes.
    pub max_principals: usize,
}

impl RateLimitConfig {
    const MAX_PRINCIPALS: usize = 10_000;

    /// A sustained rate with every default.
    pub fn per_second(per_second: f64) -> Self {
        // The cast saturates; a rate out of range is refused by its own check.
        Self { per_second, burst: (per_second as u32).max(1), max_principals: Self::MAX_PRINCIPALS }
    }
}

impl Decode for LimitsConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let limits = Self {
            max_concurrent_requests: fields.or("max_concurrent_requests", default.max_concurrent_requests),
            max_concurrent_requests_per_peer: fields.optional("max_concurrent_requests_per_peer"),
            rate: fields.optional("rate"),
        };
        fields.finish();
        Some(limits)
    }
}

impl LimitsConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("max_concurrent_requests", self.max_concurrent_requests, 1..=1_000_000);
        if let Some(limit) = self.max_concurrent_requests_per_peer {
            at.range("max_concurrent_requests_per_peer", limit, 1..=1_000_000);
        }
        if let Some(rate) = &self.rate {
            at.below("rate", |at| {
                at.range("per_second", rate.per_second, 0.001..=1_000_000.0);
                at.range("burst", rate.burst, 1..=1_000_000);
                at.range("max_principals", rate.max_principals, 1..=1_000_000);
            });
        }
    }
}

impl Decode for RateLimitConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let per_second = fields.required("per_second");
        let (burst, max_principals) = (fields.optional("burst"), fields.optional("max_principals"));
        fields.finish();
        let default = Self::per_second(per_second?);
        Some(Self {
            burst: burst.unwrap_or(default.burst),
            max_principals: max_principals.unwrap_or(default.max_principals),
            ..default
        })
    }
}
