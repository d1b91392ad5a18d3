//! How many streams of one HTTP/2 connection may be cancelled before it is replaced.
//!
//! Frames of an answer that nobody waits for any more are on their way, and have to be told from a peer's errors. h2 can do
//! so while it remembers the stream; each frame of a forgotten one counts against the 1,024 errors after which it ends a
//! connection, with every request on it. (h2: `too_many_internal_resets`) So it is made to remember more of them, for
//! longer, and a connection on which they come near to that makes way for a new one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

/// Cancelled within one span, they have the connection replaced.
pub(super) const MAX: usize = 512;

/// How long a cancelled stream is remembered. A peer whose frames are later than that has long left a ping unanswered.
pub(super) const SPAN: Duration = Duration::from_secs(30);

/// Cancelled streams that h2 remembers, at about 400 bytes each. Two neighbouring spans fall into one of another beginning,
/// and as many more may be cancelled while the successor is connected.
pub(super) const REMEMBERED: usize = 4 * MAX;

/// Counts those of the present span.
#[derive(Default)]
pub(super) struct Cancellations {
    count: AtomicUsize,
    /// When the span began, in milliseconds of the connection's age.
    began: AtomicU64,
    reached: AtomicBool,
    wake: Notify,
}

impl Cancellations {
    /// Counts one, at that age of the connection.
    pub(super) fn count(&self, age: Duration) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let span = u64::try_from(SPAN.as_millis()).unwrap_or(u64::MAX);
        if age.saturating_sub(self.began.load(Relaxed)) >= span {
            // Of those who count at this moment a few may be forgotten, once in a span.
            self.began.store(age, Relaxed);
            self.count.store(0, Relaxed);
        }
        if self.count.fetch_add(1, Relaxed) + 1 >= MAX && !self.reached.swap(true, Relaxed) {
            self.wake.notify_one();
        }
    }

    pub(super) fn too_many(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// Waits until they are too many; for one waiter, and once.
    pub(super) async fn reached(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_of_one_span_are_too_many() {
        let cancellations = Cancellations::default();
        for n in 0..10 * MAX {
            // Just fewer than the maximum in each span.
            let spans = u32::try_from(n / (MAX - 1)).unwrap();
            cancellations.count(spans * SPAN);
        }
        assert!(!cancellations.too_many());
        for _ in 0..MAX {
            cancellations.count(20 * SPAN);
        }
        assert!(cancellations.too_many());
    }
}
