//! May a failed attempt be sent again, when, and at whose cost?

mod backoff;
mod budget;
mod policy;

pub use backoff::Backoff;
pub use budget::RetryBudget;
pub use policy::{RetryPolicy, RetrySafety};
