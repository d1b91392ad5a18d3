//! When the snapshot of a cluster is written.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::discover::{Endpoint, SnapshotFile};
use crate::telemetry::{ClusterMetrics, DiscoveryEvent};

/// Changes often come in a row.
const SETTLE: Duration = Duration::from_secs(1);
/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest, while the source is well: so old is a snapshot at most of what was true until the process ended.
const REFRESH: Duration = Duration::from_secs(600);

/// Writes soon after a change, never often, and never in the way of the source.
#[derive(Debug)]
pub(super) struct Keep {
    file: Option<SnapshotFile>,
    writing: Option<JoinHandle<Result<u64, String>>>,
    /// What the last write came to, until it is noted.
    ended: Option<Result<u64, String>>,
    last: Option<Instant>,
    /// When to write next.
    next: Option<Instant>,
    /// What is in force is not what was written last.
    dirty: bool,
    well: bool,
}

impl Keep {
    pub(super) fn new(file: Option<SnapshotFile>) -> Self {
        Self { file, writing: None, ended: None, last: None, next: None, dirty: false, well: false }
    }

    /// The endpoints in force have changed, or may have.
    pub(super) fn changed(&mut self, now: Instant) {
        if self.file.is_some() {
            self.dirty = true;
            let soon = (now + SETTLE).max(self.last.map_or(now, |last| last + PAUSE));
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
    }

    /// Whether the source can be read, so that what is in force is known to be true.
    pub(super) fn refresh(&mut self, well: bool) {
        self.well = well;
    }

    /// Until there is something to do. Cancel safe.
    pub(super) async fn turn(&mut self) {
        if self.ended.is_some() {
            return;
        }
        match (&mut self.writing, self.next) {
            (Some(writing), _) => {
                self.ended = Some(writing.await.unwrap_or_else(|_| Err("writing was cut off".to_owned())));
                self.writing = None;
            }
            (None, Some(next)) => sleep_until(next).await,
            (None, None) => pending().await,
        }
    }

    /// Notes what became of a write, or begins one.
    pub(super) fn work(
        &mut self,
        cluster: &Arc<str>,
        metrics: &ClusterMetrics,
        endpoints: impl FnOnce() -> Vec<Endpoint>,
        now: Instant,
    ) {
        match self.ended.take() {
            Some(Ok(at)) => _ = metrics.snapshot_timestamp.set(i64::try_from(at).unwrap_or(i64::MAX)),
            Some(Err(why)) => {
                metrics.discovery.inc(DiscoveryEvent::SnapshotFailed);
                tracing::warn!(cluster = &**cluster, why, "the last good endpoints could not be written to disk");
            }
            None => {
                // What is not known to be true any more is not made to look new.
                let worth = self.dirty || self.well;
                let Some(file) = self.file.as_ref().filter(|_| worth) else {
                    self.next = None;
                    return;
                };
                self.writing = Some(file.write(endpoints()));
                (self.last, self.next, self.dirty) = (Some(now), Some(now + REFRESH), false);
            }
        }
    }
}
