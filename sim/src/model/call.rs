//! One call, from the first attempt to what its caller gets.

use std::sync::Arc;

use mesh_core::cluster::Tried;
use mesh_core::route::Route;

use super::balancer::Chosen;
use super::report::Failed;
use super::server::Answer;
use super::slab::Id;

/// Who made it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    Load,
    /// A server, for the request that it works on.
    Server {
        server: usize,
        job: Id,
    },
}

#[derive(Debug)]
pub(super) struct Call {
    /// Counted from 0 over the whole run.
    pub(super) number: u64,
    pub(super) origin: Origin,
    pub(super) process: usize,
    /// The cluster's number.
    pub(super) cluster: usize,
    pub(super) route: Arc<Route>,
    pub(super) idempotent: bool,
    pub(super) hash: Option<u64>,
    /// In nanoseconds, as all times here.
    pub(super) started: u64,
    pub(super) deadline: u64,
    pub(super) attempts: u32,
    pub(super) tried: Tried,
    /// It holds a place among `limits.max_retries`.
    pub(super) retry_place: bool,
    pub(super) current: Option<Attempt>,
}

/// The attempt under way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) chosen: Chosen,
    pub(super) server: usize,
    /// When its own time limit ends it.
    pub(super) limit: u64,
    /// What the server made of it.
    pub(super) job: Option<Id>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered(Answer),
    /// Its own time limit.
    TimedOut,
    /// `sent`: the server may have read it.
    Unreachable {
        sent: bool,
    },
    /// Too many wait for a connection.
    Overloaded,
}

impl End {
    /// What the call fails with, if this was its last attempt.
    pub(super) fn failed(self) -> Failed {
        match self {
            Self::Answered(_) => Failed::Answered,
            Self::TimedOut => Failed::Timeout,
            Self::Unreachable { .. } => Failed::Unreachable,
            Self::Overloaded => Failed::Overloaded,
        }
    }
}
