//! Wall-clock time as a dependency, so that expiry can be replayed.
//!
//! Durations and timers use [`tokio::time::Instant`]; only certificates and tokens, whose validity is written in
//! calendar time, ask a [`WallClock`]. Nothing else in the mesh may read the system clock.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Calendar time for certificates, tokens and audit records.
pub trait WallClock: fmt::Debug + Send + Sync + 'static {
    /// The time now. Must not block.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that reads the system clock
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<SystemTime>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: SystemTime) -> Self {
        Self { now: Mutex::new(now) }
    }

    /// A clock that stands `secs` seconds after the Unix epoch.
    pub fn at_unix(secs: u64) -> Self {
        Self::new(UNIX_EPOCH + Duration::from_secs(secs))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, now: SystemTime) {
        *self.lock() = now;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SystemTime> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.lock()
    }
}
