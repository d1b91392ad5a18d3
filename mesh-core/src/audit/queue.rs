//! The bounded way from a request to a sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{AuditRecord, AuditSink};
use crate::rng::Rng;
use crate::telemetry::Metrics;

/// The most that is handed to a sink at once.
const BATCH: usize = 256;
/// How often a failing sink is logged; every loss is counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The handle that requests use: never blocks, drops and counts when the sink is too slow.
///
/// Fails open: an audit sink that is stuck does not stop the service. What is lost is counted exactly, in
/// [`lost`](Self::lost) and in the metric `mesh_audit_dropped_total`.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: mpsc::Sender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seq: AtomicU64,
    lost: AtomicU64,
    rng: Rng,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Item {
    Record(Box<AuditRecord>),
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Starts the task that drains into `sink`. At most `queue` records wait (at least 1), beside one batch of 256 that
    /// is being written.
    ///
    /// Needs a Tokio runtime. The task ends when the last handle is dropped and the queue is empty.
    pub fn start(sink: Box<dyn AuditSink>, queue: usize, metrics: Arc<Metrics>) -> Self {
        let (queue, items) = mpsc::channel(queue.max(1));
        let (seq, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { seq, lost, rng: Rng::from_entropy(), metrics });
        tokio::spawn(drain(items, sink, Arc::clone(&shared)));
        Self { queue, shared }
    }

    /// Queues a record; if the queue is full it is dropped and counted.
    ///
    /// Gives it its number and UUIDv7 first, so that a lost record leaves a gap.
    pub fn record(&self, mut record: AuditRecord) {
        record.seq = self.shared.seq.fetch_add(1, Ordering::Relaxed) + 1;
        record.id = self.shared.id(&record);
        if self.queue.try_send(Item::Record(Box::new(record))).is_err() {
            self.shared.lose(1);
        }
    }

    /// Waits until everything queued before this call was written or counted as lost.
    ///
    /// Waits as long as the sink does: give it a deadline. Cancel safe.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).await.is_ok() {
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
    fn id(&self, record: &AuditRecord) -> uuid::Uuid {
        let since = record.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let random = (u128::from(self.rng.next_u64()) << 64) | u128::from(self.rng.next_u64());
        let [bytes @ .., _, _, _, _, _, _] = random.to_be_bytes();
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    fn lose(&self, records: usize) {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        self.lost.fetch_add(records, Ordering::Relaxed);
        self.metrics.runtime.audit_dropped.inc_by(records);
    }
}

/// Takes batches out of the queue and writes each on a blocking thread, one after the other.
async fn drain(mut items: mpsc::Receiver<Item>, sink: Box<dyn AuditSink>, shared: Arc<Shared>) {
    let mut sink = Some(sink);
    let mut logged = LogLimit::default();
    let mut taken = Vec::with_capacity(BATCH);
    while items.recv_many(&mut taken, BATCH).await > 0 {
        let mut records = Vec::with_capacity(taken.len());
        let mut waiting = Vec::new();
        for item in taken.drain(..) {
            match item {
                Item::Record(record) => records.push(*record),
                // Everything before it is in this batch or was written: it may wait for the records after it.
                Item::Flush(done) => waiting.push(done),
            }
        }
        if !records.is_empty() {
            let count = records.len();
            let outcome;
            (sink, outcome) = write(sink.take(), records).await;
            match outcome {
                Ok(()) => {
                    shared.metrics.runtime.audit_written.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) => {
                    shared.lose(count);
                    logged.warn(&error, shared.lost.load(Ordering::Relaxed));
                }
            }
        }
        for done in waiting {
            // Nobody listens any more: that flush was cancelled.
            let _ = done.send(());
        }
    }
}

/// One batch on a blocking thread. The sink comes back, even if it panicked.
async fn write(
    sink: Option<Box<dyn AuditSink>>,
    records: Vec<AuditRecord>,
) -> (Option<Box<dyn AuditSink>>, Result<(), String>) {
    let Some(mut sink) = sink else { return (None, Err("the sink is gone".to_owned())) };
    let written = tokio::task::spawn_blocking(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| sink.write(&records)));
        let outcome = match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the sink panicked".to_owned()),
        };
        (sink, outcome)
    });
    match written.await {
        Ok((sink, outcome)) => (Some(sink), outcome),
        Err(_) => (None, Err("the runtime is shutting down".to_owned())),
    }
}

/// At most one line in ten seconds.
#[derive(Debug, Default)]
struct LogLimit {
    last: Option<Instant>,
}

