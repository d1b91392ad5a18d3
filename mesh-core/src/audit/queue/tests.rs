use std::io;
use std::sync::mpsc as blocking;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::*;
use crate::audit::{AuditLine, AuditOutcome, AuditTrust, AuditVerifier, MemorySink};

fn record(n: u16) -> AuditRecord {
    AuditRecord::new(UNIX_EPOCH + Duration::from_secs(1_800_000_000), AuditOutcome::Allow, "allow_rule", n)
}

fn start(sink: impl AuditSink, queue: usize) -> (Audit, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let options = AuditOptions { queue, ..AuditOptions::default() };
    (Audit::start(Box::new(sink), options, Arc::clone(&metrics)), metrics)
}

/// The lines as objects, after a verifier found the whole of them.
fn whole(lines: &[String], unfinished: bool) -> Vec<Value> {
    let mut verifier = AuditVerifier::new(AuditTrust::default()).allow_unfinished(unfinished);
    lines.iter().for_each(|line| verifier.line(line.as_bytes()));
    assert_eq!(verifier.finish().problems, []);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Takes a batch each time it is told to, with the outcome it is told.
#[derive(Debug)]
struct ToldSink {
    orders: blocking::Receiver<Order>,
    entered: blocking::Sender<usize>,
    memory: MemorySink,
}

#[derive(Debug)]
enum Order {
    Take,
    Fail,
    Panic,
}

impl AuditSink for ToldSink {
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        self.entered.send(lines.iter().filter(|line| line.record().is_some()).count()).unwrap();
        match self.orders.recv().unwrap() {
            Order::Take => self.memory.write(lines),
            Order::Fail => Err(io::Error::other("disk full")),
            Order::Panic => panic!("told to"),
        }
    }
}

struct Told {
    audit: Audit,
    metrics: Arc<Metrics>,
    memory: MemorySink,
    order: blocking::Sender<Order>,
    batches: blocking::Receiver<usize>,
}

impl Told {
    /// Has written its start.
    fn new(queue: usize) -> Self {
        let ((order, orders), (entered, batches)) = (blocking::channel(), blocking::channel());
        let memory = MemorySink::default();
        let (audit, metrics) = start(ToldSink { orders, entered, memory: memory.clone() }, queue);
        order.send(Order::Take).unwrap();
        Self { audit, metrics, memory, order, batches }
    }

    /// The size of the next batch that the sink was given.
    async fn batch(self) -> (usize, Self) {
        tokio::task::spawn_blocking(move || (self.batches.recv().unwrap(), self)).await.unwrap()
    }
}

fn counts(metrics: &Metrics) -> (u64, u64) {
    (metrics.runtime.audit_written.get(), metrics.runtime.audit_dropped.get())
}

#[tokio::test(start_paused = true)]
async fn records_arrive_in_order_with_numbers_and_ids() {
    let sink = MemorySink::default();
    let (audit, metrics) = start(sink.clone(), 1000);
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
    audit.stop().await;
    let lines = whole(&sink.lines(), false);
    assert_eq!(
        (lines.len(), &lines[0]["event"], &lines[701]["event"]),
        (702, &"audit.start".into(), &"audit.stop".into())
    );
}

#[tokio::test]
async fn a_stuck_sink_holds_nobody_up_and_the_loss_is_exact() {
    const QUEUE: u16 = 16;
    let told = Told::new(usize::from(QUEUE));
    let (_, told) = told.batch().await;
    told.audit.record(record(0));
    // One record is in the sink, which does not return.
    let (first, told) = told.batch().await;
    assert_eq!(first, 1);
    // Plain calls, no await: if one of them waited, this test would never end.
    for n in 0..QUEUE + 100 {
        told.audit.record(record(n));
    }
    assert_eq!(told.audit.lost(), 100);
    // A flush waits, and may be given up.
    tokio::select! {
        biased;
        () = told.audit.flush() => panic!("nothing was written yet"),
        () = tokio::task::yield_now() => {}
    }
    for _ in 0..5 {
        told.order.send(Order::Take).unwrap();
    }
    told.audit.stop().await;
    assert_eq!(counts(&told.metrics), (u64::from(QUEUE) + 1, 100));
    let lines = whole(&told.memory.lines(), false);
    let gap = lines.iter().find(|line| line["event"] == "audit.gap").unwrap();
    assert_eq!(
        (&gap["count"], &gap["first"], &gap["last"], &gap["seq"]),
        (&100.into(), &2.into(), &101.into(), &102.into())
    );
}

