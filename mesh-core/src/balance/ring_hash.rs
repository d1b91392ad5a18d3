//! One key, one endpoint, with as few exceptions as load and health allow.

use super::best_of::best_of;
use super::round_robin::coprime;
use super::xxh64::xxh64;
use super::{Candidates, PickRequest, PickRule, Picked, random};

/// A consistent-hash ring, with bounded load if it is asked for.
///
/// Ketama, as Envoy and gRPC A42 build it.
///
/// Every endpoint stands on the ring many times, in proportion to its weight; a key belongs to the first one at or
/// after its own place. One that is out or was tried already is passed over, so only its own keys go elsewhere, and
/// they go where they would if it had never been there. A request without a key goes anywhere, by weight.
///
/// **Bounded load** (Mirrokni, Thorup, Zadimoghaddam, 2016): with a balance factor of c %, no endpoint gets another
/// request while it has c % of its share of what is under way, rounded up. The next endpoint for such a key is found by
/// jumps that the key decides, not by walking on: a neighbour would inherit the whole surplus of a hot key's endpoint
/// and be the next to overflow (Envoy's `hash_balance_factor`). Where all are full, the least full one it is.
///
/// **Memory**: 16 bytes for a place on the ring; with the largest ring of 8,388,608 places, 128 MiB for each group of a
/// cluster.
#[derive(Debug)]
pub struct RingHash {
    /// Places on the ring, in order.
    hashes: Box<[u64]>,
    /// Whose they are.
    owners: Box<[u32]>,
    /// Where to begin to look, by the first bits of a hash: so a look-up does not grow with the ring.
    starts: Box<[u32]>,
    /// In percent; 0: load is not bounded.
    balance_factor: u32,
}

impl RingHash {
    /// The least size of a ring, and the largest. (Envoy)
    pub const SIZES: (u64, u64) = (1_024, 8_388_608);

    /// A ring of endpoints by what they are hashed by and their weights.
    ///
    /// At least `min` and at most `max` places long.
    ///
    /// `min` is a goal: the ring is made so long that the lightest endpoint has a whole number of places.
    pub fn new(endpoints: &[(&str, f64)], min: u64, max: u64, balance_factor: u32) -> Self {
        let total: f64 = endpoints.iter().map(|(_, weight)| weight).sum();
        let lightest = endpoints.iter().map(|(_, weight)| weight / total).fold(1.0, f64::min);
        let scale = ((lightest * min as f64).ceil() / lightest).min(max as f64);
        let mut places = Vec::with_capacity(super::spread::whole(scale.ceil()) as usize);
        let mut key = String::new();
        // Fractions carry over, so that the ring has the size that was planned, and endpoints their share of it.
        let (mut current, mut target) = (0.0, 0.0);
        for (index, (name, weight)) in endpoints.iter().enumerate() {
            target += scale * weight / total;
            let mut number = 0_u64;
            while current < target {
                key.clear();
                key.push_str(name);
                key.push('_');
                key.push_str(&number.to_string());
                places.push((xxh64(key.as_bytes(), 0), index as u32));
                number += 1;
                current += 1.0;
            }
        }
        places.sort_unstable();
        let (hashes, owners): (Vec<u64>, Vec<u32>) = places.into_iter().unzip();
        let mut starts = vec![0; hashes.len()];
        let mut next = 0;
        for (bucket, start) in starts.iter_mut().enumerate() {
            while hashes.get(next).is_some_and(|hash| bucket_of(*hash, hashes.len()) < bucket) {
                next += 1;
            }
            *start = next as u32;
        }
        Self { hashes: hashes.into(), owners: owners.into(), starts: starts.into(), balance_factor }
    }

    /// How many places the ring has.
    pub fn places(&self) -> usize {
        self.hashes.len()
    }

    /// The place that a hash belongs to: the first at or after it, or the very first.
    fn place(&self, hash: u64) -> usize {
        let start = self.starts.get(bucket_of(hash, self.hashes.len())).map_or(0, |start| *start as usize);
        let later = self.hashes.get(start..).unwrap_or_default();
        let found = start + later.iter().position(|place| *place >= hash).unwrap_or(later.len());
        if found < self.hashes.len() { found } else { 0 }
    }