impl LogLimit {
    fn warn(&mut self, error: &str, lost: u64) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY) {
            self.last = Some(now);
            tracing::error!(target: "mesh", error, lost, "audit records were lost: the sink failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc as blocking;

    use super::*;
    use crate::audit::{AuditOutcome, MemorySink};

    fn record(n: u16) -> AuditRecord {
        AuditRecord::new(UNIX_EPOCH + Duration::from_secs(1_800_000_000), AuditOutcome::Allow, "allow_rule", n)
    }

    /// Takes a batch each time it is told to, with the outcome it is told.
    #[derive(Debug)]
    struct ToldSink {
        orders: blocking::Receiver<Order>,
        entered: blocking::Sender<usize>,
    }

    #[derive(Debug)]
    enum Order {
        Take,
        Fail,
        Panic,
    }

    impl AuditSink for ToldSink {
        fn write(&mut self, records: &[AuditRecord]) -> io::Result<()> {
            self.entered.send(records.len()).unwrap();
            match self.orders.recv().unwrap() {
                Order::Take => Ok(()),
                Order::Fail => Err(io::Error::other("disk full")),
                Order::Panic => panic!("told to"),
            }
        }
    }

    fn told(queue: usize) -> (Audit, Arc<Metrics>, blocking::Sender<Order>, blocking::Receiver<usize>) {
        let ((order, orders), (entered, batches)) = (blocking::channel(), blocking::channel());
        let metrics = Arc::new(Metrics::default());
        let audit = Audit::start(Box::new(ToldSink { orders, entered }), queue, Arc::clone(&metrics));
        (audit, metrics, order, batches)
    }

    fn counts(metrics: &Metrics) -> (u64, u64) {
        (metrics.runtime.audit_written.get(), metrics.runtime.audit_dropped.get())
    }

    #[tokio::test(start_paused = true)]
    async fn records_arrive_in_order_with_numbers_and_ids() {
        let sink = MemorySink::default();
        let metrics = Arc::new(Metrics::default());
        let audit = Audit::start(Box::new(sink.clone()), 1000, Arc::clone(&metrics));
        for n in 0..700 {
            audit.record(record(n));
        }
        audit.flush().await;
        let written = sink.records();
        assert_eq!(written.iter().map(|record| record.status).collect::<Vec<_>>(), (0..700).collect::<Vec<_>>());
        assert_eq!(written.iter().map(AuditRecord::seq).collect::<Vec<_>>(), (1..=700).collect::<Vec<_>>());
        let ids: std::collections::HashSet<_> = written.iter().map(AuditRecord::id).collect();
        assert_eq!(ids.len(), 700);
        let id = written[0].id();
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_timestamp().map(|time| time.to_unix()), Some((1_800_000_000, 0)));
        assert_eq!((counts(&metrics), audit.lost()), ((700, 0), 0));
    }

    #[tokio::test]
    async fn a_stuck_sink_holds_nobody_up_and_the_loss_is_exact() {
        const QUEUE: u16 = 16;
        let (audit, metrics, order, batches) = told(usize::from(QUEUE));
        audit.record(record(0));
        // One record is in the sink, which does not return.
        let stuck = tokio::task::spawn_blocking(move || (batches.recv().unwrap(), batches));
        let (first, batches) = stuck.await.unwrap();
        assert_eq!(first, 1);
        // Plain calls, no await: if one of them waited, this test would never end.
        for n in 0..QUEUE + 100 {
            audit.record(record(n));
        }
        assert_eq!(audit.lost(), 100);
        // A flush waits, and may be given up.
        tokio::select! {
            biased;
            () = audit.flush() => panic!("nothing was written yet"),
            () = tokio::task::yield_now() => {}
        }
        for _ in 0..3 {
            order.send(Order::Take).unwrap();
        }
        audit.flush().await;
        assert_eq!(batches.recv().unwrap(), usize::from(QUEUE));
        assert_eq!(counts(&metrics), (u64::from(QUEUE) + 1, 100));
    }

    #[tokio::test]
    async fn a_sink_that_fails_or_panics_loses_its_batch_and_goes_on() {
        let (audit, metrics, order, batches) = told(64);
        for (told, expected) in [(Order::Fail, (0, 1)), (Order::Panic, (0, 2)), (Order::Take, (1, 2))] {
            order.send(told).unwrap();
            audit.record(record(1));
            audit.flush().await;
            assert_eq!(batches.recv().unwrap(), 1);
            assert_eq!(counts(&metrics), expected);
        }
        assert_eq!(audit.lost(), 2);
    }

    #[tokio::test]
    async fn what_was_queued_is_written_after_the_last_handle_is_gone() {
        let sink = MemorySink::default();
        let audit = Audit::start(Box::new(sink.clone()), 64, Arc::default());
        for n in 0..50 {
            audit.record(record(n));
        }
        drop(audit);
        while sink.records().len() < 50 {
            tokio::task::yield_now().await;
        }
    }
}
