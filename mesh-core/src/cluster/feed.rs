//! From a resolver's stream into a cluster.

mod keep;

use std::future::{pending, poll_fn};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Core;
use crate::config::HoldConfig;
use crate::discover::{Endpoint, EndpointSet, Feed, Hold, Snapshot, SnapshotFile, Update, Verdict};
use crate::telemetry::DiscoveryEvent;
use keep::Keep;

/// How long the source has for its first word before a snapshot takes its place, and a disk for the snapshot.
const GRACE: Duration = Duration::from_millis(500);

/// What wakes the task.
enum Next {
    Word(Update),
    /// Held endpoints may be let go.
    Due,
    /// The source has had its time.
    Silence,
    /// All endpoints are out.
    OutOfReach,
    /// It is time to write, or writing has ended.
    Disk,
    /// The cluster has other settings, or its first set.
    Changed,
}

/// See [`Cluster::follow`](super::Cluster::follow).
pub(super) async fn follow<T: Send + Sync + 'static>(
    core: Weak<Core<T>>,
    mut cluster: watch::Receiver<bool>,
    out_of_reach: Arc<Notify>,
    feed: Feed,
) {
    let mut updates = feed.resolver.watch();
    let mut snapshot = match &feed.snapshot {
        Some(file) => read(&core, file).await,
        None => None,
    };
    let mut hold = Hold::default();
    if let Some(snapshot) = &snapshot {
        hold.begin(&snapshot.endpoints);
    }
    let mut silence = snapshot.is_some().then(|| Instant::now() + GRACE);
    let mut keep = Keep::new(feed.snapshot);
    let mut due = None;
    loop {
        let next = tokio::select! {
            biased;
            alive = cluster.changed() => match alive {
                Ok(()) => Next::Changed,
                Err(_) => return,
            },
            update = poll_fn(|context| updates.as_mut().poll_next(context)) => match update {
                Some(update) => Next::Word(update),
                None => return,
            },
            () = reached(due) => Next::Due,
            () = reached(silence) => Next::Silence,
            () = out_of_reach.notified() => Next::OutOfReach,
            () = keep.turn() => Next::Disk,
        };
        let (Some(core), now) = (core.upgrade(), Instant::now()) else { return };
        match next {
            Next::Changed => {}
            Next::OutOfReach => feed.resolver.resolve_now(),
            Next::Disk => keep.work(&core.shared.name, &core.shared.metrics, || core.in_force(), now),
            Next::Due => {
                if core.confirm(&mut hold, now) {
                    keep.changed(now);
                }
            }
            Next::Silence => core.use_snapshot(snapshot.take(), now),
            Next::Word(update) => {
                silence = None;
                let mut unused = None;
                match update {
                    Update::Stale(_) => core.use_snapshot(snapshot.take(), now),
                    Update::Endpoints(_) | Update::Gone => {
                        unused = snapshot.take();
                        keep.changed(now);
                    }
                }
                keep.refresh(!matches!(update, Update::Stale(_)));
                core.apply(update, &mut hold, unused, now);
            }
        }
        if snapshot.is_none() {
            silence = None;
        }
        due = hold.due(&core.hold_config());
    }
}

/// The snapshot, if it can be used. A disk that hangs does not hold up the source.
async fn read<T>(core: &Weak<Core<T>>, file: &SnapshotFile) -> Option<Snapshot> {
    let why = match timeout(GRACE, file.read()).await {
        Ok(Ok(snapshot)) => return snapshot.filter(|snapshot| !snapshot.endpoints.is_empty()),
        Ok(Err(why)) => why,
        Err(_) => "the disk did not answer in time".to_owned(),
    };
    let core = core.upgrade()?;
    core.shared.metrics.discovery.inc(DiscoveryEvent::SnapshotRefused);
    tracing::warn!(cluster = &*core.shared.name, why, "the snapshot of the last good endpoints is not used");
    None
}

/// Waits until then, or for ever.
async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

