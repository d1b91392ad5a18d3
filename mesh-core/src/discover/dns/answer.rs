//! From records to endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

use crate::discover::{Endpoint, EndpointSet};
use foldhash::fast::FixedState;

/// One SRV record. (RFC 2782)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// Chooses among too many, the same ones each time.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) max: usize,
    pub(super) seed: FixedState,
}

impl Bound {
    /// What `max` allows, and how many were left out. Lower ranks go first, equals by lot.
    fn apply<T>(&self, mut all: Vec<T>, rank: impl Fn(&T) -> u32, name: impl Fn(&T) -> String) -> (Vec<T>, usize) {
        let dropped = all.len().saturating_sub(self.max);
        if dropped > 0 {
            all.sort_by_cached_key(|item| (rank(item), self.seed.hash_one(name(item))));
            all.truncate(self.max);
        }
        (all, dropped)
    }

    /// The services of at most so many targets; the second is how many records were left out.
    pub(super) fn services(&self, services: Vec<Service>) -> (Vec<Service>, usize) {
        self.apply(
            services,
            |service| service.priority.into(),
            |service| format!("{}:{}", service.target, service.port),
        )
    }

    /// Endpoints of one port.
    pub(super) fn addresses(&self, addresses: &BTreeSet<IpAddr>, port: u16) -> EndpointSet {
        self.set(addresses.iter().map(|ip| Endpoint::new(SocketAddr::new(*ip, port))).collect())
    }

    /// Endpoints of services whose targets have these addresses; a target without any gives none.
    pub(super) fn resolved(&self, services: &[Service], targets: &BTreeMap<String, BTreeSet<IpAddr>>) -> EndpointSet {
        let mut sorted: Vec<_> = services.iter().collect();
        sorted.sort();
        let ranks: BTreeSet<_> = sorted.iter().map(|service| service.priority).collect();
        let ranks: BTreeMap<_, _> = ranks.into_iter().zip(0_u32..).collect();
        let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        for service in sorted {
            // What a configuration may write is 0 to 15; beyond that nobody is used before all others are out either.
            let priority = ranks.get(&service.priority).map_or(15, |rank| (*rank).min(15));
            for ip in targets.get(&service.target).into_iter().flatten() {
                let address = SocketAddr::new(*ip, service.port);
                // Of records with one address the first priority counts, and their weights together.
                let endpoint = endpoints.entry(address).or_insert_with(|| Endpoint {
                    priority,
                    weight: 0,
                    ..Endpoint::new(address)
                });
                if endpoint.priority == priority {
                    endpoint.weight = endpoint.weight.saturating_add(service.weight.into());
                }
            }
        }
        let weighted = |endpoint: Endpoint| Endpoint { weight: endpoint.weight.clamp(1, 65_535), ..endpoint };
        self.set(endpoints.into_values().map(weighted).collect())
    }

    fn set(&self, endpoints: Vec<Endpoint>) -> EndpointSet {
        let (mut kept, dropped) =
            self.apply(endpoints, |endpoint| endpoint.priority, |endpoint| endpoint.key.to_string());
        kept.sort_by(|a, b| a.key.cmp(&b.key));
        EndpointSet::from(kept).dropped(dropped)
    }
}
