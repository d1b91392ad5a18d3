//! One endpoint after the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Candidates;
use super::best_of::weighted;
use crate::rng::Rng;

/// Turns that are passed over before the scan, when endpoints are out or slow starters sit theirs out.
const TURNS: usize = 16;

/// Each endpoint as often as its weight says, exactly, with its turns spread evenly.
///
/// One atomic counter; no schedule, no heap, no lock. With weights, turn `n` stands at `n * stride` on a circle on which
/// each endpoint holds an arc as long as its weight; a stride near the golden section of the circle, and coprime to it,
/// lands once on every point and never long in one arc. A schedule by deadlines (EDF) starves weights far below 1
/// (envoyproxy/envoy#19526) and begins every set with the same endpoint (envoy#3271): here the start is random.
///
/// A turn of an endpoint that is out is passed over by whoever draws it, so its neighbour does not get its share.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    next: AtomicU64,
    stride: u64,
    total: u64,
    /// Where each endpoint's arc ends; empty where all weigh the same.
    ends: Box<[u64]>,
}

impl RoundRobin {
    pub(super) fn new(weights: &[f64], rng: &Rng) -> Self {
        let equal = weights.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
        let next = AtomicU64::new(rng.next_u64() >> 1);
        if equal {
            return Self { next, stride: 1, total: weights.len() as u64, ends: Box::default() };
        }
        // Positions stay below 2^32, so that their product with the stride fits.
        let sum: f64 = weights.iter().sum();
        let whole = weights.iter().all(|weight| weight.fract() == 0.0);
        let scale = if whole && sum < MOST { 1.0 } else { MOST / sum };
        let mut total = 0;
        let ends = weights.iter().map(|weight| {
            total += super::spread::whole((weight * scale).max(1.0));
            total
        });
        let ends = ends.collect();
        Self { next, stride: stride(total), total, ends }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, rng: &Rng) -> Option<usize> {
        self.pick_from(&self.next, candidates, rng)
    }

    /// What the next pick would choose; no turn is used up.
    pub(super) fn preview<C: Candidates + ?Sized>(&self, candidates: &C, rng: &Rng) -> Option<usize> {
        self.pick_from(&AtomicU64::new(self.next.load(Relaxed)), candidates, rng)
    }

    fn pick_from<C: Candidates + ?Sized>(&self, next: &AtomicU64, candidates: &C, rng: &Rng) -> Option<usize> {
        for _ in 0..TURNS {
            let turn = next.fetch_add(1, Relaxed).checked_rem(self.total)?;
            let index = if self.ends.is_empty() {
                turn as usize
            } else {
                let position = turn * self.stride % self.total;
                self.ends.partition_point(|end| *end <= position)
            };
            if candidates.eligible(index) && candidates.warm(index, rng) {
                return Some(index);
            }
        }
        weighted(candidates, None, rng)
    }
}

/// The longest circle.
const MOST: f64 = 2_147_483_648.0;

/// A step near the golden section of `total` that shares no divisor with it.
fn stride(total: u64) -> u64 {
    let golden = super::spread::whole(total as f64 * 0.618_033_988_75).max(1);
    (golden..).find(|step| coprime(*step, total)).unwrap_or(1)
}

pub(super) fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Group, Member};
    use super::*;

    fn counts(weights: &[f64], group: &Group, picks: usize) -> Vec<u32> {
        let rng = Rng::seeded(1);
        let policy = RoundRobin::new(weights, &rng);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[policy.pick(group, &rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn every_round_gives_each_its_weight_exactly_and_never_long_in_a_row() {
        for weights in [vec![1.0; 7], vec![1.0, 2.0, 3.0], vec![100.0, 1.0, 1.0], vec![65_535.0, 1.0]] {
            let group = Group(vec![Member::ONE; weights.len()]);
            let total = weights.iter().sum::<f64>() as usize;
            let expected: Vec<u32> = weights.iter().map(|weight| *weight as u32 * 3).collect();
            assert_eq!(counts(&weights, &group, total * 3), expected);
        }
        let (rng, group) = (Rng::seeded(2), Group(vec![Member::ONE; 2]));
        let policy = RoundRobin::new(&[3.0, 2.0], &rng);
        let picks: Vec<usize> = (0..50).map(|_| policy.pick(&group, &rng).unwrap()).collect();
        assert!(picks.windows(3).all(|three| three != [0; 3]), "{picks:?}");
    }

    #[test]
    fn the_start_is_random_and_a_turn_of_one_that_is_out_is_nobodys() {
        let group = Group(vec![Member::ONE; 5]);
        let first = |seed| {
            let rng = Rng::seeded(seed);
            RoundRobin::new(&[1.0; 5], &rng).pick(&group, &rng).unwrap()
        };
        let starts: std::collections::BTreeSet<usize> = (0..100).map(first).collect();
        assert_eq!(starts.len(), 5);
        let mut group = group;
        group.0[2].eligible = false;
        assert_eq!(counts(&[1.0; 5], &group, 4_000), [1_000, 1_000, 0, 1_000, 1_000]);
    }
}
