//! Places for requests: in the process, and in the share of one peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many requests hold a place.
#[derive(Debug, Default)]
pub(crate) struct Places(AtomicUsize);

/// One place, given back on drop.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

/// A place of its peer's and one of all.
pub(crate) type AdmissionPermit = (Place, Place);

impl Places {
    /// How many are held now.
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Place {
    /// A place, however many are taken.
    pub(crate) fn beyond(places: &Arc<Places>) -> Self {
        places.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(places))
    }

    /// A place, unless `limit` are taken.
    pub(crate) fn take(places: &Arc<Places>, limit: usize) -> Option<Self> {
        let permit = Self(Arc::clone(places));
        let before = places.0.fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(permit)
    }
}

impl Drop for Place {
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
        let one = Place::take(&places, 2).unwrap();
        let two = Place::take(&places, 2).unwrap();
        assert!(Place::take(&places, 2).is_none());
        drop(one);
        let three = Place::take(&places, 2).unwrap();
        assert!(Place::take(&places, 1).is_none());
        drop((two, three));
        let beyond = [(); 3].map(|()| Place::beyond(&places));
        assert!(Place::take(&places, 3).is_none());
        drop(beyond);
        assert_eq!(places.held(), 0);
    }
}
