//! The bounded way from a request to the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

mod drain;

use super::seal::Sealer;
use super::subject::Subjects;
use super::ticket::{NotAudited, Ticket};
use super::writer::{Chain, Entry, Writer, new_id};
use super::{AuditEvent, AuditOptions, AuditRecord, AuditSink};
use crate::rng::Rng;
use crate::telemetry::Metrics;
use drain::Drain;

/// The handle of requests: never blocks, drops and counts where the sink is too slow.
///
/// [`record`](Self::record) fails open: an audit sink that is stuck does not stop the service. What is lost is counted
/// exactly, in [`lost`](Self::lost), in the metric `mesh_audit_dropped_total`, and in the trail itself, whose next line
/// is an `audit.gap`. [`commit`](Self::commit) fails closed.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: mpsc::Sender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    lost: AtomicU64,
    /// Lost records that no line of the trail tells of yet.
    pub(super) untold: AtomicU64,
    /// Somebody waits, or the queue fills: the next batch is written now.
    pub(super) urgent: Notify,
    rng: Rng,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Debug)]
pub(super) enum Item {
    Entry(Entry),
    /// Somebody waits for it to be written.
    Commit(Box<AuditRecord>, Ticket, oneshot::Sender<bool>),
    Flush(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

impl Audit {
    /// Starts the task that drains into `sink`, with an `audit.start`.
    ///
    /// Needs a Tokio runtime. The task ends, with an `audit.stop`, when the last handle is dropped and the queue is
    /// empty.
    pub fn start(sink: Box<dyn AuditSink>, options: AuditOptions, metrics: Arc<Metrics>) -> Self {
        let (queue, items) = mpsc::channel(options.queue.max(1));
        let (lost, untold) = (AtomicU64::new(0), AtomicU64::new(0));
        let rng = options.rng.fork();
        let shared = Arc::new(Shared { lost, untold, urgent: Notify::new(), rng: rng.fork(), metrics });
        let writer = Writer {
            sink,
            sealer: Sealer { key: options.signer, identity: options.identity.clone() },
            subjects: Subjects::new(options.subject, options.subject_key.as_deref()),
            boot: new_id(options.clock.now(), &rng).to_string(),
            clock: options.clock,
            rng,
            checkpoint_records: options.checkpoint_records.max(1),
            chain: Chain::NEW,
        };
        let drain = Drain::new(items, writer, Arc::clone(&shared), options.checkpoint_interval, options.identity);
        tokio::spawn(drain.run());
        Self { queue, shared }
    }

    /// Queues a record; if the queue is full it is dropped and counted.
    pub fn record(&self, mut record: AuditRecord) {
        record.id = new_id(record.time, &self.shared.rng);
        self.push(Entry::Request(Box::new(record)));
    }

    /// Queues what happened to the process; where the queue is full, drops and counts it.
    pub fn event(&self, event: AuditEvent) {
        self.push(Entry::Event(event));
    }

    fn push(&self, entry: Entry) {
        if self.queue.try_send(Item::Entry(entry)).is_err() {
            self.shared.lose(1);
        }
        // Half full: waiting for more would cost records.
        if self.queue.capacity() <= self.queue.max_capacity() / 2 {
            self.shared.urgent.notify_one();
        }
    }

    /// Queues a record that has to be written before its request may go on.
    ///
    /// Await what comes with the ticket.
    ///
    /// Fails closed: the wait ends after `timeout` at the latest, and any error means that nobody knows of a record.
    /// Cancel safe: who gives up [withdraws](Ticket::withdraw) the ticket, and learns whether it is written after all.
    pub fn commit(
        &self,
        mut record: AuditRecord,
        timeout: Duration,
    ) -> (Ticket, impl Future<Output = Result<(), NotAudited>> + Send + use<>) {
        record.id = new_id(record.time, &self.shared.rng);
        let (ticket, (done, written)) = (Ticket::new(record.id), oneshot::channel());
        let queued = self.queue.try_send(Item::Commit(Box::new(record), ticket.clone(), done)).is_ok();
        if queued {
            self.shared.urgent.notify_one();
        } else {
            ticket.withdraw();
        }
        let wait = async move {
            if !queued {
                return Err(NotAudited::QueueFull);
            }
            match tokio::time::timeout(timeout, written).await {
                Ok(Ok(true)) => Ok(()),
                Ok(_) => Err(NotAudited::Failed),
                Err(_) => Err(NotAudited::TimedOut),
            }
        };
        (ticket, wait)
    }

    /// Waits until everything queued before this call was written or counted as lost.
    ///
    /// Waits as long as the sink does: give it a deadline. Cancel safe.
    pub async fn flush(&self) {
        self.wait(Item::Flush).await;
    }

    /// As [`flush`](Self::flush), and ends the trail with an `audit.stop`.
    ///
    /// So that its end can be told from a cut.
    ///
    /// Records that come later are still written; another `audit.stop` follows them.
    pub async fn stop(&self) {
        self.wait(Item::Stop).await;
    }

    async fn wait(&self, item: impl FnOnce(oneshot::Sender<()>) -> Item) {
        let (done, written) = oneshot::channel();
        // Before, for who waits for room, and after, for what is in the queue by then.
        self.shared.urgent.notify_one();
        if self.queue.send(item(done)).await.is_ok() {
            self.shared.urgent.notify_one();
            // Closed without an answer means that the task is gone, and everything in the queue with it.
            let _ = written.await;
        }
    }

    /// How many records were lost since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn lose(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
        self.untold.fetch_add(records, Ordering::Relaxed);
        self.metrics.runtime.audit_dropped.inc_by(records);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
