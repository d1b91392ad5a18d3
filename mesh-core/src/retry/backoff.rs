//! Waits that grow and do not march in step.

use std::time::Duration;

use crate::rng::Rng;

/// Exponential backoff with full jitter.
///
/// Uniform in `0..min(base * 2^n, max)`. (Envoy; AWS "Exponential Backoff And Jitter")
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first upper bound.
    pub base: Duration,
    /// The last upper bound.
    pub max: Duration,
}

impl Backoff {
    /// The wait before retry `n`, counted from 0.
    pub fn wait(&self, n: u32, rng: &Rng) -> Duration {
        let bound = self.base.saturating_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX)).min(self.max);
        bound.mul_f64(rng.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum_and_waits_fill_it() {
        let backoff = Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        let rng = Rng::seeded(3);
        for (n, bound) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250), (u32::MAX, 250)] {
            let bound = Duration::from_millis(bound);
            let waits: Vec<_> = (0..1_000).map(|_| backoff.wait(n, &rng)).collect();
            assert!(waits.iter().all(|wait| *wait < bound), "retry {n}");
            assert!(waits.iter().any(|wait| *wait > bound.mul_f64(0.9)), "retry {n}");
            assert!(waits.iter().any(|wait| *wait < bound.mul_f64(0.1)), "retry {n}: the jitter is full");
        }
    }
}
