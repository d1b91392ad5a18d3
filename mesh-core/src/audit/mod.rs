//! One record for every request that reached a decision, written without holding the request up.

mod record;
mod sink;

pub use record::{AuditOutcome, AuditRecord};
pub use sink::{Audit, AuditSink, MemorySink};
