//! One address of a service.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Decode, Errors, Fields, Locality, Node};

/// What stays the same when a set is replaced; state is kept by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey(pub Arc<str>);

impl serde::Serialize for EndpointKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One address of a service, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Unique within its set; the default is the address.
    pub key: EndpointKey,
    /// Where to connect.
    pub address: SocketAddr,
    /// Where it runs.
    pub locality: Locality,
    /// 0 is used first; a later one as far as too few of the earlier ones are available.
    pub priority: u32,
    /// Its share relative to others; at least 1.
    pub weight: u32,
    /// Whatever else the source says.
    pub metadata: BTreeMap<String, String>,
}

impl Endpoint {
    /// An endpoint keyed by its address, of priority 0 and weight 1.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            key: EndpointKey(address.to_string().into()),
            address,
            locality: Locality::default(),
            priority: 0,
            weight: 1,
            metadata: BTreeMap::new(),
        }
    }
}

impl Decode for Endpoint {
    /// `IP:PORT`, or a mapping of which only `address` is required.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let endpoint = if node.as_str().is_some() {
            Self::new(SocketAddr::decode(node, errors)?)
        } else {
            let mut fields = Fields::of(node, errors)?;
            let address = fields.required("address");
            let key = fields.optional::<String>("key");
            let endpoint = address.map(|address| {
                let default = Self::new(address);
                Self {
                    key: key.map_or(default.key.clone(), |key| EndpointKey(key.into())),
                    locality: fields.optional("locality").unwrap_or_default(),
                    priority: fields.within("priority", 0, 0..=15),
                    weight: fields.within("weight", 1, 1..=65_535),
                    metadata: fields.optional("metadata").unwrap_or_default(),
                    ..default
                }
            });
            if address.is_some() {
                fields.finish();
            }
            endpoint?
        };
        if endpoint.address.port() == 0 {
            errors.push(&node.place, format!("{} has port 0, where nobody can be reached", endpoint.address));
        }
        if endpoint.key.0.is_empty() {
            errors.push(&node.place, "the key cannot be empty; leave it out to use the address");
        }
        Some(endpoint)
    }
}

/// A list of endpoints with distinct keys.
pub(super) fn decode_all(node: &Node, errors: &mut Errors) -> Option<Vec<Endpoint>> {
    let mut keys = HashSet::new();
    let mut endpoints = Vec::new();
    for item in node.list(errors)? {
        let Some(endpoint) = Endpoint::decode(item, errors) else { continue };
        if keys.insert(endpoint.key.clone()) {
            endpoints.push(endpoint);
        } else {
            errors.push(&item.place, format!("another endpoint has the key `{}` already", endpoint.key));
        }
    }
    Some(endpoints)
}

/// How many problems were noted so far.
pub(super) fn issues(errors: &Errors) -> usize {
    errors.issues().len()
}
