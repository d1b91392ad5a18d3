//! The connection of one client process to one server, as its pool keeps it.

use std::time::Duration;

use mesh_core::cluster::Readiness;
use mesh_core::retry::Backoff;
use mesh_core::rng::Rng;

use super::server::Sent;

/// The waits between background reconnects: those of the shipped pool.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5) };

/// After a failed connect, requests fail at once for this long: as in the shipped pool.
pub(super) const FAIL_FAST: Duration = Duration::from_millis(50);

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
            heard: 0,
            watched: false,
            waiting: Vec::new(),
            readiness,
        }
    }

    pub(super) fn turn(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        match (&self.readiness, state) {
            (Some(readiness), State::Up) => readiness.ready(),
            (Some(readiness), State::Down { .. }) => readiness.unready(),
            _ => {}
        }
    }

    /// How long until the next connect, in the background.
    pub(super) fn patience(&self, rng: &Rng) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(n) => RECONNECT.wait(n, rng).max(RECONNECT.base / 2),
        }
    }
}
