//! The best of a few distinct random endpoints.
//!
//! Drawn with replacement, as Envoy and gRPC do, a frozen endpoint of two would keep a quarter of the traffic; drawn
//! distinct it gets none.

use super::{Candidates, PickRule, Picked};
use crate::rng::Rng;

/// Pairs of indices drawn before the scan. With half the set out, 1 pick in 300 scans.
const DRAWS: usize = 6;

/// The most choices that are compared. (gRPC A48)
pub(super) const MAX_CHOICES: usize = 10;

/// The cheapest of `count` *distinct* eligible endpoints, each drawn in proportion to its weight.
///
/// Constant expected time: a few random indices, and a scan only if most of the set is not eligible or weighs little.
#[inline(always)]
pub(super) fn best_of<C>(candidates: &C, rng: &Rng, count: usize, cost: impl Fn(usize) -> f32) -> Option<Picked>
where
    C: Candidates + ?Sized,
{
    let len = candidates.len();
    if len < 2 {
        return (len == 1 && candidates.eligible(0)).then(|| one(0, &cost));
    }
    let Some((first, second)) = two(candidates, rng) else { return scan(candidates, rng, &cost) };
    let best = one(first, &cost).against(second, &cost);
    if count <= 2 || len == 2 {
        return Some(best);
    }
    Some(more(candidates, rng, count.min(MAX_CHOICES).min(len), [first, second], best, &cost))
}

/// One candidate, compared to nobody yet.
fn one(index: usize, cost: impl Fn(usize) -> f32) -> Picked {
    Picked { compared: 1, cost: cost(index), ..Picked::by(PickRule::LeastLoad, index) }
}

impl Picked {
    /// The cheaper of this and another one, which it has not been compared to.
    #[inline(always)]
    fn against(self, other: usize, cost: impl Fn(usize) -> f32) -> Self {
        let (price, compared) = (cost(other), self.compared.saturating_add(1));
        let other = Self { cost: price, ..Self::by(self.rule, other) };
        if price < self.cost {
            return Self { rival: Some((self.index, self.cost)), compared, ..other };
        }
        let rival = self.rival.filter(|(_, rival)| *rival <= price).or(Some((other.index, price)));
        Self { rival, compared, ..self }
    }
}

#[inline(always)]
fn two<C: Candidates + ?Sized>(candidates: &C, rng: &Rng) -> Option<(usize, usize)> {
    let mut first = None;
    for _ in 0..DRAWS {
        let (a, b) = candidates.pair(rng);
        for index in [a, b] {
            if first == Some(index) || !candidates.eligible(index) {
                continue;
            }
            match first {
                None => first = Some(index),
                Some(first) => return Some((first, index)),
            }
        }
    }
    None
}

/// Draws on until `count` distinct ones were seen, or chance has had enough tries.
fn more<C: Candidates + ?Sized>(
    candidates: &C,
    rng: &Rng,
    count: usize,
    first: [usize; 2],
    mut best: Picked,
    cost: impl Fn(usize) -> f32,
) -> Picked {
    let mut seen = [usize::MAX; MAX_CHOICES];
    let mut known = 0;
    let mut note = |index| {
        let new = !seen.contains(&index);
        if let Some(place) = seen.get_mut(known).filter(|_| new) {
            *place = index;
            known += 1;
        }
        (new, known)
    };
    for index in first {
        note(index);
    }
    for _ in 0..count * DRAWS {
        let index = candidates.draw(rng);
        if !candidates.eligible(index) {
            continue;
        }
        let (new, known) = note(index);
        if new {
            best = best.against(index, &cost);
        }
        if known >= count {
            break;
        }
    }
    best
}

/// The same choice by looking at every candidate.
#[cold]
fn scan<C>(candidates: &C, rng: &Rng, cost: impl Fn(usize) -> f32) -> Option<Picked>
where
    C: Candidates + ?Sized,
{
    let first = weighted(candidates, None, rng)?;
    let picked = one(first, &cost);
    Some(match weighted(candidates, Some(first), rng) {
        Some(second) => picked.against(second, &cost),
        None => picked,
    })
}

