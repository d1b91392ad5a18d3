//! The task between the queue and the sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Item, Shared};
use crate::audit::AuditEvent;
use crate::audit::json::rfc3339;
use crate::audit::ticket::Ticket;
use crate::audit::writer::{Batch, Entry, Writer};
use crate::clock::WallClock;
use crate::identity::Identity;
use crate::snapshot::{Changes, Snapshot};

/// The most that is handed to a sink at once.
const BATCH: usize = 256;
/// How long records wait for others to be written with: a batch costs two hops between threads, however few are in it.
const GATHER: Duration = Duration::from_millis(5);
/// How often a failing sink is logged; every loss is counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Takes batches out of the queue and writes each on a blocking thread, one after the other.
pub(super) struct Drain {
    items: mpsc::Receiver<Item>,
    /// `None` once its thread is gone with the runtime.
    writer: Option<Writer>,
    clock: Arc<dyn WallClock>,
    shared: Arc<Shared>,
    interval: Duration,
    seal_at: Instant,
    identity: Option<Watched>,
    logged: LogLimit,
}

/// Our own certificates, and the serial number of the last.
struct Watched {
    changes: Changes<Identity>,
    serial: String,
}

/// What was taken out of the queue, and who waits for it.
#[derive(Default)]
struct Taken {
    batch: Batch,
    commits: Vec<(Ticket, oneshot::Sender<bool>)>,
    flushed: Vec<oneshot::Sender<()>>,
}

impl Taken {
    fn add(&mut self, item: Item) {
        match item {
            Item::Entry(entry) => self.batch.entries.push(entry),
            Item::Commit(record, ticket, done) => {
                if ticket.take() {
                    self.batch.entries.push(Entry::Request(record));
                    self.commits.push((ticket, done));
                }
            }
            // Everything before it is in this batch or was written: it may wait for the records after it.
            Item::Flush(done) => self.flushed.push(done),
            Item::Stop(done) => {
                self.batch.stop = true;
                self.flushed.push(done);
            }
        }
    }

    fn is_urgent(&self) -> bool {
        !self.commits.is_empty() || !self.flushed.is_empty() || self.batch.entries.len() >= BATCH
    }
}

impl Drain {
    pub(super) fn new(
        items: mpsc::Receiver<Item>,
        writer: Writer,
        shared: Arc<Shared>,
        interval: Duration,
        identity: Option<Snapshot<Identity>>,
    ) -> Self {
        let (clock, seal_at) = (Arc::clone(&writer.clock), Instant::now() + interval);
        let identity = identity.map(|identity| {
            let changes = identity.subscribe();
            let serial = identity.load().svid().map(|svid| svid.serial().to_owned());
            Watched { changes, serial: serial.unwrap_or_default() }
        });
        Self { items, writer: Some(writer), clock, shared, interval, seal_at, identity, logged: LogLimit::default() }
    }

    /// Runs until the last handle is dropped and the queue is empty.
    pub(super) async fn run(mut self) {
        self.write(Taken::default()).await;
        let mut items = Vec::with_capacity(BATCH);
        loop {
            let mut taken = Taken::default();
            tokio::select! {
                biased; // what is rare first: records may come without a pause
                () = sleep_until(self.seal_at) => taken.batch.seal = true,
                event = rotated(&mut self.identity, &*self.clock) => taken.batch.entries.push(Entry::Event(event)),
                count = self.items.recv_many(&mut items, BATCH) => if count == 0 { break },
            }
            items.drain(..).for_each(|item| taken.add(item));
            if !taken.is_urgent() && !taken.batch.seal {
                // Nobody is woken for each record meanwhile.
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(GATHER) => {}
                    () = self.shared.urgent.notified() => {}
                }
                while taken.batch.entries.len() < BATCH {
                    let Ok(item) = self.items.try_recv() else { break };
                    taken.add(item);
                }
            }
            self.write(taken).await;
        }
        let batch = Batch { stop: true, ..Batch::default() };
        self.write(Taken { batch, ..Taken::default() }).await;
    }

    /// One batch, on a blocking thread if its sink may wait. The writer comes back, even if its sink panicked.
    async fn write(&mut self, mut taken: Taken) {
        let (commits, entries) = (taken.commits.len() as u64, taken.batch.entries.len() as u64);
        taken.batch.lost = self.shared.untold.swap(0, Ordering::Relaxed);
        let (told, sealing) = (taken.batch.lost, taken.batch.seal || taken.batch.stop);
        let outcome = match self.writer.take() {
            Some(writer) => {
                let (writer, outcome) = write(writer, taken.batch).await;
                self.writer = writer;
                outcome
            }
            None => Err("the runtime is shutting down".to_owned()),
        };
        if sealing {
            self.seal_at = Instant::now() + self.interval;
        }
        let written = outcome.is_ok();
        let mut lost = if written { 0 } else { entries - commits };
        for (ticket, done) in taken.commits {
            lost += u64::from(ticket.settle(written));
            // Nobody waits any more: that request was given up.
            let _ = done.send(written);
        }
        match outcome {
            Ok(()) => {
                self.shared.metrics.runtime.audit_written.inc_by(entries);
            }
            Err(error) => {
                self.shared.untold.fetch_add(told, Ordering::Relaxed);
                self.shared.lose(lost);
                self.logged.error(&error, self.shared.lost());
            }
        }
        for done in taken.flushed {
            // Nobody listens any more: that flush was cancelled.
            let _ = done.send(());
        }
    }
}

async fn write(writer: Writer, batch: Batch) -> (Option<Writer>, Result<(), String>) {
    if writer.sink.never_waits() {
        let (writer, outcome) = write_now(writer, batch);
        return (Some(writer), outcome);
    }
    match tokio::task::spawn_blocking(move || write_now(writer, batch)).await {
        Ok((writer, outcome)) => (Some(writer), outcome),
        Err(_) => (None, Err("the runtime is shutting down".to_owned())),
    }
}

fn write_now(mut writer: Writer, batch: Batch) -> (Writer, Result<(), String>) {
    let before = writer.chain;
    let outcome = catch_unwind(AssertUnwindSafe(|| writer.write(batch)));
    let outcome = outcome.unwrap_or_else(|_| {
        writer.chain = before;
        Err("the sink panicked".to_owned())
    });
    (writer, outcome)
}

/// The next rotation of our own certificate. Cancel safe.
async fn rotated(identity: &mut Option<Watched>, clock: &dyn WallClock) -> AuditEvent {
    let Some(watched) = identity else { return std::future::pending().await };
    loop {
        let identity = watched.changes.changed().await;
        if let Some(svid) = identity.svid().filter(|svid| svid.serial() != watched.serial) {
            watched.serial = svid.serial().to_owned();
            let event = AuditEvent::new(clock.now(), AuditEvent::SVID_ROTATE);
            return event.text("serial", svid.serial()).text("not_after", &rfc3339(svid.not_after().into()));
        }
    }
}

/// At most one line in ten seconds.
#[derive(Debug, Default)]
struct LogLimit {
    last: Option<Instant>,
}

impl LogLimit {
    fn error(&mut self, error: &str, lost: u64) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY) {
            self.last = Some(now);
            tracing::error!(target: "mesh", error, lost, "audit records could not be written: the sink failed");
        }
    }
}
