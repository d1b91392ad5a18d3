//! `workload:` - who this process is, to policies and to its peers.

use std::collections::BTreeMap;

/// The name, place and labels that policies select by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The workload's name, for example `orders`.
    pub name: String,
    /// Its namespace, for example `shop`.
    pub namespace: String,
    /// Its service account; the default is its name. With the trust domain it makes the SPIFFE ID
    /// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub service_account: String,
    /// Labels that a policy's `selector.matchLabels` is held against.
    pub labels: BTreeMap<String, String>,
    /// Where it runs.
    pub locality: Locality,
}

impl Workload {
    /// A workload whose service account has its name, without labels or locality.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            service_account: name.clone(),
            name,
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            locality: Locality::default(),
        }
    }
}

/// Region and zone; empty where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    /// For example `eu-west`.
    pub region: String,
    /// For example `a`.
    pub zone: String,
}
