//! Endpoints that are picked from together, and the view that a picker has of them.

use std::ops::Range;
use std::sync::Arc;

use super::endpoint::Vitals;
use super::settings::Settings;
use super::{EndpointState, Tried};
use crate::balance::{Candidates, PickRequest, Picked, Policy, SlowStart, Tick, Weights};
use crate::discover::Endpoint;
use crate::rng::Rng;

/// What a pick looks at of one endpoint: one step in memory to its vitals.
pub(super) struct Slot<T> {
    pub(super) vitals: Arc<Vitals>,
    pub(super) state: Arc<EndpointState<T>>,
    /// Its share of the group, where 1 is the mean; the weight of its locality is in it where the policy wants it so.
    pub(super) weight: f32,
}

/// A run of slots, with a policy that knows it: all of a priority, or those of one locality or ring in it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) slots: Range<usize>,
    pub(super) weights: Weights,
    policy: Policy,
}

/// Which endpoints count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    /// Reachable and not ejected.
    In,
    /// Not known to be unreachable. An ejection is a judgement, and may be wrong; that there is no connection is a fact.
    Usable,
    /// Everyone.
    Any,
}

/// What one step of a choice goes by.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) request: PickRequest<'a>,
    /// Not these.
    pub(super) tried: Option<&'a Tried>,
    pub(super) admit: Admit,
    /// Milliseconds since the cluster's epoch.
    pub(super) now: u64,
    /// While somebody starts slowly: how, and when the oldest of the group came.
    pub(super) slow: Option<(SlowStart, u64)>,
    pub(super) settings: &'a Settings,
}

impl Group {
    pub(super) fn new(slots: Range<usize>, weights: &[f64], policy: Policy) -> Self {
        Self { slots, weights: Weights::new(weights), policy }
    }

    /// Whether the better of any two by latency and load is chosen.
    pub(super) fn compares_equals(&self) -> bool {
        matches!(self.policy, Policy::PeakEwma) && self.weights.equal()
    }

    /// The slot chosen on these terms, if any fulfils them.
    #[inline(always)]
    pub(super) fn pick<'s, T>(&self, slots: &'s [Slot<T>], terms: &Terms<'_>) -> Option<Drawn<'s, T>> {
        let slots = slots.get(self.slots.clone())?;
        let slow = terms.slow.map(|(slow, oldest)| (slow, slow.factor(terms.now.saturating_sub(oldest))));
        let view = View { slots, weights: &self.weights, terms, tick: Tick::of_millis(terms.now), slow };
        let request = &terms.request;
        let picked =
            if request.preview { self.policy.preview(&view, request) } else { self.policy.pick(&view, request) }?;
        slots.get(picked.index()).map(|slot| Drawn { slot, slots, picked })
    }

    /// What a slot costs by the policy, where that compares costs.
    pub(super) fn cost<T>(&self, slot: &Slot<T>, terms: &Terms<'_>) -> Option<f32> {
        let slots = std::slice::from_ref(slot);
        let tick = Tick::of_millis(terms.now);
        self.policy.cost(&View { slots, weights: &self.weights, terms, tick, slow: None }, 0)
    }
}

/// A chosen slot, and by what it was chosen.
pub(super) struct Drawn<'s, T> {
    pub(super) slot: &'s Slot<T>,
    /// Those of its group.
    pub(super) slots: &'s [Slot<T>],
    pub(super) picked: Picked,
}

impl<'s, T> Drawn<'s, T> {
    /// The cheapest of the others that were looked at, and what it would have cost.
    pub(super) fn rival(&self) -> Option<(&'s Slot<T>, f32)> {
        self.picked.rival.and_then(|(index, cost)| Some((self.slots.get(index as usize)?, cost)))
    }
}

struct View<'a, T> {
    slots: &'a [Slot<T>],
    weights: &'a Weights,
    terms: &'a Terms<'a>,
    tick: Tick,
    /// How shares grow, and the greatest that any of the group has.
    slow: Option<(SlowStart, f32)>,
}

/// Draws that slow start may turn down one after the other. Where nearly all endpoints are new there is nobody else.
const DRAWS: usize = 8;

impl<T> Candidates for View<'_, T> {
    #[inline]
    fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    fn eligible(&self, index: usize) -> bool {
        let Some(slot) = self.slots.get(index) else { return false };
        let admitted = match self.terms.admit {
            Admit::In => slot.vitals.is_in(),
            Admit::Usable => slot.vitals.is_usable(),
            Admit::Any => true,
        };
        admitted && self.terms.tried.is_none_or(|tried| !tried.contains(&slot.vitals.key))
    }

    fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.slots.get(index).map(|slot| &slot.state.endpoint)
    }

    #[inline]
    fn weight(&self, index: usize) -> f32 {
        self.slots.get(index).map_or(1.0, |slot| slot.weight)
    }

    #[inline]
    fn in_flight(&self, index: usize) -> usize {
        self.slots.get(index).map_or(0, |slot| slot.vitals.in_flight())
    }

    #[inline]
    fn latency(&self, index: usize) -> f32 {
        self.slots.get(index).map_or(f32::MAX, |slot| slot.vitals.ewma.seconds(self.tick, self.terms.settings.decay))
    }

    #[inline]
    fn draw(&self, rng: &Rng) -> usize {
        let mut index = self.weights.draw(rng.next_u64());
        for _ in 1..DRAWS {
            if self.warm(index, rng) {
                break;
            }
            index = self.weights.draw(rng.next_u64());
        }
        index
    }

    #[inline]
    fn pair(&self, rng: &Rng) -> (usize, usize) {
        if self.slow.is_some() { (self.draw(rng), self.draw(rng)) } else { self.weights.pair(rng.next_u64()) }
    }

    fn warm(&self, index: usize, rng: &Rng) -> bool {
        let Some((slow, greatest)) = self.slow else { return true };
        let Some(slot) = self.slots.get(index) else { return true };
        let factor = slow.factor(self.terms.now.saturating_sub(slot.vitals.came()));
        factor >= greatest || (rng.unit() as f32) * greatest < factor
    }
}
