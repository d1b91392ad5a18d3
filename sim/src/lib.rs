//! Rehearses a mesh before it is shipped, and proves what its reliability rests on.
//!
//! | tier | what runs | for |
//! |---|---|---|
//! | `model` | The shipped picker, ejection, breaker, budget and routes, driven by one heap of events: a million requests in seconds. | Rehearsing a configuration (`cargo xtask sim`), and rows of the scorecard that need no bytes. |
//! | `stack` | The shipped client and server, HTTP/2 and TLS, on a simulated network in virtual time (feature `stack`). | Rows that need bytes: connections that hang, herds, deadlines. |
//!
//! [`scorecard`] lists what must hold, with a control arm for each: the same run without what is meant to help, which
//! has to fail.

pub mod model;
pub mod scorecard;
#[cfg(feature = "stack")]
pub mod stack;
