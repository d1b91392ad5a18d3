//! The queue of those who find no stream free: fair, bounded, and only its front claims.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::SemaphorePermit;

use super::Shared;
use super::lease::Lease;
use crate::error::{Error, ErrorKind};

/// The error of a request that finds the queue full.
pub(crate) fn overloaded(max: usize) -> Error {
    let message = format!("{max} requests wait for a connection already (pool.max_pending)");
    Error::new(ErrorKind::Overloaded, message).never_sent()
}

/// A place in the pending queue.
struct Place<'a>(&'a Shared);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.0.pending.fetch_sub(1, SeqCst) == 1 && !self.0.line.is_empty() {
            self.0.eased.notify_waiters();
        }
    }
}

impl Shared {
    /// Waits for a stream or a connection. Cancel safe: a waiter that gives up leaves its place.
    pub(super) async fn wait(shared: &Arc<Self>) -> Result<Lease, Error> {
        let _place = shared.enqueue()?;
        let round = shared.lock().round;
        let _turn = Self::turn(shared, round).await?;
        // Whoever comes to their turn looks for themselves first, so a wake-up is never lost with one who left.
        loop {
            let mut woken = pin!(shared.wake.notified());
            woken.as_mut().enable();
            if let Some(lease) = Self::claim(shared) {
                return Ok(lease);
            }
            Self::connect_on_demand(shared, round).map_err(|failure| failure.error())?;
            woken.await;
        }
    }

    fn enqueue(&self) -> Result<Place<'_>, Error> {
        let max = self.context.settings.load().max_pending;
        match self.pending.fetch_update(SeqCst, SeqCst, |pending| (pending < max).then_some(pending + 1)) {
            Ok(_) => Ok(Place(self)),
            Err(_) => {
                self.context.limits.pending_refused();
                Err(overloaded(max))
            }
        }
    }

    /// Waits for the front of the queue. Connects are begun from every place in it.
    async fn turn(shared: &Arc<Self>, round: u64) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(turn) = shared.turn.try_acquire() {
            return Ok(turn);
        }
        Self::connect_on_demand(shared, round).map_err(|failure| failure.error())?;
        let turn = shared.turn.acquire().await;
        turn.map_err(|closed| Error::new(ErrorKind::Connection, "nobody is served").caused_by(closed).never_sent())
    }
}
