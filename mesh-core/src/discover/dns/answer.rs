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

    /// So many addresses of one target: who owns a zone must not choose how much is kept of it.
    pub(super) fn target(&self, addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let all: BTreeSet<_> = addresses.into_iter().collect();
        if all.len() <= self.max {
            return all;
        }
        let mut drawn: Vec<_> = all.into_iter().map(|ip| (self.seed.hash_one(ip), ip)).collect();
        drawn.sort_unstable();
        drawn.into_iter().take(self.max).map(|(_, ip)| ip).collect()
    }

    /// Endpoints of services whose targets have these addresses; a target without any gives none.
    ///
    /// Two answers of a few kilobytes can name a million pairs of address and port: never more than `max` are held.
    pub(super) fn resolved(&self, services: &[Service], targets: &BTreeMap<String, BTreeSet<IpAddr>>) -> EndpointSet {
        let mut sorted: Vec<_> = services.iter().collect();
        sorted.sort();
        let ranks: BTreeSet<_> = sorted.iter().map(|service| service.priority).collect();
        let ranks: BTreeMap<_, _> = ranks.into_iter().zip(0_u32..).collect();
        // By priority and lot, and each address once: of records with one address the first priority counts, and their
        // weights together. Whoever is drawn out stays out, because the last place only moves forward.
        let mut kept: BTreeMap<(u32, u64, SocketAddr), u32> = BTreeMap::new();
        let mut priorities: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        let mut left_out = 0_usize;
        for service in sorted {
            // What a configuration may write is 0 to 15; beyond that nobody is used before all others are out either.
            let rank = ranks.get(&service.priority).map_or(15, |rank| (*rank).min(15));
            for ip in targets.get(&service.target).into_iter().flatten() {
                let address = SocketAddr::new(*ip, service.port);
                let place = (rank, self.seed.hash_one(address), address);
                let full = kept.len() >= self.max;
                if full && kept.last_key_value().is_some_and(|(last, _)| *last < place) {
                    left_out += usize::from(!priorities.contains_key(&address));
                    continue;
                }
                match priorities.get(&address) {
                    Some(first) if *first < rank => continue,
                    Some(_) => {}
                    None => {
                        if full && let Some(((_, _, out), _)) = kept.pop_last() {
                            priorities.remove(&out);
                            left_out += 1;
                        }
                        priorities.insert(address, rank);
                    }
                }
                let weight = kept.entry(place).or_default();
                *weight = weight.saturating_add(service.weight.into());
            }
        }
        let endpoint = |((priority, _, address), weight): ((u32, u64, SocketAddr), u32)| Endpoint {
            priority,
            weight: weight.clamp(1, 65_535),
            ..Endpoint::new(address)
        };
        let set = self.set(kept.into_iter().map(endpoint).collect());
        let dropped = set.dropped + left_out;
        set.dropped(dropped)
    }

    fn set(&self, endpoints: Vec<Endpoint>) -> EndpointSet {
        let (mut kept, dropped) =
            self.apply(endpoints, |endpoint| endpoint.priority, |endpoint| endpoint.key.to_string());
        kept.sort_by(|a, b| a.key.cmp(&b.key));
        EndpointSet::from(kept).dropped(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// What the cross product says, built whole.
    fn naive(services: &[Service], targets: &BTreeMap<String, BTreeSet<IpAddr>>) -> BTreeMap<SocketAddr, (u16, u32)> {
        let mut all: BTreeMap<SocketAddr, (u16, u32)> = BTreeMap::new();
        for service in services {
            for ip in &targets[&service.target] {
                let found = all.entry(SocketAddr::new(*ip, service.port)).or_insert((service.priority, 0));
                match service.priority.cmp(&found.0) {
                    std::cmp::Ordering::Less => *found = (service.priority, service.weight.into()),
                    std::cmp::Ordering::Equal => found.1 += u32::from(service.weight),
                    std::cmp::Ordering::Greater => {}
                }
            }
        }
        all
    }

    fn answer(seed: u64) -> (Vec<Service>, BTreeMap<String, BTreeSet<IpAddr>>) {
        let rng = crate::rng::Rng::seeded(seed);
        let below = |n: u64| rng.next_u64() % n;
        let name = |n: u64| format!("t{n}");
        let ip = |n: u64| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n as u32));
        let targets = (0..5).map(|n| (name(n), (0..below(6)).map(|_| ip(below(9))).collect())).collect();
        let service = |_| Service {
            priority: below(3) as u16,
            weight: 1 + below(9) as u16,
            port: 1 + below(2) as u16,
            target: name(below(5)),
        };
        ((0..below(12)).map(service).collect(), targets)
    }

    #[test]
    fn what_is_kept_is_what_the_whole_product_would_keep() {
        for seed in 0..2_000 {
            let (services, targets) = answer(seed);
            let all = naive(&services, &targets);
            for max in [1, 4, 1_000] {
                let bound = Bound { max, seed: FixedState::with_seed(seed) };
                let set = bound.resolved(&services, &targets);
                assert_eq!(set.endpoints.len(), all.len().min(max), "seed {seed}, at most {max}");
                assert!(set.dropped >= all.len() - set.endpoints.len(), "seed {seed}, at most {max}");
                for endpoint in &set.endpoints {
                    let (_, weight) = all[&endpoint.address];
                    assert_eq!(endpoint.weight, weight, "seed {seed}, at most {max}: {endpoint:?}");
                }
                let worst = set.endpoints.iter().map(|endpoint| all[&endpoint.address].0).max();
                let left = all.iter().filter(|(address, _)| set.endpoints.iter().all(|e| e.address != **address));
                let best_left = left.map(|(_, (priority, _))| *priority).min();
                assert!(best_left.is_none_or(|left| worst.is_some_and(|worst| worst <= left)), "seed {seed}, {max}");
            }
        }
    }

    /// 4,000,000 pairs from two answers: a product that is built before it is bounded takes gigabytes.
    #[test]
    fn a_hostile_product_is_bounded_before_it_is_built() {
        let bound = Bound { max: 10, seed: FixedState::with_seed(1) };
        let ips = (0..2_000_u32).map(|n| IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n)));
        let targets = BTreeMap::from([("a".to_owned(), bound.target(ips))]);
        assert_eq!(targets["a"].len(), 10);
        let service = |port| Service { priority: 0, weight: 1, port, target: "a".to_owned() };
        let set = bound.resolved(&(1..=2_000).map(service).collect::<Vec<_>>(), &targets);
        assert_eq!((set.endpoints.len(), set.dropped), (10, 19_990));
    }
}
