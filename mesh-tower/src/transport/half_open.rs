//! Connections that have proved nothing yet, and who of them gives way when there are too many.
//!
//! Whoever reaches the port can open connections and say nothing. A client that is well is through its handshake in
//! milliseconds, so the one that has waited longest is the one to lose, as in a SYN cache; but none that is young, or
//! clients that all come back at once would push each other out for ever.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::telemetry::Metrics;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

/// How long a client may hold its place without a whole ClientHello, once places are scarce.
const SILENT: Duration = Duration::from_millis(100);
/// The same for one that is in the middle of its handshake.
const SLOW: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody has grown old enough to give way.
const LOOK: Duration = Duration::from_millis(50);

/// The half-open connections of one listener. The lock is held for a look-up.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    waiting: Mutex<Waiting>,
    left: Notify,
    metrics: Arc<Metrics>,
}

/// By number, so that the first is the oldest.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    silent: BTreeMap<u64, Client>,
    heard: BTreeMap<u64, Client>,
}

#[derive(Debug)]
struct Client {
    since: Instant,
    evict: oneshot::Sender<()>,
}

impl HalfOpen {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), left: Notify::new(), metrics })
    }

    /// Waits until fewer than `limit` connections are half open; old ones give way. Cancel safe.
    pub(crate) async fn room(&self, limit: usize) {
        while self.len() >= limit {
            if !self.evict() {
                let _ = timeout(LOOK, self.left.notified()).await;
            }
        }
    }

    /// Waits for `ready` while nobody can give way for it; then makes the oldest go. Cancel safe where `ready` is.
    pub(crate) async fn until<T>(&self, ready: impl Future<Output = T>) -> T {
        let mut ready = std::pin::pin!(ready);
        loop {
            if let Ok(ready) = timeout(Duration::ZERO, ready.as_mut()).await {
                return ready;
            }
            self.evict();
            if let Ok(ready) = timeout(LOOK, ready.as_mut()).await {
                return ready;
            }
        }
    }

    /// Counts a connection as half open until the place is dropped.
    ///
    /// The second value is ready, and `Ok`, when it must give way.
    pub(crate) fn enter(self: &Arc<Self>) -> (Place, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.silent.insert(number, Client { since: Instant::now(), evict });
        self.metrics.transport.half_open.inc();
        (Place { half_open: Arc::clone(self), number }, evicted)
    }

    fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.silent.len() + waiting.heard.len()
    }

    /// Tells the oldest to go that may be told so; whether there was one.
    fn evict(&self) -> bool {
        let now = Instant::now();
        let waiting = &mut *self.lock();
        for (clients, age) in [(&mut waiting.silent, SILENT), (&mut waiting.heard, SLOW)] {
            if let Some(oldest) = clients.first_entry()
                && now.saturating_duration_since(oldest.get().since) >= age
            {
                let _ = oldest.remove().evict.send(()); // it may have ended by itself just now
                return true;
            }
        }
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // What a panic left is whole: each change is one insertion or removal.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one half-open connection.
#[derive(Debug)]
pub(crate) struct Place {
    half_open: Arc<HalfOpen>,
    number: u64,
}

impl Place {
    /// Its ClientHello is complete.
    pub(super) fn heard(&self) {
        let waiting = &mut *self.half_open.lock();
        if let Some(client) = waiting.silent.remove(&self.number) {
            waiting.heard.insert(self.number, client);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.half_open.lock();
        waiting.silent.remove(&self.number);
        waiting.heard.remove(&self.number);
        drop(waiting);
        self.half_open.metrics.transport.half_open.dec();
        self.half_open.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_gives_way_and_none_that_is_young() {
        let half_open = HalfOpen::new(Arc::default());
        let start = Instant::now();
        let (heard, heard_evicted) = half_open.enter();
        heard.heard();
        let ((first, first_evicted), (second, second_evicted)) = (half_open.enter(), half_open.enter());
        half_open.room(4).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there is room");
        half_open.room(3).await;
        assert!((SILENT..SILENT + 2 * LOOK).contains(&start.elapsed()), "{:?}", start.elapsed());
        first_evicted.await.unwrap(); // it, not the one whose hello was heard, and not the younger one
        half_open.room(2).await;
        second_evicted.await.unwrap();
        half_open.room(1).await;
        assert!((SLOW..SLOW + 2 * LOOK).contains(&start.elapsed()), "{:?}", start.elapsed());
        heard_evicted.await.unwrap();
        drop((heard, first, second));
        assert_eq!(half_open.len(), 0);
        assert_eq!(half_open.metrics.transport.half_open.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_makes_room_at_once() {
        let half_open = HalfOpen::new(Arc::default());
        let (place, _) = half_open.enter();
        let start = Instant::now();
        tokio::join!(half_open.room(1), async { drop(place) });
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
