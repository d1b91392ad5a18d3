//! Ages that are not all reached at once.

use std::time::Duration;

use mesh_core::rng::Rng;

/// The most by which an age is less than it was configured.
const JITTER: f64 = 0.1;

/// Up to 10 % less than `age`, by chance, so that what began together does not end together.
pub(crate) fn spread(age: Duration, rng: &Rng) -> Duration {
    age.mul_f64(1.0 - JITTER * rng.unit())
}
