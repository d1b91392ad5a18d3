//! Which endpoints are in force while a source says that many, or all, are gone.
//!
//! Pure: it takes the time and gives the same answer for the same words.
//!
//! # What counts as a shrink
//!
//! The *accepted* set is the last one that was believed whole. Of a new set, the **loss** is the number of endpoints that
//! it has less than the accepted one, without those that have a tombstone. An endpoint that takes another's place is no
//! loss, whatever its key: deployments that swap all pods pass, and growth does. Losses that were accepted less than `confirm_after`
//! ago are added to both sides, so that a set that bleeds to death one by one is noticed as well; growth pays them back.
//!
//! | a new set | is |
//! |---|---|
//! | without loss | accepted |
//! | with a loss of at most `shrink` | accepted |
//! | with a larger loss, or any loss if the source calls it partial | held |
//! | without any endpoint, unless all that were there have tombstones | held |
//!
//! While a set is held, its endpoints are in force **and** those that it lacks. Who has been missing for `confirm_after` (for
//! `empty_after` where nobody is left) is then let go. A source that cannot be read confirms nothing: the time runs anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Endpoint, EndpointKey, EndpointSet};
use crate::config::HoldConfig;

/// What became of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in force as it is.
    Accepted,
    /// What it lacks stays in force too.
    Held {
        /// Nobody at all was named.
        empty: bool,
        /// How many stay in force although they were not named.
        kept: usize,
        /// How many of those that were held before had to be let go unconfirmed: a source that names others each time
        /// must not fill the memory.
        crowded_out: usize,
    },
}

/// What a cluster knows of its endpoints and of how sure it is.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// How many there were when a set was last believed whole.
    accepted: usize,
    in_force: BTreeMap<EndpointKey, Endpoint>,
    /// Those in force that the source does not name, and since when.
    missing: BTreeMap<EndpointKey, Instant>,
    /// Accepted losses and when, oldest first.
    losses: VecDeque<(Instant, usize)>,
    /// The source could not be read since its last word.
    interrupted: bool,
}

impl Hold {
    /// Held endpoints beyond this many, or twice the accepted set if that is more, are let go.
    const MIN_ROOM: usize = 16;

    /// Puts a whole set in force that nobody need confirm.
    pub(crate) fn begin(&mut self, endpoints: &[Endpoint]) {
        *self = Self::default();
        self.replace(endpoints);
        self.accepted = self.in_force.len();
    }

    /// What the source says now.
    pub(crate) fn judge(&mut self, set: &EndpointSet, config: &HoldConfig, now: Instant) -> Verdict {
        if std::mem::take(&mut self.interrupted) {
            self.missing.values_mut().for_each(|since| *since = now);
        }
        self.losses.retain(|(at, _)| now < *at + config.confirm_after);
        let before = std::mem::take(&mut self.in_force);
        self.replace(&set.endpoints);
        let vanished: Vec<_> = before.into_iter().filter(|(key, _)| !self.in_force.contains_key(key)).collect();
        let excused = vanished.iter().filter(|(key, _)| set.removed.contains(key)).count();
        let loss = self.accepted.saturating_sub(self.in_force.len() + excused);
        let recent: usize = self.losses.iter().map(|(_, loss)| loss).sum();
        let share = (loss + recent) as f64 / (self.accepted + recent).max(1) as f64;
        let empty = self.in_force.is_empty() && excused < vanished.len();
        if !empty && (loss == 0 || (share <= config.shrink && !set.partial)) {
            self.accept(loss, now);
            return Verdict::Accepted;
        }
        self.accepted = self.accepted.saturating_sub(excused);
        for (key, endpoint) in vanished {
            if !set.removed.contains(&key) {
                self.missing.entry(key.clone()).or_insert(now);
                self.in_force.insert(key, endpoint);
            }
        }
        self.missing.retain(|key, _| self.in_force.contains_key(key));
        for endpoint in &set.endpoints {
            self.missing.remove(&endpoint.key);
        }
        let crowded_out = self.make_room();
        Verdict::Held { empty, kept: self.missing.len(), crowded_out }
    }

    /// The source could not be read.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// When somebody may be let go next.
    pub(crate) fn due(&self, config: &HoldConfig) -> Option<Instant> {
        let wait = self.patience(config).filter(|_| !self.interrupted)?;
        self.missing.values().min().map(|since| *since + wait)
    }

    /// Lets go who has been missing for long enough; how many those were.
    pub(crate) fn confirm(&mut self, config: &HoldConfig, now: Instant) -> usize {
        let Some(wait) = self.patience(config).filter(|_| !self.interrupted) else { return 0 };
        let before = self.in_force.len();
        self.in_force.retain(|key, _| self.missing.get(key).is_none_or(|since| now < *since + wait));
        self.missing.retain(|_, since| now < *since + wait);
        if self.missing.is_empty() {
            self.losses.clear();
            self.accepted = self.in_force.len();
        }
        before - self.in_force.len()
    }

    /// Everybody in force, in the order of their keys.
    pub(crate) fn in_force(&self) -> Vec<Endpoint> {
        self.in_force.values().cloned().collect()
    }

    /// How many are in force although the source does not name them.
    pub(crate) fn held(&self) -> usize {
        self.missing.len()
    }

    fn patience(&self, config: &HoldConfig) -> Option<Duration> {
        let nobody = self.missing.len() == self.in_force.len();
        if nobody { config.empty_after } else { Some(config.confirm_after) }
    }

    fn replace(&mut self, endpoints: &[Endpoint]) {
        self.in_force.clear();
        for endpoint in endpoints {
            self.in_force.entry(endpoint.key.clone()).or_insert_with(|| endpoint.clone());
        }
    }

    fn accept(&mut self, loss: usize, now: Instant) {
        let mut gain = self.in_force.len().saturating_sub(self.accepted);
        while let Some((_, latest)) = self.losses.back_mut().filter(|_| gain > 0) {
            let paid = gain.min(*latest);
            (gain, *latest) = (gain - paid, *latest - paid);
            if *latest == 0 {
                self.losses.pop_back();
            }
        }
        if loss > 0 {
            self.losses.push_back((now, loss));
        }
        self.accepted = self.in_force.len();
        self.missing.clear();
    }

    /// Who has been missing longest goes first.
    fn make_room(&mut self) -> usize {
        let surplus = self.missing.len().saturating_sub((2 * self.accepted).max(Self::MIN_ROOM));
        let mut oldest: Vec<_> = self.missing.iter().map(|(key, since)| (*since, key.clone())).collect();
        oldest.sort_unstable();
        for (_, key) in oldest.into_iter().take(surplus) {
            self.missing.remove(&key);
            self.in_force.remove(&key);
        }
        surplus
    }
}

#[cfg(test)]
mod tests;
