//! Whether an endpoint's last attempts failed, one bit for each.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// The outcomes of the last sixteen attempts; those that were not made yet succeeded.
///
/// The last one alone says little of an endpoint that fails every second request. Two threads that note theirs at once may
/// lose one of the two: a share of sixteen is no count.
#[derive(Debug, Default)]
pub(super) struct Latest(AtomicU16);

impl Latest {
    #[inline]
    pub(super) fn note(&self, failed: bool) {
        let before = self.0.load(Relaxed);
        // All good already: reading keeps the cache line shared.
        if before != 0 || failed {
            self.0.store(before << 1 | u16::from(failed), Relaxed);
        }
    }

    /// How many of them failed.
    pub(super) fn failures(&self) -> u32 {
        self.0.load(Relaxed).count_ones()
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}
