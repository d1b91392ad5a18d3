//! One address of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Locality;

/// What stays the same when a set is replaced; state is kept by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey(pub Arc<str>);

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
    /// 0 is used first.
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
