//! The bounded way from a request to a sink.

use std::sync::{Arc, Mutex};

use super::AuditRecord;

/// Where records end up. Called from one background task, never on the request path.
pub trait AuditSink: std::fmt::Debug + Send + 'static {
    /// Writes a batch, in order. An error is counted for every record of the batch.
    fn write(&mut self, records: &[AuditRecord]) -> std::io::Result<()>;
}

/// The handle that requests use: never blocks, drops and counts when the sink is too slow.
#[derive(Debug, Clone)]
pub struct Audit {
    _private: (),
}

impl Audit {
    /// Starts the task that drains into `sink`. At most `queue` records wait.
    pub fn start(sink: Box<dyn AuditSink>, queue: usize, metrics: Arc<crate::telemetry::Metrics>) -> Self {
        let _ = (sink, queue, metrics);
        unimplemented!()
    }

    /// Queues a record; if the queue is full it is dropped and counted.
    pub fn record(&self, record: AuditRecord) {
        let _ = record;
        unimplemented!()
    }

    /// Waits until everything queued before this call was written or counted as lost.
    pub async fn flush(&self) {
        unimplemented!()
    }
}

/// Keeps records in memory, for tests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

impl MemorySink {
    /// What was written so far.
    pub fn records(&self) -> Vec<AuditRecord> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl AuditSink for MemorySink {
    fn write(&mut self, records: &[AuditRecord]) -> std::io::Result<()> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(records);
        Ok(())
    }
}
