//! One server: its places, its queue, and what is wrong with it.

use std::collections::VecDeque;
use std::time::Duration;

use super::slab::{Id, Slab};

/// What comes back from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The wait that it asks for.
    pub(super) retry_after: Option<Duration>,
    /// It, or somebody behind it, has tried again already.
    pub(super) no_retry: bool,
}

impl Answer {
    pub(super) const OK: Self = Self::status(200);

    pub(super) const fn status(status: u16) -> Self {
        Self { status, retry_after: None, no_retry: false }
    }
}

/// A request on its way: which call's, and which of its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) call: Id,
    pub(super) attempt: u32,
    pub(super) process: usize,
}

/// A request that a server has accepted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) sent: Sent,
    /// It has one of the places, or waits for one.
    pub(super) running: bool,
    pub(super) answer: Answer,
    /// The call that it makes itself.
    pub(super) nested: Option<Id>,
}

#[derive(Debug)]
pub(super) struct Server {
    /// Its group's position in the scenario.
    pub(super) group: usize,
    /// The number of the cluster whose endpoint it is.
    pub(super) cluster: usize,
    pub(super) jobs: Slab<Job>,
    pub(super) running: usize,
    /// Those that wait for a place, and some that were given up.
    pub(super) queue: VecDeque<Id>,
    /// How many of them still wait.
    pub(super) waiting: usize,
    /// Faults that hold now, by their position in the scenario.
    pub(super) faults: Vec<usize>,
    /// How many crashes, drains and hangs hold now.
    pub(super) down: u32,
    pub(super) draining: u32,
    pub(super) hung: u32,
    /// Requests that did not get through yet.
    pub(super) unread: Vec<Sent>,
    /// Work that ended, but for the answer, while the process stood still.
    pub(super) held: Vec<Id>,
    /// Answers that did not get through yet.
    pub(super) unheard: Vec<(Sent, Answer)>,
    /// Attempts that it was chosen for, to their end.
    pub(super) under_way: u64,
    /// The client process that it is to others.
    pub(super) process: Option<usize>,
}

impl Server {
    pub(super) fn new(group: usize, cluster: usize, process: Option<usize>) -> Self {
        Self {
            group,
            cluster,
            jobs: Slab::default(),
            running: 0,
            queue: VecDeque::new(),
            waiting: 0,
            faults: Vec::new(),
            down: 0,
            draining: 0,
            hung: 0,
            unread: Vec::new(),
            held: Vec::new(),
            unheard: Vec::new(),
            under_way: 0,
            process,
        }
    }

    /// Whoever connects is refused.
    pub(super) fn refuses(&self) -> bool {
        self.down > 0 || self.draining > 0
    }
}