/// One eligible index other than `except`, in proportion to the weights, by looking at every candidate.
pub(super) fn weighted<C: Candidates + ?Sized>(candidates: &C, except: Option<usize>, rng: &Rng) -> Option<usize> {
    let weights = || {
        (0..candidates.len())
            .filter(|index| Some(*index) != except && candidates.eligible(*index))
            .map(|index| (index, f64::from(candidates.weight(index))))
    };
    let mut left = rng.unit() * weights().map(|(_, weight)| weight).sum::<f64>();
    let mut last = None;
    for (index, weight) in weights() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
        // Eligibility may change between the two passes, and sums are rounded; then the last one seen has to do.
        last = Some(index);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Group, Member};
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn pick(group: &Group, count: usize, rng: &Rng) -> Option<usize> {
        best_of(group, rng, count, |index| group.0[index].cost).map(|picked| picked.index())
    }

    fn shares(group: &Group, count: usize, picks: u32) -> Vec<u32> {
        let rng = Rng::seeded(1);
        let mut counts = vec![0; group.0.len()];
        for _ in 0..picks {
            counts[pick(group, count, &rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_dearer_of_two_gets_nothing_and_the_dearest_of_many_too() {
        let group = Group::of(&[Member { cost: 1.0, ..Member::ONE }, Member { cost: 2.0, ..Member::ONE }]);
        assert_eq!(shares(&group, 2, 10_000), [10_000, 0]);
        let mut group = Group(vec![Member::ONE; 10]);
        group.0[3].cost = 9.0;
        for count in [2, 3] {
            let counts = shares(&group, count, 90_000);
            assert_eq!(counts[3], 0);
            assert!(counts.iter().enumerate().all(|(i, c)| i == 3 || (9_500..10_500).contains(c)), "{counts:?}");
        }
        // All ten are looked at: the one that is cheapest gets everything.
        group.0[7].cost = 0.5;
        assert!(shares(&group, 10, 1_000)[7] > 990);
        assert!(shares(&group, 2, 1_000)[7] < 260);
    }

    #[test]
    fn of_equals_each_gets_its_weight() {
        // By sampling.
        let weights = [1.0, 1.0, 2.0, 1.0].map(|weight| Member { weight, ..Member::ONE });
        let counts = shares(&Group::of(&weights), 2, 50_000);
        assert!((19_000..21_000).contains(&counts[2]), "{counts:?}");
        // By the scan: only 3 of 400 are eligible.
        let mut group = Group(vec![Member { eligible: false, ..Member::ONE }; 400]);
        for (index, weight) in [(17, 1.0), (200, 3.0), (399, 1.0)] {
            group.0[index] = Member { weight, ..Member::ONE };
        }
        let counts = shares(&group, 2, 10_000);
        assert!((5_700..6_300).contains(&counts[200]), "{}", counts[200]);
        assert_eq!(counts[17] + counts[200] + counts[399], 10_000);
    }

    #[test]
    fn the_rival_is_the_cheapest_of_the_others() {
        for (costs, best, rival) in [
            ([1.0, 2.0, 3.0], 0, 1),
            ([1.0, 3.0, 2.0], 0, 2),
            ([2.0, 1.0, 3.0], 1, 0),
            ([2.0, 3.0, 1.0], 2, 0),
            ([3.0, 2.0, 1.0], 2, 1),
        ] {
            let cost = |index: usize| costs[index];
            let picked = one(0, cost).against(1, cost).against(2, cost);
            assert_eq!((picked.index(), picked.cost, picked.compared), (best, 1.0, 3), "{costs:?}");
            assert_eq!(picked.rival, Some((rival, 2.0)), "{costs:?}");
        }
    }

    #[test]
    fn so_many_distinct_ones_are_compared_and_never_more() {
        let (group, rng) = (Group(vec![Member::ONE; 40]), Rng::seeded(1));
        for (count, expected) in [(2, 2), (3, 3), (7, 7), (10, 10), (12, MAX_CHOICES)] {
            let looked_at = || {
                let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
                let cost = |index| {
                    seen.borrow_mut().insert(index);
                    1.0
                };
                best_of(&group, &rng, count, cost);
                seen.into_inner().len()
            };
            assert!((0..200).all(|_| looked_at() == expected), "{count}");
        }
    }

    proptest! {
        #[test]
        fn picks_an_eligible_one_whenever_there_is_one(
            members in proptest::collection::vec((any::<bool>(), 0.0..9.0_f32, 0.1..5.0_f32), 0..40),
            count in 2..12_usize,
            seed: u64,
        ) {
            let group = Group(members.iter().map(|(eligible, cost, weight)| {
                Member { eligible: *eligible, cost: *cost, weight: *weight, ..Member::ONE }
            }).collect());
            match pick(&group, count, &Rng::seeded(seed)) {
                Some(index) => prop_assert!(group.0[index].eligible),
                None => prop_assert_eq!(group.0.iter().filter(|member| member.eligible).count(), 0),
            }
        }
    }
}
