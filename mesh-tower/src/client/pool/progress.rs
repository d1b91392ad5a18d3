//! How far an attempt has come, for whoever has to tell after it was given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mesh_core::cluster::EndpointState;

use super::Pool;
use crate::client::attempts::ConnectionWait;

/// The endpoint that the balancer chose, and how the attempt fares there. Shared by the balancer and the transport.
pub(crate) struct Chosen {
    pub(crate) endpoint: Arc<EndpointState<Pool>>,
    pub(crate) progress: Progress,
}

impl Chosen {
    pub(crate) fn new(endpoint: Arc<EndpointState<Pool>>) -> Arc<Self> {
        Arc::new(Self { endpoint, progress: Progress::default() })
    }
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen").field("endpoint", &self.endpoint).field("progress", &self.progress).finish()
    }
}

/// The wait for a connection in one word: written only by attempts that have to wait.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

const WAITS: u64 = 1;
const CONNECTING: u64 = 2;
const OVER: u64 = 4;
const MICROS: u32 = 3;

impl Progress {
    /// Nothing was free. `connecting`: there was no connection at all.
    pub(super) fn waits(&self, connecting: bool) {
        self.0.store(WAITS | if connecting { CONNECTING } else { 0 }, Relaxed);
    }

    /// The wait is over, one way or another.
    pub(super) fn over(&self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX) << MICROS;
        self.0.fetch_or(OVER | micros, Relaxed);
    }

    /// Nothing of the request can have been sent.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Relaxed) & (WAITS | OVER) == WAITS
    }

    /// The wait, if there was one; one that is not over began with the attempt, `elapsed` ago. `held_up` is asked whether
    /// limits of this process had to do with it.
    pub(crate) fn wait(&self, elapsed: Duration, held_up: impl FnOnce() -> bool) -> Option<ConnectionWait> {
        let word = self.0.load(Relaxed);
        let over = word & OVER != 0;
        let length = if over { Duration::from_micros(word >> MICROS) } else { elapsed };
        let connecting = word & CONNECTING != 0;
        (word & WAITS != 0).then(|| ConnectionWait { length, connecting, over, held_up: held_up() })
    }
}
