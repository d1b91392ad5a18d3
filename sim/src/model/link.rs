//! The connection of one client process to one server, as its pool keeps it.

use std::time::Duration;

use mesh_core::cluster::Readiness;
use mesh_core::retry::Reconnects;
use mesh_core::rng::Rng;

use super::server::Sent;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Never needed so far.
    Idle,
    /// A connect is under way.
    Dialing,
    Up,
    /// Lost, or not made; tried again in the background. Holds when the last connect failed, in nanoseconds.
    Down {
        failed_at: Option<u64>,
    },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: State,
    /// Grows with each change of state: what was planned before is void.
    pub(super) epoch: u32,
    /// Partitions that hold now.
    pub(super) cut: u32,
    /// Connects in a row that failed, or led to no answer.
    pub(super) failures: u32,
    /// Drawn when it is lost, or cannot be made; kept until it is up.
    reconnects: Option<Reconnects>,
    /// When something was last heard, in nanoseconds.
    pub(super) heard: u64,
    /// Somebody looks whether it is silent.
    pub(super) watched: bool,
    /// Requests that wait for the connect.
    pub(super) waiting: Vec<Sent>,
    /// How the picker learns of it; absent where there is none, or where the picker does not care.
    pub(super) readiness: Option<Readiness>,
}

impl Link {
    pub(super) fn new(readiness: Option<Readiness>) -> Self {
        Self {
            state: State::Idle,
            epoch: 0,
            cut: 0,
            failures: 0,
            reconnects: None,
            heard: 0,
            watched: false,
            waiting: Vec::new(),
            readiness,
        }
    }

    pub(super) fn turn(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        if state == State::Up {
            self.reconnects = None;
        }
        match (&self.readiness, state) {
            (Some(readiness), State::Up) => readiness.ready(),
            (Some(readiness), State::Down { .. }) => readiness.unready(),
            _ => {}
        }
    }

    /// How long until the next connect, in the background.
    pub(super) fn patience(&mut self, rng: &Rng) -> Duration {
        self.reconnects.get_or_insert_with(|| Reconnects::new(rng)).wait(self.failures)
    }
}
