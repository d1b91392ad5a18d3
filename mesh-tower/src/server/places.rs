//! Places in the concurrency limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many requests of one mesh hold a place.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicUsize);

/// A place in the concurrency limit, given back on drop.
#[derive(Debug)]
pub(super) struct AdmissionPermit(Arc<Places>);

impl AdmissionPermit {
    /// A place, unless `limit` are taken.
    pub(super) fn take(places: &Arc<Places>, limit: usize) -> Option<Self> {
        let permit = Self(Arc::clone(places));
        let before = places.0.fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(permit)
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_a_refusal_takes_none() {
        let places = Arc::new(Places::default());
        let one = AdmissionPermit::take(&places, 2).unwrap();
        let two = AdmissionPermit::take(&places, 2).unwrap();
        assert!(AdmissionPermit::take(&places, 2).is_none());
        drop(one);
        let three = AdmissionPermit::take(&places, 2).unwrap();
        assert!(AdmissionPermit::take(&places, 1).is_none());
        drop((two, three));
        assert_eq!(places.0.load(Ordering::Relaxed), 0);
    }
}
