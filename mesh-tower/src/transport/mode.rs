//! What a listener demands now, and reminders while that is less than mutual TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_core::Revision;
use mesh_core::config::Mtls;
use mesh_core::telemetry::Metrics;
use tokio::time::Instant;

/// How often somebody is reminded that a listener takes plaintext.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// What one listener started with, and what was said of it last.
#[derive(Debug)]
pub(super) struct Mode {
    listener: Arc<str>,
    address: SocketAddr,
    start: Mtls,
    said: Mutex<Said>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    mtls: Mtls,
    /// Whether plaintext was taken.
    open: bool,
    at: Instant,
}

impl Mode {
    pub(super) fn new(listener: Arc<str>, address: SocketAddr, start: Mtls) -> Self {
        let said = Mutex::new(Said { mtls: Mtls::Strict, open: false, at: Instant::now() });
        Self { listener, address, start, said }
    }

    /// What the listener demands under `revision`; one that vanished from the configuration stays as it started.
    pub(super) fn of(&self, revision: &Revision) -> Mtls {
        revision.config.listeners.get(&*self.listener).map_or(self.start, |listener| listener.mtls)
    }

    /// How long plaintext will be taken; `None` where it is not. Keeps the metric, and logs what changed, and once a day
    /// that plaintext is taken.
    pub(super) fn plaintext_left(&self, revision: &Revision, now: SystemTime, metrics: &Metrics) -> Option<Duration> {
        let mtls = self.of(revision);
        let left = mtls.plaintext_until(now).and_then(|until| until.duration_since(now).ok());
        self.say(mtls, left, metrics);
        left
    }

    fn say(&self, mtls: Mtls, left: Option<Duration>, metrics: &Metrics) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if mtls == Mtls::Strict && said.mtls == Mtls::Strict {
            return;
        }
        metrics.transport.permissive_remaining(&self.listener, left.unwrap_or_default());
        let (listener, address, at) = (&*self.listener, self.address, Instant::now());
        let same = said.mtls == mtls && said.open == left.is_some();
        if same && (left.is_none() || at.duration_since(said.at) < REMIND) {
            return;
        }
        *said = Said { mtls, open: left.is_some(), at };
        match (mtls, left) {
            (Mtls::Strict, _) => tracing::info!(listener, %address, "the listener is strict: no more plaintext"),
            (_, Some(left)) => tracing::warn!(
                listener, %address, ?left,
                "the listener is permissive: plaintext is taken, from anonymous peers; TLS is judged as ever"
            ),
            (_, None) => tracing::warn!(
                listener, %address,
                "the listener's time as a permissive one is over: no more plaintext"
            ),
        }
    }
}