    pub(super) fn pick<C: Candidates + ?Sized>(&self, candidates: &C, request: &PickRequest<'_>) -> Option<Picked> {
        let Some(hash) = request.hash else { return self.without_key(candidates, request) };
        let place = self.place(hash);
        let (before, after) = self.owners.split_at_checked(place)?;
        let owner = self.owners.get(place).map(|owner| *owner as usize);
        let mut owners = after.iter().chain(before).map(|owner| *owner as usize);
        let mut eligible = |most| owners.by_ref().take(most).find(|owner| candidates.eligible(*owner));
        let first = eligible(candidates.len()).or_else(|| {
            // Before the whole ring is gone round in vain, which is longer than the group.
            let somebody = (0..candidates.len()).any(|index| candidates.eligible(index));
            somebody.then(|| eligible(usize::MAX)).flatten()
        })?;
        if self.balance_factor == 0 || fullness(candidates, first, self.slots(request)) < 1.0 {
            let rule = if owner == Some(first) { PickRule::RingOwner } else { PickRule::RingNext };
            return Some(Picked::by(rule, first));
        }
        Some(Picked::by(PickRule::RingOverflow, self.jump(candidates, first, hash, request)))
    }

    /// Where another endpoint is found for a key whose own one is full.
    fn jump<C: Candidates + ?Sized>(
        &self,
        candidates: &C,
        first: usize,
        hash: u64,
        request: &PickRequest<'_>,
    ) -> usize {
        let (len, slots) = (candidates.len() as u64, self.slots(request));
        let (mut least, mut least_full) = (first, fullness(candidates, first, slots));
        // Every index once, in an order that the key decides: a start, and a step without a common divisor.
        let start = xxh64(&hash.to_le_bytes(), 1) % len;
        let wish = xxh64(&hash.to_le_bytes(), 2) % len;
        let step = (wish..wish + len).find(|step| coprime(*step, len)).unwrap_or(1);
        for jump in 0..len {
            // Indices are below 2^32.
            let index = ((start + jump * step) % len) as usize;
            if index == first || !candidates.eligible(index) {
                continue;
            }
            let full = fullness(candidates, index, slots);
            if full < 1.0 {
                return index;
            }
            if full < least_full {
                (least, least_full) = (index, full);
            }
        }
        least
    }

    /// How many attempts an endpoint of mean weight may have, this one included.
    fn slots(&self, request: &PickRequest<'_>) -> f32 {
        let allowed = ((request.active as u64 + 1) * u64::from(self.balance_factor)).div_ceil(100);
        allowed as f32 / request.available.max(f32::EPSILON)
    }

    fn without_key<C: Candidates + ?Sized>(&self, candidates: &C, request: &PickRequest<'_>) -> Option<Picked> {
        if self.balance_factor == 0 {
            return random::pick(candidates, request.rng).map(|index| Picked::by(PickRule::Chance, index));
        }
        best_of(candidates, request.rng, 2, |index| candidates.in_flight(index) as f32 / candidates.weight(index))
    }
}

/// What an endpoint has, against what it may have: from 1 on it is full.
fn fullness<C: Candidates + ?Sized>(candidates: &C, index: usize, allowed: f32) -> f32 {
    let slots = (allowed * candidates.weight(index) / candidates.len() as f32).ceil().max(1.0);
    candidates.in_flight(index) as f32 / slots
}