impl<T: Send + Sync + 'static> Core<T> {
    fn hold_config(&self) -> HoldConfig {
        self.set.load().settings.hold
    }

    fn use_snapshot(self: &Arc<Self>, snapshot: Option<Snapshot>, now: Instant) {
        let Some(Snapshot { endpoints, at, age }) = snapshot else { return };
        tracing::warn!(
            cluster = &*self.shared.name,
            endpoints = endpoints.len(),
            ?age,
            "discovery has nothing to say yet; the last good endpoints are in force, from the snapshot"
        );
        self.update(endpoints, now);
        let metrics = &self.shared.metrics;
        metrics.discovery.inc(DiscoveryEvent::Snapshot);
        metrics.snapshot_timestamp.set(i64::try_from(at).unwrap_or(i64::MAX));
        metrics.stale.set(1);
    }

    /// All that is in force, those that `residency` shuts out too.
    fn in_force(&self) -> Vec<Endpoint> {
        self.set.load().members.endpoints()
    }

    /// `unused`: the snapshot that would be in force by now, had the source said nothing.
    fn apply(self: &Arc<Self>, update: Update, hold: &mut Hold, unused: Option<Snapshot>, now: Instant) {
        // Those that `residency` shuts out are known too.
        let set = self.set.load();
        let (cluster, known) = (&*self.shared.name, set.members.states.len() + set.members.outside.len());
        drop(set);
        let event = match update {
            Update::Endpoints(set) => {
                if set.dropped > 0 {
                    tracing::warn!(cluster, left_out = set.dropped, "discovery has more endpoints than are used");
                }
                self.shared.metrics.left_out.set(gauge(set.dropped));
                let before = unused.map_or_else(|| self.in_force(), |snapshot| snapshot.endpoints);
                self.judge(set, before, hold, now)
            }
            Update::Stale(error) => {
                tracing::warn!(cluster, known, %error, "discovery cannot be read; the last good set stays in force");
                hold.interrupt();
                DiscoveryEvent::Stale
            }
            Update::Gone => {
                tracing::warn!(cluster, known, "the service is gone; the cluster is empty now");
                *hold = Hold::default();
                self.update(Vec::new(), now);
                DiscoveryEvent::Gone
            }
        };
        self.note_discovery(event, hold);
    }

    fn judge(
        self: &Arc<Self>,
        set: EndpointSet,
        before: Vec<Endpoint>,
        hold: &mut Hold,
        now: Instant,
    ) -> DiscoveryEvent {
        let (cluster, named) = (&*self.shared.name, set.endpoints.len());
        let verdict = hold.judge(&set, before, &self.hold_config(), now);
        let Verdict::Held { in_force, empty, kept, crowded_out } = verdict else {
            tracing::debug!(cluster, endpoints = named, "endpoints replaced");
            // As it is: whoever has another's key is named.
            self.update(set.endpoints, now);
            return DiscoveryEvent::Applied;
        };
        if crowded_out > 0 {
            tracing::warn!(cluster, crowded_out, "too many endpoints to hold: those missing longest are let go");
        }
        tracing::warn!(
            cluster,
            named,
            kept,
            partial = set.partial,
            "discovery no longer knows most of the endpoints; they stay in force until it has said so for long enough, or \
             they are removed explicitly"
        );
        self.update(in_force, now);
        if empty { DiscoveryEvent::EmptyHeld } else { DiscoveryEvent::ShrinkHeld }
    }

    /// Whether anybody was let go.
    fn confirm(self: &Arc<Self>, hold: &mut Hold, now: Instant) -> bool {
        let mut endpoints = self.in_force();
        let let_go = hold.confirm(&mut endpoints, &self.hold_config(), now);
        if let_go == 0 {
            return false;
        }
        tracing::warn!(
            cluster = &*self.shared.name,
            let_go,
            left = endpoints.len(),
            "endpoints that were held are let go: discovery has not known them for long enough"
        );
        self.update(endpoints, now);
        self.note_discovery(DiscoveryEvent::Confirmed, hold);
        true
    }

    fn note_discovery(&self, event: DiscoveryEvent, hold: &Hold) {
        self.shared.metrics.discovery.inc(event);
        self.shared.metrics.held.set(gauge(hold.held()));
        self.shared.metrics.stale.set(i64::from(event == DiscoveryEvent::Stale || hold.held() > 0));
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
