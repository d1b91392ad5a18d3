//! The open connections of a listener.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::standing::Standing;

/// The open connections of one listener. Its lock is taken when a connection begins and ends, never for a request.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<Standing>>,
}

/// A place in the roster until it is dropped.
#[derive(Debug)]
pub(super) struct Enrolled<'a> {
    roster: &'a Roster,
    id: u64,
}

impl Roster {
    pub(super) fn enrol(&self, standing: Arc<Standing>) -> Enrolled<'_> {
        let mut open = self.open();
        open.next += 1;
        let id = open.next;
        open.connections.insert(id, standing);
        Enrolled { roster: self, id }
    }

    pub(super) fn len(&self) -> usize {
        self.open().connections.len()
    }

    /// At most `count` connections that came after `last`.
    pub(super) fn after(&self, last: u64, count: usize) -> Vec<(u64, Arc<Standing>)> {
        let open = self.open();
        let rest = open.connections.range((Bound::Excluded(last), Bound::Unbounded)).take(count);
        rest.map(|(id, standing)| (*id, Arc::clone(standing))).collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        self.roster.open().connections.remove(&self.id);
    }
}