fn bucket_of(hash: u64, buckets: usize) -> usize {
    ((u128::from(hash) * buckets as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Group, Member};
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    const MIN: u64 = RingHash::SIZES.0;
    const MAX: u64 = RingHash::SIZES.1;

    fn names(len: usize) -> Vec<String> {
        (0..len).map(|n| format!("10.0.0.{n}:80")).collect()
    }

    fn ring(names: &[String], weights: &[f64], min: u64, max: u64, factor: u32) -> RingHash {
        let endpoints: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        RingHash::new(&endpoints, min, max, factor)
    }

    fn pick(ring: &RingHash, group: &Group, key: u64, active: usize, rng: &Rng) -> usize {
        let hash = Some(xxh64(&key.to_le_bytes(), 0));
        ring.pick(group, &PickRequest { hash, active, ..PickRequest::new(rng) }).unwrap().index()
    }

    /// The rule says whether a key came to its owner.
    #[test]
    fn a_key_whose_owner_is_out_goes_to_the_next() {
        let (ring, rng) = (ring(&names(5), &[1.0; 5], 1_024, MAX, 0), Rng::seeded(1));
        let mut group = Group(vec![Member::ONE; 5]);
        for key in 0..50 {
            let hash = Some(xxh64(&u64::to_le_bytes(key), 0));
            let request = PickRequest { hash, ..PickRequest::new(&rng) };
            let owner = ring.pick(&group, &request).unwrap();
            assert_eq!(owner.rule, PickRule::RingOwner);
            group.0[owner.index()].eligible = false;
            let next = ring.pick(&group, &request).unwrap();
            assert_eq!(next.rule, PickRule::RingNext);
            assert_ne!(next.index(), owner.index());
            group.0[owner.index()].eligible = true;
        }
    }

    /// Envoy's own table of sizes, from its formula.
    #[test]
    fn the_ring_has_the_size_that_envoy_gives_it() {
        for (weights, min, max, expected) in [
            (vec![1.0; 4], 1_024, MAX, 1_024),
            (vec![1.0; 3], 1_024, MAX, 1_026),
            (vec![1.0; 3000], 1_024, MAX, 3_000),
            (vec![1.0, 99.0], 1_024, MAX, 1_100),
            (vec![1.0; 10], 1, 5, 5),
        ] {
            let ring = ring(&names(weights.len()), &weights, min, max, 0);
            assert_eq!(ring.places(), expected, "{} endpoints", weights.len());
            assert!(ring.hashes.is_sorted());
            let naive = |hash: u64| ring.hashes.iter().position(|place| *place >= hash).unwrap_or(0);
            let rng = Rng::seeded(4);
            for _ in 0..200 {
                let hash = rng.next_u64();
                assert_eq!(ring.place(hash), naive(hash));
            }
            for hash in [0, u64::MAX, ring.hashes[0], ring.hashes[0] + 1] {
                assert_eq!(ring.place(hash), naive(hash));
            }
        }
    }

    #[test]
    fn one_that_goes_takes_only_its_own_keys_and_weights_are_shares_of_keys() {
        let (names, rng) = (names(10), Rng::seeded(1));
        let mut weights = vec![1.0; 10];
        weights[4] = 3.0;
        let ring = ring(&names, &weights, 16_384, MAX, 0);
        let mut group = Group(vec![Member::ONE; 10]);
        let before: Vec<usize> = (0..12_000).map(|key| pick(&ring, &group, key, 0, &rng)).collect();
        let of = |index| before.iter().filter(|owner| **owner == index).count();
        assert!((2_700..3_300).contains(&of(4)), "3 of 12 keys: {}", of(4));
        group.0[7].eligible = false;
        for (key, owner) in before.iter().enumerate() {
            let now = pick(&ring, &group, key as u64, 0, &rng);
            assert!(if *owner == 7 { now != 7 } else { now == *owner }, "{key}");
        }
        let without = PickRequest::new(&rng);
        let spread: std::collections::BTreeSet<_> =
            (0..500).map(|_| ring.pick(&group, &without).unwrap().index()).collect();
        assert_eq!(spread.len(), 9, "without a key, anywhere");
    }

    /// With one hot key, the bound holds, the surplus spreads over many, and the control arm breaks.
    #[test]
    fn a_hot_key_is_bounded_and_its_surplus_jumps() {
        let (names, rng) = (names(10), Rng::seeded(1));
        let run = |factor: u32| {
            let ring = ring(&names, &[1.0; 10], MIN, MAX, factor);
            let mut group = Group(vec![Member::ONE; 10]);
            for active in 0..100 {
                let key = if active % 2 == 0 { 7 } else { active as u64 };
                let index = pick(&ring, &group, key, active, &rng);
                group.0[index].in_flight += 1;
                let bound = (((active + 1) * factor as usize).div_ceil(100)).div_ceil(10).max(1);
                assert!(factor == 0 || group.0[index].in_flight <= bound, "{factor} %: {group:?}");
            }
            group.0.iter().map(|member| member.in_flight).max().unwrap()
        };
        assert!(run(0) >= 50, "the control arm has to show the danger");
        assert!(run(125) <= 13);
        assert_eq!(run(100), 10, "perfectly even");
        // The same key takes the same way while nothing changes.
        let ring = ring(&names, &[1.0; 10], MIN, MAX, 125);
        let mut group = Group(vec![Member { in_flight: 3, ..Member::ONE }; 10]);
        let own = (0..10).find(|index| {
            group.0[*index].in_flight = 9;
            let moved = pick(&ring, &group, 7, 36, &rng) != *index;
            group.0[*index].in_flight = 3;
            moved
        });
        assert!(own.is_some());
        let mut full = Group(vec![Member { in_flight: 99, ..Member::ONE }; 10]);
        full.0[5].in_flight = 98;
        assert_eq!(pick(&ring, &full, 7, 0, &rng), 5, "all are full: the least full one");
    }

    /// How full each of a group is, by the words of the documentation: in flight, of its share of what all may have.
    fn full(group: &Group, factor: u32, request: &PickRequest<'_>) -> Vec<f64> {
        let allowed = (f64::from(factor) * (request.active + 1) as f64 / 100.0).ceil() / f64::from(request.available);
        let of = |member: &Member| {
            let slots = (allowed * f64::from(member.weight) / group.0.len() as f64).ceil().max(1.0);
            member.in_flight as f64 / slots
        };
        group.0.iter().map(of).collect()
    }

    proptest! {
        /// Round the ring for the first eligible one; where that is full, another one that is not; where all are, the
        /// least full.
        #[test]
        fn picks_are_those_of_a_naive_reading(
            members in proptest::collection::vec((0..4_u8, 0..3_usize, 0..5_usize), 1..9),
            factor in prop_oneof![1 => Just(0_u32), 4 => 100..250_u32],
            active in 0..20_usize,
            (available, hash, seed) in (0..3_usize, any::<u64>(), any::<u64>()),
        ) {
            let group = Group(members.iter().map(|(out, weight, in_flight)| Member {
                eligible: *out > 0,
                weight: [0.5, 1.0, 2.0][*weight],
                in_flight: *in_flight,
                ..Member::ONE
            }).collect());
            let weights: Vec<f64> = group.0.iter().map(|member| f64::from(member.weight)).collect();
            let (ring, rng) = (ring(&names(group.0.len()), &weights, MIN, MAX, factor), Rng::seeded(seed));
            let available = [0.25, 0.5, 1.0][available];
            let request = PickRequest { hash: Some(hash), active, available, ..PickRequest::new(&rng) };
            let picked = ring.pick(&group, &request).map(|picked| picked.index());
            let eligible = |index: &usize| group.0[*index].eligible;
            let start = ring.hashes.iter().position(|place| *place >= hash).unwrap_or(0);
            let round = ring.owners[start..].iter().chain(&ring.owners[..start]).map(|owner| *owner as usize);
            let own = round.clone().find(eligible);
            let full = full(&group, factor, &request);
            let others: Vec<usize> = (0..group.0.len()).filter(eligible).collect();
            match (picked, own) {
                (None, None) => {}
                (Some(picked), Some(own)) if factor == 0 || full[own] < 1.0 => prop_assert_eq!(picked, own),
                (Some(picked), Some(_)) if others.iter().any(|index| full[*index] < 1.0) => {
                    prop_assert!(eligible(&picked) && full[picked] < 1.0, "{} of {:?} {:?}", picked, full, group);
                }
                (Some(picked), Some(_)) => {
                    let least = others.iter().map(|index| full[*index]).fold(f64::MAX, f64::min);
                    prop_assert!(eligible(&picked) && full[picked] <= least + 1e-6, "{} of {:?}", picked, full);
                }
                wrong => prop_assert!(false, "{:?}", wrong),
            }
        }
    }

    /// Without a key, load counts against weight where load is bounded, and only there.
    #[test]
    fn without_a_key_the_less_busy_for_its_weight() {
        let (names, rng) = (names(2), Rng::seeded(1));
        for (busy, factor, expected) in [
            ([(2.0, 3), (1.0, 2)], 125, Some(0)),
            ([(2.0, 5), (1.0, 2)], 125, Some(1)),
            ([(0.5, 1), (0.25, 0)], 125, Some(1)),
            ([(0.5, 3), (0.5, 4)], 125, Some(0)),
            ([(1.0, 3), (1.0, 4)], 0, None),
        ] {
            let group = Group::of(&busy.map(|(weight, in_flight)| Member { weight, in_flight, ..Member::ONE }));
            let ring = ring(&names, &busy.map(|(weight, _)| f64::from(weight)), MIN, MAX, factor);
            let firsts = (0..200)
                .filter(|_| ring.pick(&group, &PickRequest::new(&rng)).is_some_and(|picked| picked.index() == 0))
                .count();
            let found = if firsts == 200 {
                Some(0)
            } else if firsts == 0 {
                Some(1)
            } else {
                None
            };
            assert_eq!(found, expected, "{busy:?} {factor}: {firsts}");
        }
    }
}
