//! One immutable set of endpoints, and the choice of one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Live, Share};
use super::group::{Admit, Group, Slot, Terms};
use super::plan::{PartPlan, Plan, TierPlan};
use super::{Balancing, EndpointState, PickError, Settings, Tried};
use crate::balance::{PickRequest, Policy, Tick};
use crate::config::{LocalityConfig, PanicAction};
use crate::discover::Endpoint;
use crate::rng::Rng;
use crate::telemetry::Distance;

/// The endpoints with what they get of the traffic now. Changed whole.
pub(super) struct Set<T> {
    pub(super) members: Arc<Members<T>>,
    pub(super) plan: Plan,
    pub(super) settings: Settings,
    pub(super) balancing: Arc<Balancing>,
}

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

pub(super) struct Choice<'a, T> {
    pub(super) state: &'a Arc<EndpointState<T>>,
    /// That an endpoint is ejected did not count.
    pub(super) panic: bool,
    /// It left its ring because that one had more to do.
    pub(super) spilled: bool,
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

impl<T> Set<T> {
    pub(super) fn new(members: Arc<Members<T>>, settings: Settings, balancing: Arc<Balancing>) -> Self {
        let plan = Plan::new(&members, &balancing, &settings);
        Self { members, plan, settings, balancing }
    }

    /// The same endpoints, with a plan of how they fare now.
    pub(super) fn planned_anew(&self) -> Self {
        Self::new(Arc::clone(&self.members), self.settings, Arc::clone(&self.balancing))
    }

