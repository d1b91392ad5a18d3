//! The roots of trust, kept apart by trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TrustDomain;

/// The certificate authorities of one trust domain, as DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    domain: TrustDomain,
    authorities: Vec<Arc<[u8]>>,
}

impl TrustBundle {
    /// A bundle without authorities vouches for nobody.
    pub fn new(domain: TrustDomain, authorities: Vec<Arc<[u8]>>) -> Self {
        Self { domain, authorities }
    }

    /// Whose authorities these are.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The authorities' certificates, as DER.
    pub fn authorities(&self) -> &[Arc<[u8]>] {
        &self.authorities
    }
}

/// Bundles by trust domain; never pooled. (SPIFFE Federation 4.2)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustBundleSet {
    bundles: BTreeMap<String, TrustBundle>,
}

impl TrustBundleSet {
    /// A set of one.
    pub fn of(bundle: TrustBundle) -> Self {
        let mut set = Self::default();
        set.insert(bundle);
        set
    }

    /// Adds a bundle, or replaces that of the same domain.
    pub fn insert(&mut self, bundle: TrustBundle) {
        self.bundles.insert(bundle.domain.as_str().to_owned(), bundle);
    }

    /// The bundle that judges SVIDs of this trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<&TrustBundle> {
        self.bundles.get(trust_domain)
    }

    /// Every bundle, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.bundles.values()
    }
}
