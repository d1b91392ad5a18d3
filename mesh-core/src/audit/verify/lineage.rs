//! Which record continues which, for the last few thousand: enough to name what happened, in constant memory.

use std::collections::{HashMap, VecDeque};

use crate::audit::chain::Head;

/// Records that are remembered. What was moved further than this is called deleted in one place, a fork in the other.
const REMEMBERED: usize = 8192;
/// Missing records that are waited for.
const AWAITED: usize = 64;

/// How a record stands to those before it, where it does not continue the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinship {
    /// An earlier record continued it: it was missing there, as problem number so-and-so told.
    Awaited(usize),
    /// It was there already.
    Repeated,
    /// Another record continues the same one.
    Sibling,
    /// It continues an earlier record that nothing else continues.
    Only,
    /// What it continues was never seen.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Whether something continues this record.
    continued: HashMap<Head, bool>,
    order: VecDeque<Head>,
    awaited: VecDeque<(Head, usize)>,
    first_prev: Option<Head>,
}

impl Lineage {
    pub(super) fn add(&mut self, prev: Head, hash: Head) -> Kinship {
        self.first_prev.get_or_insert(prev);
        let kinship = match self.continued.get(&prev) {
            _ if self.continued.contains_key(&hash) => Kinship::Repeated,
            continued => match self.awaited.iter().position(|(awaited, _)| *awaited == hash) {
                Some(at) => self.awaited.remove(at).map_or(Kinship::Unknown, |(_, told)| Kinship::Awaited(told)),
                None => match continued {
                    Some(true) => Kinship::Sibling,
                    Some(false) => Kinship::Only,
                    None => Kinship::Unknown,
                },
            },
        };
        if let Some(continued) = self.continued.get_mut(&prev) {
            *continued = true;
        }
        if self.continued.insert(hash, false).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.continued.remove(&oldest);
        }
        kinship
    }

    /// Problem number `told` says that this record is missing.
    pub(super) fn await_hash(&mut self, hash: Head, told: usize) {
        self.awaited.push_back((hash, told));
        self.awaited.truncate(AWAITED);
    }

    /// What the first record of all continues.
    pub(super) fn first_prev(&self) -> Option<Head> {
        self.first_prev
    }
}
