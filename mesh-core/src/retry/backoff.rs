//! Waits that grow and do not march in step.

use std::time::Duration;

use crate::rng::Rng;

/// Exponential with full jitter: uniform in `0..min(base * 2^n, max)`. (Envoy; AWS "Exponential Backoff And Jitter")
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
