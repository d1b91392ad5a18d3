//! One record for every request that reached a decision, written without holding the request up.
//!
//! An audit trail that can stop the service is switched off in the first bad night, and one that loses records in
//! silence proves nothing. So a request hands its record to a bounded queue and goes on; what the sink cannot take is
//! lost, counted exactly, and leaves a gap in the numbers of the records.
//!
//! | part | what it does |
//! |---|---|
//! | [`AuditRecord`] | what is said; one line of JSON |
//! | [`Audit`] | the queue and the task that drains it |
//! | [`AuditSink`] | where records end up: [`LogSink`], [`StdoutSink`], [`FileSink`], [`MemorySink`] |

mod file;
mod json;
mod queue;
mod record;
mod sink;

pub use file::FileSink;
pub use queue::Audit;
pub use record::{AuditOutcome, AuditRecord};
pub use sink::{AuditSink, LogSink, MemorySink, StdoutSink};
