//! When there is next something to look at, so that a pick need not look at all endpoints.

use crate::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// In milliseconds since the cluster's epoch; `u64::MAX`: never.
#[derive(Debug)]
pub(crate) struct NextReturn {
    millis: AtomicU64,
}

impl Default for NextReturn {
    fn default() -> Self {
        Self { millis: AtomicU64::new(u64::MAX) }
    }
}

impl NextReturn {
    /// When it was due, if it is.
    #[inline]
    pub(crate) fn due(&self, now: u64) -> Option<u64> {
        Some(self.millis.load(Relaxed)).filter(|due| now >= *due)
    }

    /// The time, if there is one.
    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.millis.load(SeqCst)).filter(|at| *at != u64::MAX)
    }

    /// At this time, or never. Whoever looks after this call sees the changes of all whose times it overwrote.
    pub(crate) fn at(&self, millis: Option<u64>) {
        // Not a store: it has to read what it overwrites to be ordered after it.
        self.millis.swap(millis.unwrap_or(u64::MAX), SeqCst);
    }

    /// At this time at the latest. The change that makes it so must have been made before, in `SeqCst`.
    pub(crate) fn by(&self, millis: u64) {
        self.millis.fetch_min(millis, SeqCst);
    }

    /// At once. The change that makes it so must have been made before, in any order.
    pub(crate) fn now(&self) {
        self.by(0);
    }

    /// Sets what `next` finds. For one thread at a time; others may call [`by`](Self::by) and [`now`](Self::now)
    /// meanwhile, and are overwritten only by what has seen their change, or sees it after this call.
    pub(crate) fn settle(&self, next: impl Fn() -> Option<u64>) {
        loop {
            let found = next();
            self.at(found);
            let again = next();
            if found.unwrap_or(u64::MAX) <= again.unwrap_or(u64::MAX) {
                return;
            }
        }
    }
}
