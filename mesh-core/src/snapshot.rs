//! One immutable value that readers pin and one writer replaces.
//!
//! Everything that changes while the process runs - configuration, policy, identity, endpoints - is published whole.
//! A reader sees the old value or the new one, never a mixture, and takes no lock.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// A value together with the number of its publication.
#[derive(Debug)]
pub struct Versioned<T> {
    generation: u64,
    value: T,
}

impl<T> Versioned<T> {
    /// Grows by one with every publication; the first value has generation 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value itself.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Versioned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// An atomically replaceable value with change notification.
///
/// Reads are wait-free; publications are serialised. Clones share the same cell.
pub struct Snapshot<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    cell: ArcSwap<Versioned<T>>,
    generation: watch::Sender<u64>,
}

impl<T> Snapshot<T> {
    /// Publishes the first value, as generation 1.
    pub fn new(value: T) -> Self {
        let cell = ArcSwap::from_pointee(Versioned { generation: 1, value });
        Self { shared: Arc::new(Shared { cell, generation: watch::Sender::new(1) }) }
    }

    /// Pins the current value. Holding it never blocks a publication.
    pub fn load(&self) -> Arc<Versioned<T>> {
        self.shared.cell.load_full()
    }

    /// Reads the current value without touching its reference count; do not hold across an await.
    pub fn peek(&self) -> impl Deref<Target = Arc<Versioned<T>>> + use<'_, T> {
        self.shared.cell.load()
    }

    /// The generation that [`load`](Self::load) would return now.
    pub fn generation(&self) -> u64 {
        self.shared.cell.load().generation
    }

    /// Replaces the value and wakes every [`Changes`]. Returns the new generation.
    pub fn publish(&self, value: T) -> u64 {
        let mut published = 0;
        // `send_modify` holds the channel's lock, which serialises publishers.
        self.shared.generation.send_modify(|generation| {
            *generation += 1;
            published = *generation;
            self.shared.cell.store(Arc::new(Versioned { generation: published, value }));
        });
        published
    }

    /// A handle that waits for publications made after this call.
    pub fn subscribe(&self) -> Changes<T> {
        Changes { snapshot: self.clone(), generation: self.shared.generation.subscribe() }
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.load()).finish()
    }
}

/// Waits for a [`Snapshot`] to change. Intermediate values may be skipped; the last never is.
pub struct Changes<T> {
    snapshot: Snapshot<T>,
    generation: watch::Receiver<u64>,
}

impl<T> Changes<T> {
    /// Waits for a publication newer than the last one seen, and returns it.
    ///
    /// Cancel safe: a change that arrives while nobody waits is returned by the next call.
    pub async fn changed(&mut self) -> Arc<Versioned<T>> {
        // The sender lives in `self.snapshot`, so the channel cannot close.
        let _ = self.generation.changed().await;
        self.snapshot.load()
    }
}

impl<T> fmt::Debug for Changes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("seen", &*self.generation.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_made_while_nobody_waits_is_seen() {
        let snapshot = Snapshot::new("a");
        let mut changes = snapshot.subscribe();
        assert_eq!(snapshot.publish("b"), 2);
        assert_eq!(snapshot.publish("c"), 3);
        let seen = changes.changed().await;
        assert_eq!((seen.generation(), *seen.value()), (3, "c"));
    }

    #[test]
    fn a_pinned_value_outlives_its_replacement() {
        let snapshot = Snapshot::new(vec![1]);
        let pinned = snapshot.load();
        snapshot.publish(vec![2]);
        assert_eq!(**pinned, [1]);
        assert_eq!(**snapshot.peek().value(), [2]);
    }
}
