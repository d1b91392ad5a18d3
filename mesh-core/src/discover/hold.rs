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
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It is in force as it is.
    Accepted,
    /// What it lacks stays in force too.
    Held {
        /// Everybody in force now, in the order of their keys.
        in_force: Vec<Endpoint>,
        /// Nobody at all was named.
        empty: bool,
        /// How many stay in force although they were not named.
        kept: usize,
        /// How many of those that were held before had to be let go unconfirmed: a source that names others each time
        /// must not fill the memory.
        crowded_out: usize,
    },
}

/// How sure a cluster is of its endpoints. Who they are it knows itself, and says each time: a copy would take more than
/// everything else that is known of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    /// How many there were when a set was last believed whole.
    accepted: usize,
    /// How many are in force.
    known: usize,
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
        let known = by_key(endpoints).len();
        *self = Self { accepted: known, known, ..Self::default() };
    }

    /// What the source says now; `before`: who has been in force until now, no key twice.
    pub(crate) fn judge(
        &mut self,
        set: &EndpointSet,
        before: Vec<Endpoint>,
        config: &HoldConfig,
        now: Instant,
    ) -> Verdict {
        if std::mem::take(&mut self.interrupted) {
            self.missing.values_mut().for_each(|since| *since = now);
        }
        self.losses.retain(|(at, _)| now < *at + config.confirm_after);
        let named = by_key(&set.endpoints);
        let vanished: Vec<_> = before.into_iter().filter(|endpoint| !named.contains_key(&endpoint.key)).collect();
        let excused = vanished.iter().filter(|endpoint| set.removed.contains(&endpoint.key)).count();
        let loss = self.accepted.saturating_sub(named.len() + excused);
        let recent: usize = self.losses.iter().map(|(_, loss)| loss).sum();
        let share = (loss + recent) as f64 / (self.accepted + recent).max(1) as f64;
        let empty = named.is_empty() && excused < vanished.len();
        if !empty && (loss == 0 || (share <= config.shrink && !set.partial)) {
            self.known = named.len();
            self.accept(loss, now);
            return Verdict::Accepted;
        }
        self.accepted = self.accepted.saturating_sub(excused);
        let mut in_force: BTreeMap<EndpointKey, Endpoint> =
            named.into_iter().map(|(key, endpoint)| (key.clone(), endpoint.clone())).collect();
        for endpoint in vanished {
            if !set.removed.contains(&endpoint.key) {
                self.missing.entry(endpoint.key.clone()).or_insert(now);
                in_force.insert(endpoint.key.clone(), endpoint);
            }
        }
        self.missing.retain(|key, _| in_force.contains_key(key));
        for endpoint in &set.endpoints {
            self.missing.remove(&endpoint.key);
        }
        let crowded_out = self.make_room(&mut in_force);
        self.known = in_force.len();
        let in_force = in_force.into_values().collect();
        Verdict::Held { in_force, empty, kept: self.missing.len(), crowded_out }
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

    /// Lets go who has been missing for long enough, of those `in_force`; how many those were.
    pub(crate) fn confirm(&mut self, in_force: &mut Vec<Endpoint>, config: &HoldConfig, now: Instant) -> usize {
        let Some(wait) = self.patience(config).filter(|_| !self.interrupted) else { return 0 };
        let before = in_force.len();
        in_force.retain(|endpoint| self.missing.get(&endpoint.key).is_none_or(|since| now < *since + wait));
        self.missing.retain(|_, since| now < *since + wait);
        self.known = in_force.len();
        if self.missing.is_empty() {
            self.losses.clear();
            self.accepted = self.known;
        }
        before - self.known
    }

    /// How many are in force although the source does not name them.
    pub(crate) fn held(&self) -> usize {
        self.missing.len()
    }

    fn patience(&self, config: &HoldConfig) -> Option<Duration> {
        let nobody = self.missing.len() == self.known;
        if nobody { config.empty_after } else { Some(config.confirm_after) }
    }

    fn accept(&mut self, loss: usize, now: Instant) {
        let mut gain = self.known.saturating_sub(self.accepted);
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
        self.accepted = self.known;
        self.missing.clear();
    }

    /// Who has been missing longest goes first.
    fn make_room(&mut self, in_force: &mut BTreeMap<EndpointKey, Endpoint>) -> usize {
        let surplus = self.missing.len().saturating_sub((2 * self.accepted).max(Self::MIN_ROOM));
        let mut oldest: Vec<_> = self.missing.iter().map(|(key, since)| (*since, key.clone())).collect();
        oldest.sort_unstable();
        for (_, key) in oldest.into_iter().take(surplus) {
            self.missing.remove(&key);
            in_force.remove(&key);
        }
        surplus
    }
}

/// Of two with one key the first counts.
fn by_key(endpoints: &[Endpoint]) -> BTreeMap<&EndpointKey, &Endpoint> {
    let mut by_key = BTreeMap::new();
    for endpoint in endpoints {
        by_key.entry(&endpoint.key).or_insert(endpoint);
    }
    by_key
}

#[cfg(test)]
pub(super) mod tests;
