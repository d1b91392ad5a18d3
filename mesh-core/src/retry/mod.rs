//! May a failed attempt be sent again, when, and at whose cost?
//!
//! Retries turn a small failure into none, and a large one into an outage: when everything fails, every caller sends
//! every request several times to servers that are already down. So a retry has to pass four questions: would it do
//! harm ([`RetrySafety`]), does the server forbid it ([`Pushback`]), is there time left, and does the route's
//! [`RetryBudget`] have one to spend. [`RetryPolicy::decide`] asks them; it does no IO and takes the time.

mod backoff;
mod budget;
mod policy;
mod reconnect;
mod status;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use budget::{BudgetState, RetryBudget};
pub use policy::{FailedAttempt, Pushback, RetryDecision, RetryPolicy, RetrySafety, StopReason};
pub use reconnect::{FAIL_FAST, Reconnects};
pub use status::StatusClass;
