//! The atomics of those parts that a model checker runs through every interleaving of their threads.
//!
//! `tests/interleavings.rs` includes the files that import from here, and gives them loom's atomics instead.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
