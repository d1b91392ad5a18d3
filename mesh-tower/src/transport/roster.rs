//! The open connections of a listener, and who goes through them when trust or policy changes.
//!
//! Ten thousand tasks that all wake at a new revision and verify signatures would stop every request for half a second.
//! So one task walks from connection to connection, and takes a second for all of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::ground::Shared;
use super::recheck::Standing;

/// How long one walk through all connections takes at least, if they are many: 36 us of each second's work for each
/// of 10,000 are 0.4 s.
const SPREAD: Duration = Duration::from_secs(1);
/// Connections that are judged in one go, about 0.6 ms.
const BATCH: usize = 16;
/// Timers are no finer than a millisecond: more pauses would take longer than [`SPREAD`].
const MAX_PAUSES: usize = 500;
/// Calendar time may jump while timers do not: our own certificate is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

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

    fn len(&self) -> usize {
        self.open().connections.len()
    }

    /// At most `count` connections that came after `last`.
    fn after(&self, last: u64, count: usize) -> Vec<(u64, Arc<Standing>)> {
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

impl Shared {
    /// Judges every open connection again whenever trust or policy changed, when our own certificate expires, and when
    /// plain text is taken no more.
    ///
    /// Runs until it is dropped.
    pub(crate) async fn patrol(&self) {
        let mut identities = self.ground.identity.subscribe();
        let mut revisions = self.ground.revision.subscribe();
        loop {
            // At the start, too: connections may have come before this task was subscribed.
            self.walk().await;
            loop {
                let left = self.own_time_left();
                let plaintext = self.plaintext_left();
                let left = left.into_iter().chain(plaintext).min();
                tokio::select! {
                    _ = identities.changed() => break,
                    _ = revisions.changed() => break,
                    () = sleep(left.map_or(SPREAD, |left| left.min(CLOCK_CHECK))) => {}
                }
                if self.own_time_left().is_none() || (plaintext.is_some() && self.plaintext_left().is_none()) {
                    break;
                }
            }
        }
    }

    /// How long our own certificate is good for; `None` once it has expired.
    fn own_time_left(&self) -> Option<Duration> {
        let end = self.ground.identity.load().svid()?.not_after();
        end.duration_since(self.ground.clock.now()).ok().filter(|left| !left.is_zero())
    }

    /// A revision that comes meanwhile is used at once, and brings the next walk.
    async fn walk(&self) {
        let open = self.roster.len();
        let batches = open.div_ceil(BATCH);
        let pause = SPREAD / u32::try_from(batches.clamp(1, MAX_PAUSES)).unwrap_or(u32::MAX);
        let paused = batches.div_ceil(MAX_PAUSES).max(1);
        let mut last = 0;
        for batch in 1.. {
            let standings = self.roster.after(last, BATCH);
            for (id, standing) in &standings {
                self.recheck(standing);
                last = *id;
            }
            self.ground.metrics.transport.rechecked(standings.len());
            if standings.len() < BATCH {
                break;
            }
            if batch % paused == 0 {
                sleep(pause).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}
