//! The endpoints of a set, in the order in which they are picked from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EndpointState;
use super::balancing::Balancing;
use super::endpoint::Live;
use super::group::{Group, Slot};
use crate::balance::Policy;
use crate::config::LocalityConfig;
use crate::discover::Endpoint;
use crate::rng::Rng;
use crate::telemetry::Distance;

/// Who is there, and by what they are picked: everything that lives on when one of them goes in or out.
pub(super) struct Members<T> {
    /// In the order of the keys.
    pub(super) states: Arc<Vec<Arc<EndpointState<T>>>>,
    /// In the order of tiers and their parts, so that each of those is a run of slots.
    pub(super) slots: Vec<Slot<T>>,
    /// The distinct priorities, first to last.
    pub(super) tiers: Vec<Tier>,
    /// Those whom `residency` shuts out: known, and nothing more.
    pub(super) outside: Vec<Endpoint>,
}

/// One priority.
pub(super) struct Tier {
    pub(super) priority: u32,
    pub(super) whole: Group,
    /// Its localities or rings, nearest first; none where no difference is made.
    pub(super) parts: Vec<Part>,
}

/// The endpoints of a tier that are in one locality, or as near as each other.
pub(super) struct Part {
    pub(super) group: Group,
    pub(super) distance: Distance,
    /// The locality's weight.
    pub(super) weight: u32,
    callers: u64,
}

impl Part {
    /// How many callers there are in its zone.
    pub(super) fn callers(&self) -> u64 {
        self.callers
    }
}

/// Where an endpoint stands in the order of slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: u32,
    distance: u8,
    /// Empty where localities do not count, or only by distance.
    place: (String, String),
}

/// The endpoints of one rank.
type Ranked<'a, T> = (Rank, Vec<&'a Arc<EndpointState<T>>>);

impl<T> Members<T> {
    pub(super) fn new(
        mut states: Vec<Arc<EndpointState<T>>>,
        outside: Vec<Endpoint>,
        balancing: &Balancing,
        rng: &Rng,
    ) -> Self {
        // Collected in the place of the endpoints, which are sixteen times as large.
        states.shrink_to_fit();
        let mut by_rank: BTreeMap<Rank, Vec<&Arc<EndpointState<T>>>> = BTreeMap::new();
        for state in &states {
            by_rank.entry(rank(&state.endpoint, balancing)).or_default().push(state);
        }
        let mut by_priority: BTreeMap<u32, Vec<Ranked<'_, T>>> = BTreeMap::new();
        for (rank, states) in by_rank {
            by_priority.entry(rank.priority).or_default().push((rank, states));
        }
        let (mut slots, mut tiers) = (Vec::with_capacity(states.len()), Vec::new());
        for (priority, parts) in by_priority {
            tiers.push(Tier::new(priority, &parts, balancing, rng, &mut slots));
        }
        Self { states: Arc::new(states), slots, tiers, outside }
    }

    /// All that discovery said, in the order of the keys.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let inside = self.states.iter().map(|state| state.endpoint.clone());
        let mut all: Vec<Endpoint> = inside.chain(self.outside.iter().cloned()).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// The state of `live`'s endpoint, if it is (still) of this set.
    pub(super) fn find(&self, live: &Arc<Live<T>>) -> Option<&Arc<EndpointState<T>>> {
        let index = self.states.binary_search_by(|state| state.endpoint.key.cmp(&live.vitals.key)).ok()?;
        self.states.get(index).filter(|state| Arc::ptr_eq(&state.live, live))
    }
}

fn rank(endpoint: &Endpoint, balancing: &Balancing) -> Rank {
    let (distance, place) = match &balancing.config.locality {
        LocalityConfig::Off => (Distance::Any, None),
        LocalityConfig::Weighted(_) => (Distance::Any, Some(&endpoint.locality)),
        LocalityConfig::ZoneAware(config) if config.callers.is_empty() => (balancing.distance(endpoint), None),
        LocalityConfig::ZoneAware(_) => (balancing.distance(endpoint), Some(&endpoint.locality)),
    };
    let place = place.map(|place| (place.region.clone(), place.zone.clone())).unwrap_or_default();
    Rank { priority: endpoint.priority, distance: distance as u8, place }
}

impl Tier {
    fn new<T>(
        priority: u32,
        parts: &[Ranked<'_, T>],
        balancing: &Balancing,
        rng: &Rng,
        slots: &mut Vec<Slot<T>>,
    ) -> Self {
        let start = slots.len();
        let folded = balancing.folds_localities();
        let mut shapes = Vec::new();
        let mut weights: Vec<f64> = Vec::new();
        for (_, states) in parts {
            let own: Vec<f64> = states.iter().map(|state| f64::from(state.endpoint.weight.max(1))).collect();
            let weight = states.first().map_or(1, |state| balancing.weight(&state.endpoint));
            // An endpoint's share of its locality's weight, where one ring holds all localities.
            let scale = if folded { f64::from(weight) / own.iter().sum::<f64>() } else { 1.0 };
            shapes.push((weights.len()..weights.len() + states.len(), weight));
            weights.extend(own.iter().map(|own| own * scale));
        }
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let states = || parts.iter().flat_map(|(_, states)| states.iter().copied());
        slots.extend(states().zip(&weights).map(|(state, weight)| Slot {
            vitals: Arc::clone(&state.live.vitals),
            state: Arc::clone(state),
            weight: (weight / mean) as f32,
        }));
        let endpoints: Vec<&Endpoint> = states().map(|state| &state.endpoint).collect();
        let group = |range: std::ops::Range<usize>| {
            let weights = weights.get(range.clone()).unwrap_or_default();
            let endpoints = endpoints.get(range.clone()).unwrap_or_default();
            let policy = Policy::new(&balancing.config.policy, balancing.custom.as_ref(), endpoints, weights, rng);
            Group::new(start + range.start..start + range.end, weights, policy)
        };
        let splits = parts.len() > 1 && !folded;
        let parts = parts.iter().zip(shapes).filter(|_| splits).map(|((_, states), (range, weight))| {
            let endpoint = states.first().map(|state| &state.endpoint);
            Part {
                group: group(range),
                distance: endpoint.map_or(Distance::Any, |endpoint| balancing.distance(endpoint)),
                weight,
                callers: endpoint.map_or(0, |endpoint| balancing.callers(endpoint)),
            }
        });
        Self { priority, parts: parts.collect(), whole: group(0..weights.len()) }
    }
}
