//! One record for every request that reached a decision, in a chain that shows what was done to it.
//!
//! An audit trail that can stop the service is switched off in the first bad night, and one that loses records in
//! silence proves nothing. So a request hands its record to a bounded queue and goes on; what the sink cannot take is
//! lost, counted exactly, and leaves an `audit.gap` in the trail. Where that is not enough, a route is `required`: no
//! handler runs before its record is written.
//!
//! Whoever can write the file could also change it. So each line carries the hash of the line before (`prev`) and its
//! own (`hash`): SHA-256 over the bytes `mesh.audit.record.v2` and NUL, the 32 bytes of `prev`, and the record without
//! `hash` in canonical JSON (RFC 8785). `audit.start`, `audit.checkpoint` and `audit.stop` are signed, and also go to
//! the log target `mesh::audit::checkpoint`, so that their copies outside of this host witness what the file said.
//!
//! | part | what it does |
//! |---|---|
//! | [`AuditRecord`], [`AuditEvent`] | what is said |
//! | [`Audit`] | the queue and the task that drains it; [`Ticket`] for records that somebody waits for |
//! | `writer`, `chain`, `seal` | numbers, hashes, signatures; [`AuditLine`] |
//! | [`AuditSink`] | where records end up: [`LogSink`], [`StdoutSink`], [`FileSink`], [`MemorySink`] |
//! | [`AuditVerifier`] | whether a trail is whole: edits, deletions, order, cuts, forks |

mod canonical;
mod chain;
mod event;
mod file;
mod json;
mod options;
mod queue;
mod record;
mod seal;
mod sink;
mod subject;
mod ticket;
mod verify;
mod writer;

pub use event::AuditEvent;
pub use file::FileSink;
pub use options::AuditOptions;
pub use queue::Audit;
pub use record::{AuditOrigin, AuditOutcome, AuditRecord};
pub use seal::AuditTrust;
pub use sink::{AuditLine, AuditSink, LogSink, MemorySink, StdoutSink};
pub use subject::SubjectMode;
pub use ticket::{NotAudited, Ticket};
pub use verify::{AuditProblem, AuditReport, AuditVerifier};
