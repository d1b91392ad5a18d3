//! One immutable set of endpoints, and the choice of one of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{EndpointState, Live, Settings, Tried};
use crate::balance::{Candidates, Picker, Tick, TwoChoices};
use crate::rng::Rng;

pub(super) struct Set<T> {
    pub(super) states: Arc<Vec<Arc<EndpointState<T>>>>,
    pub(super) settings: Settings,
    max_weight: u32,
}

pub(super) struct Choice<'a, T> {
    pub(super) state: &'a Arc<EndpointState<T>>,
    /// All endpoints are out, and this is one of them.
    pub(super) panic: bool,
}

impl<T> Set<T> {
    pub(super) fn new(states: Vec<Arc<EndpointState<T>>>, settings: Settings) -> Self {
        let max_weight = states.iter().map(|state| state.endpoint.weight).max().unwrap_or(1);
        Self { states: Arc::new(states), settings, max_weight }
    }

    /// The state of `live`'s endpoint, if it is (still) of this set.
    pub(super) fn find(&self, live: &Arc<Live<T>>) -> Option<&Arc<EndpointState<T>>> {
        let index = self.states.binary_search_by(|state| state.endpoint.key.cmp(&live.key)).ok()?;
        self.states.get(index).filter(|state| Arc::ptr_eq(&state.live, live))
    }

    /// In and untried; else in; else untried; else any. `None` only of an empty set.
    pub(super) fn choose(&self, tried: &Tried, now: Tick, rng: &Rng) -> Option<Choice<'_, T>> {
        if self.states.is_empty() {
            return None;
        }
        let retry = !tried.is_empty();
        [(true, true), (true, false), (false, true), (false, false)].into_iter().find_map(|(only_in, only_untried)| {
            // Without earlier attempts, "untried" excludes nobody, so the wider step would ask the same again.
            if !only_untried && !retry {
                return None;
            }
            let tried = Some(tried).filter(|_| only_untried && retry);
            let index = TwoChoices.pick(&View { set: self, tried, only_in, now }, rng)?;
            Some(Choice { state: self.states.get(index)?, panic: !only_in })
        })
    }

    /// The median latency of the endpoints that are in: what one that comes back is assumed to have.
    pub(super) fn median_latency(&self, now: Instant, epoch: Instant) -> Duration {
        let tick = Tick::at(epoch, now);
        let mut seconds: Vec<f32> = (self.states.iter())
            .filter(|state| state.live.is_in() && !state.live.has_returned())
            .map(|state| state.live.ewma.seconds(tick, self.settings.decay))
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
    now: Tick,
}

impl<T> Candidates for View<'_, T> {
    fn len(&self) -> usize {
        self.set.states.len()
    }

    fn eligible(&self, index: usize) -> bool {
        self.set.states.get(index).is_some_and(|state| {
            (!self.only_in || state.live.is_in()) && self.tried.is_none_or(|tried| !tried.contains(&state.endpoint.key))
        })
    }

    fn cost(&self, index: usize) -> f64 {
        self.set.states.get(index).map_or(f64::MAX, |state| state.live.cost(self.now, self.set.settings.decay))
    }

    fn weight(&self, index: usize) -> u32 {
        self.set.states.get(index).map_or(0, |state| state.endpoint.weight)
    }

    fn max_weight(&self) -> u32 {
        self.set.max_weight
    }
}
