//! Any endpoint, in proportion to the weights.

use super::Candidates;
use super::best_of::weighted;
use crate::rng::Rng;

/// Draws before the scan. With half the set out, 1 pick in 4,000 scans.
const DRAWS: usize = 12;

/// An eligible one, drawn in proportion to its weight; constant expected time unless most are out.
pub(super) fn pick<C: Candidates + ?Sized>(candidates: &C, rng: &Rng) -> Option<usize> {
    if candidates.is_empty() {
        return None;
    }
    let drawn = (0..DRAWS).map(|_| candidates.draw(rng)).find(|index| candidates.eligible(*index));
    drawn.or_else(|| weighted(candidates, None, rng))
}
