//! Who may connect, when, and how many at once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::task::Poll;

use mesh_core::config::PoolConfig;
use mesh_core::retry::FAIL_FAST;
use mesh_core::telemetry::ConnectFailure;
use tokio::time::Instant;

use super::link::{Failure, Link};
use super::{Lists, Shared, dial, drive};
use crate::ages::spread;
use crate::connect::Dialing;
use crate::error::ErrorKind;
use crate::places::Place as ConnectionPlace;

/// HTTP/1.1 carries one request at a time and so needs more connections than HTTP/2. (`PoolConfig::max_connections`)
const HTTP1_FACTOR: usize = 64;
/// Connects to one endpoint at once, for those who wait: half of the turns that a cluster has by default, so that the others
/// are not kept from shaking hands.
const AT_ONCE: usize = 32;

impl Shared {
    /// Starts connects for those who wait, unless enough are under way. Fails fast where one has just failed.
    pub(super) fn connect_on_demand(shared: &Arc<Self>, since: u64) -> Result<(), Failure> {
        let mut lists = shared.lock();
        if shared.closed.load(Relaxed) {
            return Err(Failure::new(ErrorKind::Connect, ConnectFailure::Tcp, "the endpoint has left the cluster"));
        }
        if let Some(failure) = &lists.failure {
            let just_failed = lists.failed_at.is_some_and(|at| at.elapsed() < FAIL_FAST);
            // Others that were begun together with it may do better.
            if lists.connecting == 0 && (lists.round != since || just_failed) {
                return Err(failure.clone());
            }
        }
        let max = shared.context.settings.load().max_connections;
        let max = if lists.http1 { max.saturating_mul(HTTP1_FACTOR) } else { max };
        let room = max.saturating_sub(lists.alive.len() + lists.connecting);
        for _ in 0..shared.wanted(&lists).min(room) {
            let Some(place) = shared.context.limits.connection(lists.alive.len() + lists.connecting == 0) else {
                shared.line.held_up();
                break;
            };
            lists.connecting += 1;
            let (shared, round) = (Arc::clone(shared), lists.round);
            // Not the waiter's task: a waiter that gives up must not take the others' connection with it. Bounded by
            // `connect_timeout`, and by the wait for its turn to shake hands.
            tokio::spawn(async move { _ = shared.finish_connect(Some(place), round, true).await });
        }
        Ok(())
    }

    /// How many more connects those who wait need, beside those under way.
    fn wanted(&self, lists: &Lists) -> usize {
        let waiting = self.pending.load(SeqCst);
        let needed = match lists.streams {
            _ if lists.http1 => waiting,
            Some(streams) => {
                let connections = self.http2.load();
                let open = connections.iter().filter(|connection| !connection.send.is_closed());
                let free = open.fold(0_usize, |sum, connection| sum.saturating_add(connection.link.room(streams)));
                waiting.saturating_sub(free).div_ceil(streams.max(1))
            }
            // Most often one has room for all, once its peer has said so; then they wake.
            None => usize::from(!self.http2.load().iter().any(|connection| connection.link.is_unsettled())),
        };
        // An endpoint that has just failed is tried by one.
        let at_once = if lists.failures > 0 { 1 } else { AT_ONCE };
        needed.min(at_once).saturating_sub(lists.connecting)
    }

    /// The peer of a new HTTP/2 connection allows so many streams.
    pub(super) fn learn(&self, streams: usize) {
        self.lock().streams = Some(streams);
    }

    /// Makes one connection; `None` if that failed. Boxed, because a connection's own task calls it for its successor.
    pub(super) fn connect(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        self.lock().connecting += 1;
        self.connect_counted()
    }

    pub(super) fn connect_counted(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        let (shared, round) = (Arc::clone(self), self.lock().round);
        // The only one of its endpoint, or the successor of one that goes.
        let place = self.context.limits.connection(true);
        Box::pin(async move { shared.finish_connect(place, round, false).await })
    }

    /// The second half of a connect that is counted already, in its round; `on_demand`: for those who wait, and as long as they
    /// do.
    async fn finish_connect(
        self: &Arc<Self>,
        place: Option<ConnectionPlace>,
        round: u64,
        on_demand: bool,
    ) -> Option<Arc<Link>> {
        struct Counted<'a>(&'a Shared);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.lock().connecting -= 1;
            }
        }
        let counted = Counted(self);
        let (settings, dial) = (self.context.settings.load_full(), self.context.dial.load_full());
        let dialing = Dialing::new(&self.line);
        let result = tokio::select! {
            biased;
            result = dial::connect(&**dial, self.address, &settings, &dialing) => result,
            () = self.superfluous(&dialing, round), if on_demand => {
                std::mem::forget(counted); // it is counted out already
                self.wake.notify_waiters();
                return None;
            }
        };
        let connected = match result {
            Ok(((send, driven), http2, peer, retire_at)) => {
                let max = if http2 { dial::INITIAL_STREAMS } else { 1 };
                let link = Link::new((self.next_id(), round), max, retire_at, self.grows_old(&settings), peer);
                self.add(Arc::clone(&link), send);
                let metrics = Arc::clone(&self.context.metrics);
                // Not in an async block: it would hold the future twice, as given and as awaited.
                tokio::spawn(drive::drive(driven, Arc::clone(&link), Arc::downgrade(self), metrics, place));
                Some(link)
            }
            Err(failure) => {
                self.context.metrics.connections_failed.inc(failure.counted);
                self.failed(failure, round);
                None
            }
        };
        drop(counted);
        // After the count went down, so that whoever wakes may connect again.
        self.wake.notify_waiters();
        connected
    }

    /// Waits until a connect that waits for its turn to shake hands is of no use any more; then it is counted out.
    async fn superfluous(&self, dialing: &Dialing, round: u64) {
        loop {
            let mut eased = pin!(self.eased.notified());
            let left = poll_fn(|cx| {
                if dialing.is_in_line() && self.leaves(round) {
                    return Poll::Ready(true);
                }
                eased.as_mut().poll(cx).map(|()| false)
            });
            if left.await {
                return;
            }
        }
    }

    /// Counts a connect out that nobody needs: its endpoint has left or just failed another, or nobody waits. But one goes
    /// on for an endpoint that has no connection, or callers with little time would never come to their turn.
    fn leaves(&self, round: u64) -> bool {
        let mut lists = self.lock();
        let failed = lists.failures > 0 && lists.round != round && !lists.serves();
        let unneeded = self.pending.load(SeqCst) == 0 && lists.alive.len() + lists.connecting > 1;
        let leaves = failed || unneeded || self.closed.load(Relaxed);
        lists.connecting -= usize::from(leaves);
        leaves
    }

    /// When a connection that is made now has reached its greatest age.
    fn grows_old(&self, settings: &PoolConfig) -> Option<Instant> {
        let age = Some(settings.max_connection_age).filter(|age| !age.is_zero())?;
        Instant::now().checked_add(spread(age, &self.context.rng))
    }

    fn next_id(&self) -> u64 {
        let mut lists = self.lock();
        lists.next_id += 1;
        lists.next_id
    }
}
