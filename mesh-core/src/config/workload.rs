//! `workload:` - who this process is, to policies and to its peers.

use std::collections::BTreeMap;

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;
use super::yaml::Node;
use crate::identity::{SpiffeId, TrustDomain};

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

impl Decode for Workload {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (name, namespace) = (fields.required::<String>("name"), fields.required::<String>("namespace"));
        let service_account = fields.optional("service_account");
        let (labels, locality) = (fields.optional("labels"), fields.optional("locality"));
        fields.finish();
        let default = Self::new(name?, namespace?);
        Some(Self {
            service_account: service_account.unwrap_or(default.service_account),
            labels: labels.unwrap_or_default(),
            locality: locality.unwrap_or_default(),
            ..default
        })
    }
}

impl Workload {
    pub(super) fn check(&self, domain: &TrustDomain, at: &mut Checker<'_>) {
        if self.name.is_empty() {
            at.error("name", "the name cannot be empty");
        }
        if SpiffeId::for_workload(domain, &self.namespace, "a").is_err() {
            at.error("namespace", format!("{:?} cannot be part of a SPIFFE ID: [a-zA-Z0-9._-]+", self.namespace));
        }
        if SpiffeId::for_workload(domain, "a", &self.service_account).is_err() {
            let account = &self.service_account;
            at.error("service_account", format!("{account:?} cannot be part of a SPIFFE ID: [a-zA-Z0-9._-]+"));
        }
    }
}

impl Decode for Locality {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let locality = Self { region: fields.or("region", String::new()), zone: fields.or("zone", String::new()) };
        fields.finish();
        Some(locality)
    }
}
