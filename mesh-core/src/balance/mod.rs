//! Which of the available endpoints takes the next attempt.
//!
//! Endpoints differ, and what is known of them is seconds old. Sending everything to the one that looks best herds all
//! callers onto it; sending blindly keeps feeding the one that is slow. The better of two random ones does neither
//! (Mitzenmacher, "The Power of Two Choices", 1996), at the same cost for two endpoints and for ten thousand.
//!
//! Pickers know no transport: they see a set by index, in [`Candidates`]. What stands in for "better" is the set's
//! own affair; here it is [`PeakEwma`] latency times load.

mod peak_ewma;
mod two_choices;

pub(crate) use peak_ewma::millis;
pub use peak_ewma::{Decay, PeakEwma, Tick};
pub use two_choices::TwoChoices;

use crate::rng::Rng;

/// What a picker sees of a set of endpoints. Indices run from 0 to `len`, exclusive.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one may be picked.
    fn eligible(&self, index: usize) -> bool;

    /// What one more request to it would cost; smaller is better.
    fn cost(&self, index: usize) -> f64;

    /// Its share relative to others; 0 counts as 1.
    fn weight(&self, index: usize) -> u32;

    /// At least as large as any weight; 1 says that all are equal.
    fn max_weight(&self) -> u32;
}

/// Chooses among candidates. Must not block, allocate or keep state between calls that `&self` does not show.
pub trait Picker {
    /// An eligible index; `None` only if there is none.
    fn pick<C: Candidates>(&self, candidates: &C, rng: &Rng) -> Option<usize>;
}
