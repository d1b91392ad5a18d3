//! One immutable set of endpoints, and the choice of one of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Live, Vitals};
use super::{EndpointState, Settings, Tried};
use crate::balance::{Candidates, Picker, Tick, TwoChoices};
use crate::rng::Rng;

pub(super) struct Set<T> {
    pub(super) states: Arc<Vec<Arc<EndpointState<T>>>>,
    /// What a pick looks at, by the same indices: one step in memory for each candidate instead of three.
    vitals: Vec<Arc<Vitals>>,
    pub(super) settings: Settings,
    max_weight: u32,
    /// The distinct priorities, first to last.
    priorities: Vec<u32>,
}

pub(super) struct Choice<'a, T> {
    pub(super) state: &'a Arc<EndpointState<T>>,
    /// All endpoints are out, and this is one of them.
    pub(super) panic: bool,
}

impl<T> Set<T> {
    pub(super) fn new(states: Vec<Arc<EndpointState<T>>>, settings: Settings) -> Self {
        let max_weight = states.iter().map(|state| state.endpoint.weight).max().unwrap_or(1);
        let priorities: BTreeSet<u32> = states.iter().map(|state| state.endpoint.priority).collect();
        let vitals = states.iter().map(|state| Arc::clone(&state.live.vitals)).collect();
        Self { states: Arc::new(states), vitals, settings, max_weight, priorities: priorities.into_iter().collect() }
    }

    /// The state of `live`'s endpoint, if it is (still) of this set.
    pub(super) fn find(&self, live: &Arc<Live<T>>) -> Option<&Arc<EndpointState<T>>> {
        let index = self.states.binary_search_by(|state| state.endpoint.key.cmp(&live.vitals.key)).ok()?;
        self.states.get(index).filter(|state| Arc::ptr_eq(&state.live, live))
    }

    /// In and untried; else in; else untried; else any - each of the first priority that has such a one. `None` only of
    /// an empty set.
    pub(super) fn choose(&self, tried: &Tried, now: Tick, rng: &Rng) -> Option<Choice<'_, T>> {
        let retry = !tried.is_empty();
        for (only_in, only_untried) in [(true, true), (true, false), (false, true), (false, false)] {
            if !only_untried && !retry {
                continue; // without earlier attempts everybody is untried: the step before has asked this already
            }
            let tried = Some(tried).filter(|_| only_untried && retry);
            for priority in &self.priorities {
                let only_priority = Some(*priority).filter(|_| self.priorities.len() > 1);
                let view = View { set: self, tried, only_in, only_priority, now };
                if let Some(state) = TwoChoices.pick(&view, rng).and_then(|index| self.states.get(index)) {
                    return Some(Choice { state, panic: !only_in });
                }
            }
        }
        None
    }

    /// The median latency of the endpoints that are in: what one that comes back is assumed to have.
    pub(super) fn median_latency(&self, now: Instant, epoch: Instant) -> Duration {
        let tick = Tick::at(epoch, now);
        let mut seconds: Vec<f32> = (self.vitals.iter())
            .filter(|vitals| vitals.is_in() && !vitals.has_returned())
            .map(|vitals| vitals.ewma.seconds(tick, self.settings.decay))
            .collect();
        seconds.sort_unstable_by(f32::total_cmp);
        seconds.get(seconds.len() / 2).map_or(self.settings.default_rtt, |median| Duration::from_secs_f32(*median))
    }
}

/// The candidates of one step of [`Set::choose`].
struct View<'a, T> {
    set: &'a Set<T>,
    tried: Option<&'a Tried>,
    only_in: bool,
    only_priority: Option<u32>,
    now: Tick,
}

impl<T> View<'_, T> {
    fn excludes_nobody(&self) -> bool {
        self.tried.is_none() && self.only_priority.is_none()
    }

    fn admits(&self, state: &EndpointState<T>) -> bool {
        self.only_priority.is_none_or(|priority| priority == state.endpoint.priority)
            && self.tried.is_none_or(|tried| !tried.contains(&state.endpoint.key))
    }
}

impl<T> Candidates for View<'_, T> {
    fn len(&self) -> usize {
        self.set.vitals.len()
    }

    fn eligible(&self, index: usize) -> bool {
        (!self.only_in || self.set.vitals.get(index).is_some_and(|vitals| vitals.is_in()))
            && (self.excludes_nobody() || self.set.states.get(index).is_some_and(|state| self.admits(state)))
    }

    fn cost(&self, index: usize) -> f64 {
        self.set.vitals.get(index).map_or(f64::MAX, |vitals| vitals.cost(self.now, self.set.settings.decay))
    }

    fn weight(&self, index: usize) -> u32 {
        self.set.states.get(index).map_or(0, |state| state.endpoint.weight)
    }

    fn max_weight(&self) -> u32 {
        self.set.max_weight
    }
}
