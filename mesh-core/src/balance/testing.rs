//! A group of candidates for the tests of policies.

use super::Candidates;
use crate::discover::Endpoint;
use crate::rng::Rng;

#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) eligible: bool,
    pub(super) weight: f32,
    pub(super) cost: f32,
    pub(super) in_flight: usize,
}

impl Member {
    pub(super) const ONE: Self = Self { eligible: true, weight: 1.0, cost: 1.0, in_flight: 0 };
}

#[derive(Debug, Clone)]
pub(super) struct Group(pub(super) Vec<Member>);

impl Group {
    pub(super) fn of(members: &[Member]) -> Self {
        Self(members.to_vec())
    }
}

impl Candidates for Group {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn eligible(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|member| member.eligible)
    }

    fn endpoint(&self, _index: usize) -> Option<&Endpoint> {
        None
    }

    fn weight(&self, index: usize) -> f32 {
        self.0[index].weight
    }

    fn in_flight(&self, index: usize) -> usize {
        self.0[index].in_flight
    }

    fn latency(&self, index: usize) -> f32 {
        self.0[index].cost
    }

    fn draw(&self, rng: &Rng) -> usize {
        let mut left = rng.unit() as f32 * self.0.iter().map(|member| member.weight).sum::<f32>();
        let found = self.0.iter().position(|member| {
            left -= member.weight;
            left < 0.0
        });
        found.unwrap_or(self.0.len() - 1)
    }
}