#[tokio::test]
async fn a_sink_that_fails_or_panics_loses_its_batch_and_the_trail_says_so() {
    let told = Told::new(64);
    let (_, mut told) = told.batch().await;
    for (order, expected) in [(Order::Fail, (0, 1)), (Order::Panic, (0, 2)), (Order::Take, (1, 2))] {
        told.order.send(order).unwrap();
        told.audit.record(record(1));
        told.audit.flush().await;
        let (batch, same) = told.batch().await;
        told = same;
        assert_eq!((batch, counts(&told.metrics)), (1, expected));
    }
    assert_eq!(told.audit.lost(), 2);
    told.order.send(Order::Take).unwrap();
    told.audit.stop().await;
    let lines = whole(&told.memory.lines(), false);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["audit.start", "audit.gap", "request", "audit.stop"]);
    assert_eq!(lines[1]["count"], 2);
}

#[tokio::test]
async fn what_was_queued_is_written_after_the_last_handle_is_gone_and_the_trail_is_stopped() {
    let sink = MemorySink::default();
    let (audit, _) = start(sink.clone(), 64);
    for n in 0..50 {
        audit.record(record(n));
    }
    drop(audit);
    while sink.lines().len() < 52 {
        tokio::task::yield_now().await;
    }
    assert_eq!(whole(&sink.lines(), false).len(), 52);
}

#[tokio::test]
async fn a_restart_continues_the_chain() {
    let sink = MemorySink::default();
    for _ in 0..3 {
        let (audit, _) = start(sink.clone(), 64);
        audit.record(record(200));
        audit.stop().await;
    }
    assert_eq!(whole(&sink.lines(), false).len(), 9);
}

#[tokio::test]
async fn a_commit_is_written_before_it_returns_and_fails_where_it_is_not() {
    const SHORT: Duration = Duration::from_millis(50);
    let told = Told::new(1);
    let (_, told) = told.batch().await;
    told.order.send(Order::Take).unwrap();
    let (ticket, written) = told.audit.commit(record(0), Duration::from_secs(60));
    assert_eq!(written.await, Ok(()));
    assert_eq!((told.memory.records()[0].id(), ticket.withdraw()), (ticket.id(), false));
    let (_, told) = told.batch().await;

    told.order.send(Order::Fail).unwrap();
    let (ticket, written) = told.audit.commit(record(0), Duration::from_secs(60));
    assert_eq!((written.await, ticket.withdraw()), (Err(NotAudited::Failed), true));
    let (_, told) = told.batch().await;

    // In the sink, which does not return: nobody knows whether it will be written.
    let (stuck, written) = told.audit.commit(record(0), SHORT);
    assert_eq!((written.await, stuck.withdraw()), (Err(NotAudited::TimedOut), false));
    let (_, told) = told.batch().await;
    // In the queue: it never will be.
    let (queued, written) = told.audit.commit(record(0), SHORT);
    assert_eq!((written.await, queued.withdraw()), (Err(NotAudited::TimedOut), true));
    // Not even there.
    let (refused, written) = told.audit.commit(record(0), SHORT);
    assert_eq!((written.await, refused.withdraw()), (Err(NotAudited::QueueFull), true));

    // What was in the sink is lost after all, and counted once; nothing else is lost.
    told.order.send(Order::Fail).unwrap();
    // The gap and the stop come together or one after the other.
    told.order.send(Order::Take).unwrap();
    told.order.send(Order::Take).unwrap();
    told.audit.stop().await;
    assert_eq!(told.audit.lost(), 1);
    let lines = whole(&told.memory.lines(), false);
    assert_eq!(lines.iter().filter(|line| line["event"] == "request").count(), 1);
    assert_eq!(lines.iter().find(|line| line["event"] == "audit.gap").unwrap()["count"], 1);
}
