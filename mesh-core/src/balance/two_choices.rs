//! The better of two distinct random endpoints.

use super::{Candidates, Picker};
use crate::rng::Rng;

/// The cheaper of two *distinct* eligible endpoints, each drawn in proportion to its weight.
///
/// Drawn with replacement, as Envoy and gRPC do, a frozen endpoint of two would keep a quarter of the traffic; drawn
/// distinct it gets none.
///
/// Constant expected time: a few random indices, and a scan only if most of the set is not eligible or weighs little.
#[derive(Debug, Clone, Copy, Default)]
pub struct TwoChoices;

/// Pairs of indices drawn before the scan. With half the set out, 1 pick in 300 scans.
const DRAWS: usize = 6;

impl Picker for TwoChoices {
    fn pick<C: Candidates>(&self, candidates: &C, rng: &Rng) -> Option<usize> {
        let len = candidates.len();
        if len < 2 {
            return (len == 1 && candidates.eligible(0)).then_some(0);
        }
        let mut first = None;
        let distinct = candidates.max_weight() <= 1;
        for _ in 0..DRAWS {
            let (a, b) = pair(len, distinct, rng);
            for index in [a, b] {
                if first == Some(index) || !candidates.eligible(index) || !accepted(candidates, index, rng) {
                    continue;
                }
                match first {
                    None => first = Some(index),
                    Some(first) => return Some(cheaper(candidates, first, index)),
                }
            }
        }
        scan(candidates, rng)
    }
}

/// Two indices below `len`, which is at least 2, from one random number.
///
/// Where indices may be rejected for their weight they must be independent: a partner of a rejected light one that had
/// to differ from it would too often be a heavy one.
fn pair(len: usize, distinct: bool, rng: &Rng) -> (usize, usize) {
    let random = rng.next_u64();
    // Each half of the number is scaled to its range; sets are far smaller than 2^32.
    let scaled = |half: u64, range: usize| ((half * range as u64) >> 32) as usize;
    let a = scaled(random >> 32, len);
    let low = random & u64::from(u32::MAX);
    if !distinct {
        return (a, scaled(low, len));
    }
    let b = scaled(low, len - 1);
    (a, if b >= a { b + 1 } else { b })
}

/// Rejection sampling: keeps an index with the probability of its weight against the greatest.
fn accepted<C: Candidates>(candidates: &C, index: usize, rng: &Rng) -> bool {
    let max = candidates.max_weight();
    max <= 1 || {
        let weight = candidates.weight(index);
        weight >= max || rng.below(max as usize) < weight as usize
    }
}

fn cheaper<C: Candidates>(candidates: &C, a: usize, b: usize) -> usize {
    if candidates.cost(b) < candidates.cost(a) { b } else { a }
}

/// The same choice by looking at every candidate.
fn scan<C: Candidates>(candidates: &C, rng: &Rng) -> Option<usize> {
    let first = draw(candidates, None, rng)?;
    Some(match draw(candidates, Some(first), rng) {
        Some(second) => cheaper(candidates, first, second),
        None => first,
    })
}

/// One eligible index other than `except`, in proportion to the weights.
fn draw<C: Candidates>(candidates: &C, except: Option<usize>, rng: &Rng) -> Option<usize> {
    let weights = || {
        (0..candidates.len())
            .filter(|index| Some(*index) != except && candidates.eligible(*index))
            .map(|index| (index, candidates.weight(index).max(1) as usize))
    };
    let mut left = rng.below(weights().map(|(_, weight)| weight).sum());
    let mut last = None;
    for (index, weight) in weights() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
        // Eligibility may change between the two passes; then the last one seen has to do.
        last = Some(index);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    struct Set(Vec<(bool, f64, u32)>);

    impl Candidates for Set {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn eligible(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn cost(&self, index: usize) -> f64 {
            self.0[index].1
        }
        fn weight(&self, index: usize) -> u32 {
            self.0[index].2
        }
        fn max_weight(&self) -> u32 {
            self.0.iter().map(|c| c.2).max().unwrap_or(1)
        }
    }

    fn shares(set: &Set, picks: u32) -> Vec<u32> {
        let rng = Rng::seeded(1);
        let mut counts = vec![0; set.0.len()];
        for _ in 0..picks {
            counts[TwoChoices.pick(set, &rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_dearer_of_two_gets_nothing_and_the_dearest_of_many_too() {
        assert_eq!(shares(&Set(vec![(true, 1.0, 1), (true, 2.0, 1)]), 10_000), [10_000, 0]);
        let mut set = Set(vec![(true, 1.0, 1); 10]);
        set.0[3].1 = 9.0;
        let counts = shares(&set, 90_000);
        assert_eq!(counts[3], 0);
        assert!(counts.iter().enumerate().all(|(i, c)| i == 3 || (9_500..10_500).contains(c)), "{counts:?}");
    }

    #[test]
    fn of_equals_each_gets_its_weight() {
        // By sampling.
        let counts = shares(&Set([1, 1, 2, 1].map(|w| (true, 1.0, w)).to_vec()), 50_000);
        assert!((19_000..21_000).contains(&counts[2]), "{counts:?}");
        // By the scan: only 3 of 400 are eligible.
        let mut set = Set(vec![(false, 1.0, 1); 400]);
        for (index, weight) in [(17, 1), (200, 3), (399, 1)] {
            set.0[index] = (true, 1.0, weight);
        }
        let counts = shares(&set, 10_000);
        assert!((5_700..6_300).contains(&counts[200]), "{}", counts[200]);
        assert_eq!(counts[17] + counts[200] + counts[399], 10_000);
    }

    proptest! {
        #[test]
        fn picks_an_eligible_one_whenever_there_is_one(
            set in proptest::collection::vec((any::<bool>(), 0.0..9.0_f64, 0..5_u32), 0..40),
            seed: u64,
        ) {
            let set = Set(set);
            match TwoChoices.pick(&set, &Rng::seeded(seed)) {
                Some(index) => prop_assert!(set.0[index].0),
                None => prop_assert!(set.0.iter().all(|c| !c.0)),
            }
            let eligible = set.0.iter().filter(|c| c.0);
            if eligible.clone().count() == 2 {
                let best = eligible.map(|c| c.1).fold(f64::MAX, f64::min);
                let index = TwoChoices.pick(&set, &Rng::seeded(seed)).unwrap();
                prop_assert_eq!(set.0[index].1, best, "of two, always the cheaper");
            }
        }
    }
}
