//! Who may connect, when, and how many at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mesh_core::config::PoolConfig;
use mesh_core::retry::FAIL_FAST;
use mesh_core::telemetry::ConnectFailure;
use tokio::time::Instant;

use super::link::{Failure, Link};
use super::{Shared, dial, drive};
use crate::error::ErrorKind;
use crate::places::Place as ConnectionPlace;

/// HTTP/1.1 carries one request at a time and so needs more connections than HTTP/2. (`PoolConfig::max_connections`)
const HTTP1_FACTOR: usize = 64;
/// By how much a connection may be replaced before its greatest age.
const AGE_JITTER: f64 = 0.1;

impl Shared {
    /// Starts connects for those who wait, unless enough are under way. Fails fast where one has just failed.
    pub(super) fn connect_on_demand(shared: &Arc<Self>, since: u64) -> Result<(), Failure> {
        let mut lists = shared.lock();
        if shared.closed.load(Relaxed) {
            return Err(Failure::new(ErrorKind::Connect, ConnectFailure::Tcp, "the endpoint has left the cluster"));
        }
        if let Some(failure) = &lists.failure {
            let just_failed = lists.failed_at.is_some_and(|at| at.elapsed() < FAIL_FAST);
            if lists.round != since || (just_failed && lists.connecting == 0) {
                return Err(failure.clone());
            }
        }
        // Most often it has room for all, once its peer has said so; then they wake.
        if shared.http2.load().iter().any(|connection| connection.link.is_unsettled()) {
            return Ok(());
        }
        let settings = shared.context.settings.load();
        let (max, wanted) = if lists.http1 {
            (settings.max_connections.saturating_mul(HTTP1_FACTOR), shared.pending.load(Relaxed))
        } else {
            (settings.max_connections, 1)
        };
        let room = max.saturating_sub(lists.alive.len() + lists.connecting);
        for _ in 0..wanted.saturating_sub(lists.connecting).min(room) {
            let Some(place) = shared.context.limits.connection(lists.alive.len() + lists.connecting == 0) else {
                break;
            };
            lists.connecting += 1;
            let shared = Arc::clone(shared);
            // Not the waiter's task: a waiter that gives up must not take the others' connection with it. Bounded by
            // `connect_timeout`, and by the wait for its turn to shake hands.
            tokio::spawn(async move { _ = shared.finish_connect(Some(place)).await });
        }
        Ok(())
    }

    /// Makes one connection; `None` if that failed. Boxed, because a connection's own task calls it for its successor.
    pub(super) fn connect(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        self.lock().connecting += 1;
        self.connect_counted()
    }

    pub(super) fn connect_counted(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        let shared = Arc::clone(self);
        // The only one of its endpoint, or the successor of one that goes.
        let place = self.context.limits.connection(true);
        Box::pin(async move { shared.finish_connect(place).await })
    }

    /// The second half of a connect that is counted already.
    async fn finish_connect(self: &Arc<Self>, place: Option<ConnectionPlace>) -> Option<Arc<Link>> {
        struct Counted<'a>(&'a Shared);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.lock().connecting -= 1;
            }
        }
        let counted = Counted(self);
        let settings = self.context.settings.load_full();
        let result = dial::connect(&**self.context.dial.load_full(), self.address, &settings).await;
        let connected = match result {
            Ok(((send, driven), http2, peer, retire_at)) => {
                let max = if http2 { dial::INITIAL_STREAMS } else { 1 };
                let link = Link::new(self.next_id(), max, retire_at, self.grows_old(&settings), peer);
                self.add(Arc::clone(&link), send);
                let metrics = Arc::clone(&self.context.metrics);
                // Not in an async block: it would hold the future twice, as given and as awaited.
                tokio::spawn(drive::drive(driven, Arc::clone(&link), Arc::downgrade(self), metrics, place));
                Some(link)
            }
            Err(failure) => {
                self.context.metrics.connections_failed.inc(failure.counted);
                self.failed(failure);
                None
            }
        };
        drop(counted);
        // After the count went down, so that whoever wakes may connect again.
        self.wake.notify_waiters();
        connected
    }

    /// When a connection that is made now has reached its greatest age.
    fn grows_old(&self, settings: &PoolConfig) -> Option<Instant> {
        let age = Some(settings.max_connection_age).filter(|age| !age.is_zero())?;
        Instant::now().checked_add(age.mul_f64(1.0 - AGE_JITTER * self.context.rng.unit()))
    }

    fn next_id(&self) -> u64 {
        let mut lists = self.lock();
        lists.next_id += 1;
        lists.next_id
    }
}
