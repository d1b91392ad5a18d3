//! What a request has tried already.

use crate::discover::EndpointKey;

/// Endpoints that earlier attempts of the same request were sent to.
#[derive(Debug, Clone, Default)]
pub struct Tried(Vec<EndpointKey>);

impl Tried {
    /// Remembers an endpoint.
    pub fn insert(&mut self, key: EndpointKey) {
        self.0.push(key);
    }

    /// Whether an earlier attempt went there.
    pub fn contains(&self, key: &EndpointKey) -> bool {
        self.0.contains(key)
    }

    /// Whether there was no earlier attempt.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
