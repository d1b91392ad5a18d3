//! The configured policy, as it picks from one group.

use std::sync::Arc;

use super::best_of::best_of;
use super::round_robin::RoundRobin;
use super::{Candidates, PickRequest, PickRule, Picked, Picker, RingHash, random};
use crate::config::BalancePolicy;
use crate::discover::Endpoint;
use crate::rng::Rng;

/// The metadata of an endpoint that takes the place of its address on a ring. (Envoy's `envoy.lb`, gRPC A42)
const HASH_KEY: &str = "hash_key";

/// One group's picker, with what it knows of the group.
#[derive(Debug)]
pub(crate) enum Policy {
    PeakEwma,
    LeastRequest { choices: usize },
    RoundRobin(RoundRobin),
    Random,
    RingHash(RingHash),
    Custom(Arc<dyn Picker>),
}

impl Policy {
    /// The policy for a group of endpoints with these weights. A kind of somebody else is `custom`; without one, which
    /// a started mesh rules out, the default stands in.
    pub(crate) fn new(
        config: &BalancePolicy,
        custom: Option<&Arc<dyn Picker>>,
        group: &[&Endpoint],
        weights: &[f64],
        rng: &Rng,
    ) -> Self {
        match config {
            BalancePolicy::PeakEwma => Self::PeakEwma,
            BalancePolicy::LeastRequest(config) => Self::LeastRequest { choices: config.choices as usize },
            BalancePolicy::RoundRobin => Self::RoundRobin(RoundRobin::new(weights, rng)),
            BalancePolicy::Random => Self::Random,
            BalancePolicy::RingHash(config) => {
                let addresses: Vec<String> = group.iter().map(|endpoint| endpoint.address.to_string()).collect();
                let names = group.iter().zip(&addresses).map(|(endpoint, address)| {
                    endpoint.metadata.get(HASH_KEY).map_or(address.as_str(), String::as_str)
                });
                let endpoints: Vec<(&str, f64)> = names.zip(weights.iter().copied()).collect();
                let (min, max) = (config.min_ring_size, config.max_ring_size);
                Self::RingHash(RingHash::new(&endpoints, min, max, config.balance_factor.unwrap_or_default()))
            }
            BalancePolicy::Custom(_) => match custom {
                Some(picker) => Self::Custom(picker.renew(group).unwrap_or_else(|| Arc::clone(picker))),
                None => Self::PeakEwma,
            },
        }
    }

    /// An eligible index; `None` only if there is none.
    #[inline(always)]
    pub(crate) fn pick<C: Candidates>(&self, candidates: &C, request: &PickRequest<'_>) -> Option<Picked> {
        match self {
            Self::PeakEwma => best_of(candidates, request.rng, 2, |index| latency(candidates, index))
                .map(|picked| picked.named(PickRule::LeastLatency)),
            Self::LeastRequest { choices } => {
                best_of(candidates, request.rng, *choices, |index| load(candidates, index))
            }
            Self::RoundRobin(turns) => {
                turns.pick(candidates, request.rng).map(|index| Picked::by(PickRule::Turn, index))
            }
            Self::Random => by_chance(candidates, request),
            Self::RingHash(ring) => ring.pick(candidates, request),
            Self::Custom(picker) => {
                let picked = picker.pick(candidates, request).filter(|index| candidates.eligible(*index));
                picked.map(|index| Picked::by(PickRule::Custom, index)).or_else(|| by_chance(candidates, request))
            }
        }
    }

    /// What a candidate costs in seconds, where that is what counts.
    pub(crate) fn cost<C: Candidates>(&self, candidates: &C, index: usize) -> Option<f32> {
        matches!(self, Self::PeakEwma).then(|| latency(candidates, index))
    }

    /// What [`pick`](Self::pick) would choose, without a change of any state but that of the request's `rng`; `None` also
    /// where a policy of the program's own would have to be asked, which may keep count of it.
    pub(crate) fn preview<C: Candidates>(&self, candidates: &C, request: &PickRequest<'_>) -> Option<Picked> {
        match self {
            Self::RoundRobin(turns) => {
                turns.preview(candidates, request.rng).map(|index| Picked::by(PickRule::Turn, index))
            }
            Self::Custom(_) => None,
            _ => self.pick(candidates, request),
        }
    }
}

fn by_chance<C: Candidates>(candidates: &C, request: &PickRequest<'_>) -> Option<Picked> {
    random::pick(candidates, request.rng).map(|index| Picked::by(PickRule::Chance, index))
}

/// Load counts for as much as the endpoint is smaller than the mean.
fn load<C: Candidates>(candidates: &C, index: usize) -> f32 {
    candidates.in_flight(index) as f32 / candidates.weight(index)
}

fn latency<C: Candidates>(candidates: &C, index: usize) -> f32 {
    latency_by_load(candidates.latency(index), candidates.in_flight(index), candidates.weight(index))
}

/// What an endpoint costs by `peak_ewma`, in seconds.
#[inline]
pub(crate) fn latency_by_load(latency: f32, in_flight: usize, weight: f32) -> f32 {
    latency * (in_flight as f32 / weight + 1.0)
}
