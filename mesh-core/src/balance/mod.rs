//! Which of the available endpoints takes the next attempt.
//!
//! Endpoints differ, and what is known of them is seconds old. Sending everything to the one that looks best herds all
//! callers onto it; sending blindly keeps feeding the one that is slow. The better of two random ones does neither
//! (Mitzenmacher, "The Power of Two Choices", 1996), at the same cost for two endpoints and for ten thousand. Where one
//! key must keep meeting one endpoint, or where something else decides, there are other policies:
//!
//! | policy | chooses | knows |
//! |---|---|---|
//! | `peak_ewma` | the better of two distinct random ones | latency, load, failures |
//! | `least_request` | the best of a few distinct random ones | load |
//! | `round_robin` | one after the other, from a random start | weights |
//! | `random` | any | weights |
//! | `ring_hash` | by a key of the request, on a consistent ring ([`RingHash`]) | weights; load, if bounded |
//! | your own | a [`Picker`], registered with [`MeshBuilder::balancer`](crate::MeshBuilder::balancer) | what [`Candidates`] shows |
//!
//! Which endpoints are candidates - of which priority and locality, and whether those that are out count - is the
//! cluster's affair, by the arithmetic of [`spread`]. A picker sees one group by index, in [`Candidates`], and must not
//! keep an index: the group behind it changes.

mod best_of;
mod peak_ewma;
mod picked;
mod policy;
mod random;
mod ring_hash;
mod round_robin;
mod slow_start;
pub mod spread;
mod weights;
mod xxh64;

pub(crate) use peak_ewma::millis;
pub use peak_ewma::{Decay, PeakEwma, Tick};
pub use picked::PickRule;
pub(crate) use picked::Picked;
pub(crate) use policy::{Policy, latency_by_load};
pub use ring_hash::RingHash;
pub use slow_start::SlowStart;
pub(crate) use weights::Weights;
pub use xxh64::xxh64;

use std::fmt;
use std::sync::Arc;

use crate::discover::Endpoint;
use crate::rng::Rng;

/// What a picker sees of a group of endpoints.
///
/// Indices run from 0 to `len`, exclusive, and hold for one pick.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one may be picked. An index beyond the last may not.
    fn eligible(&self, index: usize) -> bool;

    /// What discovery said of it; `None` beyond the last.
    fn endpoint(&self, index: usize) -> Option<&Endpoint>;

    /// Its share, where 1 is the mean of its priority; slow start is not in it.
    fn weight(&self, index: usize) -> f32;

    /// Attempts that are under way there.
    fn in_flight(&self, index: usize) -> usize;

    /// Its peak-EWMA latency in seconds, failures counted as slow; never 0.
    fn latency(&self, index: usize) -> f32;

    /// Any index, eligible or not, in proportion to the weights; slow start is in it.
    fn draw(&self, rng: &Rng) -> usize;

    /// Two draws. They may be the same one; where all weigh the same they are not, if there are two.
    fn pair(&self, rng: &Rng) -> (usize, usize) {
        (self.draw(rng), self.draw(rng))
    }

    /// Whether slow start lets this pick of it pass; for policies that do not [`draw`](Self::draw).
    fn warm(&self, _index: usize, _rng: &Rng) -> bool {
        true
    }
}

/// The request that an endpoint is picked for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PickRequest<'a> {
    /// The hash of its key, if the configuration names one and the request has it: XXH64, seed 0.
    pub hash: Option<u64>,
    /// Randomness. Never anything else: a choice can be replayed.
    pub rng: &'a Rng,
    /// Attempts under way in the whole cluster; counted only where load is bounded.
    pub(crate) active: usize,
    /// The share of the group that may be picked, 0 to 1.
    pub(crate) available: f32,
    /// Nothing is picked: it is asked what would be.
    pub(crate) preview: bool,
}

impl<'a> PickRequest<'a> {
    /// A request without a key.
    pub fn new(rng: &'a Rng) -> Self {
        Self { hash: None, rng, active: 0, available: 1.0, preview: false }
    }
}

/// Chooses among candidates: a balancing policy.
///
/// Called for every attempt, from many threads at once: it must not block or allocate, and what it keeps it keeps in
/// atomics. Fails open: an answer that is not eligible counts as none, and any eligible endpoint is taken then.
///
/// ```
/// use mesh_core::balance::{Candidates, Picker, PickRequest};
///
/// /// The first endpoint that is not busy.
/// #[derive(Debug)]
/// struct FirstIdle;
///
/// impl Picker for FirstIdle {
///     fn pick(&self, candidates: &dyn Candidates, request: &PickRequest<'_>) -> Option<usize> {
///         let mut eligible = (0..candidates.len()).filter(|index| candidates.eligible(*index));
///         let idle = eligible.clone().find(|index| candidates.in_flight(*index) == 0);
///         idle.or_else(|| eligible.nth(request.rng.below(eligible.clone().count())))
///     }
/// }
/// let builder = mesh_core::Mesh::builder().balancer("first_idle", |_settings, _context, _errors| {
///     Some(std::sync::Arc::new(FirstIdle) as std::sync::Arc<dyn Picker>)
/// });                                                       // clusters: { x: { balance: { policy: first_idle } } }
/// # let _ = builder;
/// ```
pub trait Picker: fmt::Debug + Send + Sync + 'static {
    /// An eligible index; `None` only if there is none.
    fn pick(&self, candidates: &dyn Candidates, request: &PickRequest<'_>) -> Option<usize>;

    /// What picks from this group on, in the order of its indices; `None`: this one does.
    ///
    /// Called whenever a group changes, off the request path: the place for tables that a pick looks up.
    fn renew(&self, _group: &[&Endpoint]) -> Option<Arc<dyn Picker>> {
        None
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
