//! Exact counts over a sliding window, without a lock.

use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// Parts of a window. What is counted stays for at least 9/10 of the window and at most all of it.
pub(crate) const SLOTS: usize = 10;

/// Counts over the last [`SLOTS`] slots. Each word is the number of a slot above its count.
#[derive(Debug, Default)]
pub(crate) struct Window([AtomicU64; SLOTS]);

fn split(word: u64) -> (u32, u32) {
    // Both halves are 32 bits wide.
    ((word >> 32) as u32, word as u32)
}

fn join(number: u32, count: u32) -> u64 {
    (u64::from(number) << 32) | u64::from(count)
}

/// Whether a slot lies ahead, as racing threads see it.
fn ahead(slot: u32, now: u32) -> bool {
    now.wrapping_sub(slot) > u32::MAX / 2
}

/// Whether a slot still counts.
fn live(slot: u32, now: u32) -> bool {
    now.wrapping_sub(slot) < SLOTS as u32 || ahead(slot, now)
}

impl Window {
    #[allow(clippy::indexing_slicing)] // the remainder is below the array's length
    fn slot(&self, number: u32) -> &AtomicU64 {
        &self.0[number as usize % SLOTS]
    }

    /// What a slot holds, for [`try_add`](Self::try_add).
    pub(crate) fn newest(&self, number: u32) -> u64 {
        self.slot(number).load(Relaxed)
    }

    /// What was counted in the window that ends with slot `now`.
    pub(crate) fn sum(&self, now: u32) -> u64 {
        self.0
            .iter()
            .map(|slot| split(slot.load(Relaxed)))
            .filter(|(number, _)| live(*number, now))
            .map(|(_, count)| u64::from(count))
            .sum()
    }

    /// Counts one.
    pub(crate) fn add(&self, now: u32) {
        while !self.try_add(now, self.newest(now)) {}
    }

    /// Counts one, if the slot is still as it was `seen`.
    pub(crate) fn try_add(&self, now: u32, seen: u64) -> bool {
        let (number, count) = split(seen);
        // What is left of an earlier round does not count any more; a slot that lies ahead is not turned back.
        let next =
            if number == now || ahead(number, now) { join(number, count.saturating_add(1)) } else { join(now, 1) };
        self.slot(now).compare_exchange(seen, next, Relaxed, Relaxed).is_ok()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}
