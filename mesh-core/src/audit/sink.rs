//! Where records end up.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use super::AuditRecord;
use crate::config::{Errors, Fields, Node};
use crate::plugin::Context;

/// One line of the trail: a JSON object in canonical order, then its hash.
///
/// ```json
/// {"boot":"0194...","event":"request","generation":3,"host":"orders:8443","id":"0194...","method":"GET",
///  "outcome":"deny","path":"/orders/7","peer":"spiffe://shop.example/ns/shop/sa/web","peer_address":"10.0.0.7:4711",
///  "peer_serial":"01ab","prev":"57ed...","reason":"no_allow_rule","route":"/orders/{id}","schema":2,"seq":7,
///  "service":"spiffe://shop.example/ns/shop/sa/orders","status":403,"time":"2026-11-22T06:36:14.000000001Z",
///  "trace_id":"4bf9...","hash":"9e1c..."}
/// ```
///
/// `event` is `request` for a decided request; the others are `audit.start`, `audit.checkpoint`, `audit.stop`,
/// `audit.gap` and those of [`AuditEvent`](super::AuditEvent). `boot` names the process, `seq` counts its records from
/// 0; `prev` is the `hash` of the record before. Nothing that a caller sends breaks a line: control characters are
/// escaped, those that only some readers take for a line break included.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditLine {
    pub(super) text: String,
    pub(super) record: Option<Box<AuditRecord>>,
    pub(super) sealed: bool,
}

impl AuditLine {
    /// The line, without its line break.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The record that the line is of, if it is of a request.
    pub fn record(&self) -> Option<&AuditRecord> {
        self.record.as_deref()
    }
}

/// Where records end up. Called from one background task, never on the request path.
///
/// A write may block; while it does, records wait in the queue, and beyond its bound they are lost and counted.
pub trait AuditSink: std::fmt::Debug + Send + 'static {
    /// Writes a batch, in order: all of it or nothing, as far as that can be had. Returns when it is as safe as the
    /// sink makes it: requests of routes with `required` wait for that. An error is counted for every record.
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()>;

    /// Whether [`write`](Self::write) never waits for anything, as one that keeps lines in memory: it is then called on the
    /// runtime that serves requests, and a simulation in virtual time stays the same run every time. Default: no, and it has
    /// a blocking thread.
    fn never_waits(&self) -> bool {
        false
    }

    /// The last line that was written, maybe by an earlier process, which the next one continues. Asked once, before
    /// the first write. Default: none is known, and each process begins a chain of its own.
    fn last(&mut self) -> io::Result<Option<String>> {
        Ok(None)
    }
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
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        for line in lines {
            tracing::info!(target: LogSink::TARGET, record = line.text(), "audit");
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
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(joined(lines).as_bytes())?;
        stdout.flush()
    }
}

/// Every line with its line break, to be written in one piece.
pub(super) fn joined(lines: &[AuditLine]) -> String {
    let length = lines.iter().map(|line| line.text.len() + 1).sum::<usize>();
    lines.iter().fold(String::with_capacity(length + 1), |text, line| text + &line.text + "\n")
}

/// Keeps records in memory, for tests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    lines: Arc<Mutex<Vec<AuditLine>>>,
}

impl MemorySink {
    /// The records of requests that were written so far.
    pub fn records(&self) -> Vec<AuditRecord> {
        self.lock().iter().filter_map(AuditLine::record).cloned().collect()
    }

    /// Every line that was written so far.
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().map(|line| line.text.clone()).collect()
    }

    /// One of its own that holds the same, as a copy of a file does.
    #[cfg(test)]
    pub(super) fn apart(&self) -> Self {
        Self { lines: Arc::new(Mutex::new(self.lock().clone())) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<AuditLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written since this was last called; keeps none of it.
    pub fn take(&self) -> Vec<AuditRecord> {
        let lines = std::mem::take(&mut *self.lock());
        lines.into_iter().filter_map(|line| line.record).map(|record| *record).collect()
    }
}

impl AuditSink for MemorySink {
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        self.lock().extend_from_slice(lines);
        Ok(())
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn last(&mut self) -> io::Result<Option<String>> {
        Ok(self.lock().last().map(|line| line.text.clone()))
    }
}
