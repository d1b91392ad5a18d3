//! Randomness as a dependency, so that a choice can be replayed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A seeded source of random numbers, shared without a lock.
///
/// The sequence is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): statistically sound for sampling and jitter, and
/// **not** for secrets. Clones share one sequence.
#[derive(Debug, Clone)]
pub struct Rng {
    state: Arc<AtomicU64>,
}

impl Rng {
    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Self {
        Self { state: Arc::new(AtomicU64::new(seed)) }
    }

    /// A seed that differs in every process and call.
    pub fn from_entropy() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u64))
    }

    /// A sequence of its own, derived from this one.
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }

    /// A sequence that begins where this one is; this one does not move.
    ///
    /// For looking at a choice before it is made.
    pub fn preview(&self) -> Self {
        Self::seeded(self.state.load(Ordering::Relaxed))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&self) -> u64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.state.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    ///
    /// The bias is below `n / 2^64`.
    #[inline]
    pub fn below(&self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number in `0.0..1.0`.
    #[inline]
    pub fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_repeat_and_choices_are_even() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        let mut counts = [0_u32; 5];
        for _ in 0..50_000 {
            let (x, y) = (a.below(5), b.below(5));
            assert_eq!(x, y);
            counts[x] += 1;
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert_eq!(a.below(0), 0);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&a.unit())));
    }
}
