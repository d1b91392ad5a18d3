//! A whole set of endpoints, as its source has it.

use std::collections::BTreeSet;

use super::{Endpoint, EndpointKey};

/// All endpoints of a service, and what their source says of those that are missing.
///
/// Made from a plain list by `.into()`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct EndpointSet {
    /// Everybody who is there. Of two with one key the first counts.
    pub endpoints: Vec<Endpoint>,
    /// Tombstones: keys that are gone for good, so that their absence needs no confirmation.
    pub removed: BTreeSet<EndpointKey>,
    /// The source has reason to think that this is only a part of the set: whatever is missing waits to be confirmed.
    pub partial: bool,
    /// How many more the source names, beyond a bound of the resolver or without a port.
    pub dropped: usize,
}

impl EndpointSet {
    /// Adds tombstones.
    #[must_use]
    pub fn removed(mut self, keys: impl IntoIterator<Item = EndpointKey>) -> Self {
        self.removed.extend(keys);
        self
    }

    /// Says whether more may be missing than is gone.
    #[must_use]
    pub fn partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// Says how many were left out.
    #[must_use]
    pub fn dropped(mut self, dropped: usize) -> Self {
        self.dropped = dropped;
        self
    }
}

impl From<Vec<Endpoint>> for EndpointSet {
    fn from(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, ..Self::default() }
    }
}

impl FromIterator<Endpoint> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        Vec::from_iter(endpoints).into()
    }
}
