//! Where records end up.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use super::AuditRecord;
use crate::config::{Errors, Fields, Node};
use crate::plugin::Context;

/// Where records end up. Called from one background task, never on the request path.
///
/// A write may block; while it does, records wait in the queue, and beyond its bound they are lost and counted.
pub trait AuditSink: std::fmt::Debug + Send + 'static {
    /// Writes a batch, in order. An error is counted for every record of the batch.
    fn write(&mut self, records: &[AuditRecord]) -> io::Result<()>;
}

/// The `log` sink: an event of the process's own `tracing` subscriber, target `mesh::audit`, level INFO.
///
/// The JSON line is the event's field `record`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogSink;

impl LogSink {
    /// The target of its events.
    pub const TARGET: &'static str = "mesh::audit";

    pub(crate) fn from_node(node: &Node, _context: &Context, errors: &mut Errors) -> Option<Box<dyn AuditSink>> {
        Fields::of(node, errors)?.finish();
        Some(Box::new(Self))
    }
}

impl AuditSink for LogSink {
    fn write(&mut self, records: &[AuditRecord]) -> io::Result<()> {
        for record in records {
            tracing::info!(target: LogSink::TARGET, record = %record.to_json(), "audit");
        }
        Ok(())
    }
}

/// The `stdout` sink: one JSON line for each record.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdoutSink;

impl StdoutSink {
    pub(crate) fn from_node(node: &Node, _context: &Context, errors: &mut Errors) -> Option<Box<dyn AuditSink>> {
        Fields::of(node, errors)?.finish();
        Some(Box::new(Self))
    }
}

impl AuditSink for StdoutSink {
    fn write(&mut self, records: &[AuditRecord]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(lines(records).as_bytes())?;
        stdout.flush()
    }
}

/// Every record with its line break, to be written in one piece.
pub(super) fn lines(records: &[AuditRecord]) -> String {
    records.iter().fold(String::new(), |text, record| text + &record.to_json() + "\n")
}

/// Keeps records in memory, for tests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

impl MemorySink {
    /// What was written so far.
    pub fn records(&self) -> Vec<AuditRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was written since this was last called; keeps none of it.
    pub fn take(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AuditSink for MemorySink {
    fn write(&mut self, records: &[AuditRecord]) -> io::Result<()> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(records);
        Ok(())
    }
}
