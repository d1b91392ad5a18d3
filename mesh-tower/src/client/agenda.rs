//! Whose turn it is among many endpoints, at a cost that does not grow with those whose turn it is not.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use mesh_core::cluster::EndpointState;
use mesh_core::discover::EndpointKey;
use tokio::time::Instant;

use super::pool::Pool;

type State = Arc<EndpointState<Pool>>;

/// Endpoints by the time of their next turn.
#[derive(Default)]
pub(super) struct Agenda {
    /// Those of the set, and whether their turn is under way.
    known: HashMap<EndpointKey, (State, bool)>,
    /// Times first; an entry whose endpoint has left is passed over when its time comes.
    turns: BinaryHeap<Reverse<(Instant, EndpointKey)>>,
}

impl Agenda {
    /// Puts a set in the place of the last one. Whoever is new gets a turn at `first`; whoever stays keeps theirs.
    pub(super) fn renew(&mut self, set: &[State], mut first: impl FnMut() -> Instant) {
        for state in set {
            let key = &state.endpoint().key;
            match self.known.entry(key.clone()) {
                // It may have changed its weight or address.
                Entry::Occupied(mut known) => known.get_mut().0 = Arc::clone(state),
                Entry::Vacant(new) => {
                    new.insert((Arc::clone(state), false));
                    self.turns.push(Reverse((first(), key.clone())));
                }
            }
        }
        if self.known.len() > set.len() {
            let here: HashSet<&EndpointKey> = set.iter().map(|state| &state.endpoint().key).collect();
            self.known.retain(|key, _| here.contains(key));
            // Or one that comes back would have two turns.
            self.turns.retain(|Reverse((_, key))| here.contains(key));
        }
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.turns.peek().map(|Reverse((at, _))| *at)
    }

    /// One whose turn it is: under way until [`again`](Self::again).
    pub(super) fn due(&mut self, now: Instant) -> Option<State> {
        loop {
            self.next().filter(|at| *at <= now)?;
            let Reverse((_, key)) = self.turns.pop()?;
            if let Some((state, under_way)) = self.known.get_mut(&key) {
                *under_way = true;
                return Some(Arc::clone(state));
            }
        }
    }

    /// Its turn is over, and the next one is at `at`; nothing, if it has left.
    pub(super) fn again(&mut self, key: EndpointKey, at: Instant) {
        // One that left and came back meanwhile has a new turn already.
        if let Some((_, under_way)) = self.known.get_mut(&key).filter(|(_, under_way)| *under_way) {
            *under_way = false;
            self.turns.push(Reverse((at, key)));
        }
    }
}