    /// By the plan: a priority, a part of it, an endpoint in that. Where all there were tried already, any untried one
    /// that is in, of the same priority, then of the first that has one; then a tried one that is in; then, unless that is forbidden, one that is out.
    pub(super) fn choose(&self, tried: &Tried, request: PickRequest<'_>, now: u64) -> Result<Choice<'_, T>, PickError> {
        let tried = Some(tried).filter(|tried| !tried.is_empty());
        let terms = Terms { request, tried, admit: Admit::In, now, slow: None, settings: &self.settings };
        let (tier, plan) = self.tier(&request).ok_or(self.nobody())?;
        if plan.load.panic {
            if self.settings.panic == PanicAction::Fail {
                return Err(PickError::Unavailable);
            }
            let request = PickRequest { available: 1.0, ..request };
            let terms = Terms { admit: Admit::Usable, request, ..terms };
            if let Some(slot) = tier.whole.pick(&self.members.slots, &terms) {
                return Ok(Choice { state: &slot.state, panic: true, spilled: false });
            }
        } else if let Some((slot, spilled)) = self.planned(tier, plan, &terms) {
            return Ok(Choice { state: &slot.state, panic: false, spilled });
        }
        self.leftover(tier, terms)
    }

    /// Why there is nobody.
    fn nobody(&self) -> PickError {
        if !self.members.states.is_empty() {
            PickError::Unavailable
        } else if self.members.outside.is_empty() {
            PickError::Empty
        } else {
            PickError::Residency
        }
    }

    /// The priority of this request: by its key if it has one, so that one key keeps its priority.
    fn tier(&self, request: &PickRequest<'_>) -> Option<(&Tier, &TierPlan)> {
        let index = if self.plan.tiers.len() == 1 && self.plan.total > 0 {
            0
        } else {
            let percent = match request.hash {
                _ if self.plan.total == 0 => return None,
                Some(hash) => (hash % 100) as u32,
                None => request.rng.below(100) as u32,
            };
            let mut end = 0;
            self.plan.tiers.iter().position(|tier| {
                end += tier.load.percent;
                percent < end
            })?
        };
        self.members.tiers.get(index).zip(self.plan.tiers.get(index))
    }

    fn planned(&self, tier: &Tier, plan: &TierPlan, terms: &Terms<'_>) -> Option<(&Slot<T>, bool)> {
        let of = |group: &Group, available, oldest| {
            let request = PickRequest { available, ..terms.request };
            let slow = self.settings.slow_start.filter(|_| terms.now < self.plan.warm_from);
            let terms = Terms { request, slow: slow.map(|slow| (slow, oldest)), ..*terms };
            group.pick(&self.members.slots, &terms)
        };
        let part = |part: &PartPlan| {
            let group = &tier.parts.get(part.index)?.group;
            of(group, part.available, part.oldest)
        };
        let chosen = match plan.parts.as_slice() {
            [] => return of(&tier.whole, plan.available, plan.oldest).map(|slot| (slot, false)),
            [one] => one,
            many => {
                let share = terms.request.rng.unit();
                many.get(many.partition_point(|part| part.until <= share)).or(many.last())?
            }
        };
        let slot = part(chosen)?;
        if let Some((factor, next)) = plan.spill.as_ref().filter(|(_, next)| next.index > chosen.index) {
            let (busy, factor) = (slot.vitals.in_flight() + 1, *factor as usize);
            // Looking at the next ring costs a second pick: only where it can matter.
            if busy > factor
                && let Some(other) = part(next)
                && busy > factor * (other.vitals.in_flight() + 1)
            {
                return Some((other, true));
            }
        }
        Some((slot, false))
    }

    /// Somebody, where the plan's own choice has nobody left: all were tried, or went out since. `planned` comes first.
    fn leftover(&self, planned: &Tier, terms: Terms<'_>) -> Result<Choice<'_, T>, PickError> {
        let retry = terms.tried.is_some();
        let steps = [(Admit::In, true), (Admit::In, false), (Admit::Usable, true), (Admit::Usable, false)];
        let steps = steps.into_iter().chain([(Admit::Any, true), (Admit::Any, false)]);
        for (admit, untried) in steps {
            if !untried && !retry {
                continue; // without earlier attempts everybody is untried: the step before has asked this already
            }
            let panic = admit != Admit::In;
            if panic && (self.settings.panic == PanicAction::Fail || self.settings.threshold == 0) {
                return Err(PickError::Unavailable);
            }
            let terms = Terms { admit, tried: terms.tried.filter(|_| untried), ..terms };
            let mut tiers = std::iter::once(planned).chain(&self.members.tiers);
            if let Some(slot) = tiers.find_map(|tier| tier.whole.pick(&self.members.slots, &terms)) {
                return Ok(Choice { state: &slot.state, panic, spilled: false });
            }
        }
        Err(self.nobody())
    }

    /// The median latency of the endpoints that are in, if any is: what one that comes, or comes back, is assumed to have.
    pub(super) fn median_latency(&self, now: Instant, epoch: Instant) -> Option<Duration> {
        let tick = Tick::at(epoch, now);
        let vitals = self.members.slots.iter().map(|slot| &slot.vitals);
        let mut seconds: Vec<f32> = vitals
            .filter(|vitals| vitals.is_in() && !vitals.has_returned())
            .map(|vitals| vitals.ewma.seconds(tick, self.settings.decay))
            .collect();
        seconds.sort_unstable_by(f32::total_cmp);
        seconds.get(seconds.len() / 2).map(|median| Duration::from_secs_f32(*median))
    }

    /// The slots with what each one's group gets of the traffic.
    pub(super) fn shares(&self, now: u64) -> impl Iterator<Item = (&Slot<T>, Share)> {
        let slow = self.settings.slow_start.filter(|_| now < self.plan.warm_from);
        self.members.tiers.iter().enumerate().flat_map(move |(index, tier)| {
            let slots = self.members.slots.iter().enumerate();
            slots.skip(tier.whole.slots.start).take(tier.whole.slots.len()).map(move |(place, slot)| {
                let part = tier.parts.iter().position(|part| part.group.slots.contains(&place)).unwrap_or(0);
                let (load, locality_percent) = self.plan.share(index, part);
                let warmth = slow.map_or(1.0, |slow| slow.factor(now.saturating_sub(slot.vitals.came())));
                let share = Share {
                    priority_percent: load.percent,
                    locality_percent,
                    panic: load.panic,
                    warmth_percent: (warmth * 100.0).round() as u32,
                };
                (slot, share)
            })
        })
    }
}
