//! How slow an endpoint has lately been, kept in one atomic word.

use std::time::Duration;

use tokio::time::Instant;

use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// A moment, in milliseconds since an epoch of the caller's choosing; wraps after 49 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// The tick of `now`, counted from `epoch`.
    #[inline]
    pub fn at(epoch: Instant, now: Instant) -> Self {
        Self::of_millis(millis(now.saturating_duration_since(epoch)))
    }

    /// The tick of a moment that was counted in milliseconds already.
    #[inline]
    pub fn of_millis(millis: u64) -> Self {
        // Truncation is the wrap.
        Self(millis as u32)
    }

    /// Milliseconds from `earlier` to here. A moment that lies ahead, as racing threads see it, is no time ago.
    #[inline]
    fn since(self, earlier: Self) -> u32 {
        let elapsed = self.0.wrapping_sub(earlier.0);
        if elapsed > u32::MAX / 2 { 0 } else { elapsed }
    }
}

/// Whole milliseconds, without the wide division of [`Duration::as_millis`].
#[inline]
pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(u64::from(duration.subsec_millis()))
}

/// How fast a sample loses its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decay {
    /// `-1 / tau`, in 1/ms.
    rate: f32,
}

impl Decay {
    /// After `tau`, a sample's weight is 1/e.
    pub fn new(tau: Duration) -> Self {
        Self { rate: -1.0 / (millis(tau).max(1) as f32) }
    }

    #[inline]
    fn factor(self, elapsed: u32) -> f32 {
        if elapsed == 0 { 1.0 } else { (elapsed as f32 * self.rate).exp() }
    }
}

/// An exponentially weighted moving latency that jumps up at once and comes down slowly.
///
/// A slow answer is believed immediately, because the requests behind it will be slow too; a fast one has to be
/// repeated (Finagle's peak EWMA). An endpoint that gets no samples drifts towards zero, so it is tried again.
///
/// Value and time share one word and change by compare-and-swap: no lock, and no concurrent peak is lost. Reading does
/// not write. Below a peak, samples of the same millisecond count once.
#[derive(Debug)]
pub struct PeakEwma {
    /// The value in seconds (the bits of an `f32`) above the tick of its last change.
    packed: AtomicU64,
}

/// The smallest estimate, in seconds: keeps load decisive where latencies have decayed to nothing.
const FLOOR: f32 = 1e-6;

fn pack(seconds: f32, at: Tick) -> u64 {
    (u64::from(seconds.to_bits()) << 32) | u64::from(at.0)
}

#[inline]
fn unpack(packed: u64) -> (f32, Tick) {
    // Both halves are 32 bits wide.
    (f32::from_bits((packed >> 32) as u32), Tick(packed as u32))
}

impl PeakEwma {
    /// Starts from an assumed latency.
    pub fn new(assumed: Duration, now: Tick) -> Self {
        Self { packed: AtomicU64::new(pack(assumed.as_secs_f32(), now)) }
    }

    /// Takes in a latency.
    pub fn record(&self, sample: Duration, now: Tick, decay: Decay) {
        let sample = sample.as_secs_f32();
        self.change(
            now,
            decay,
            |value, weight| {
                if sample >= value { sample } else { value * weight + sample * (1.0 - weight) }
            },
        );
    }

    /// Takes in that an answer would have taken at least this long.
    ///
    /// Never makes the endpoint look faster.
    pub fn record_at_least(&self, sample: Duration, now: Tick, decay: Decay) {
        let sample = sample.as_secs_f32();
        let (last, at) = unpack(self.packed.load(Relaxed));
        if sample > last * decay.factor(now.since(at)) {
            self.change(now, decay, |value, weight| (value * weight).max(sample));
        }
    }

    /// Forgets the past.
    pub fn reset(&self, assumed: Duration, now: Tick) {
        self.packed.store(pack(assumed.as_secs_f32(), now), Relaxed);
    }

    /// The estimate now, in seconds; never zero.
    #[inline]
    pub fn seconds(&self, now: Tick, decay: Decay) -> f32 {
        let (value, at) = unpack(self.packed.load(Relaxed));
        (value * decay.factor(now.since(at))).max(FLOOR)
    }

    /// The estimate as it was left by the last sample.
    pub fn last(&self) -> Duration {
        Duration::from_secs_f32(unpack(self.packed.load(Relaxed)).0)
    }

    /// Whether a sample came later than `start`.
    #[inline]
    pub fn changed_since(&self, start: Tick) -> bool {
        let (_, at) = unpack(self.packed.load(Relaxed));
        at.since(start) > 0
    }

    fn change(&self, now: Tick, decay: Decay, next: impl Fn(f32, f32) -> f32) {
        let mut current = self.packed.load(Relaxed);
        loop {
            let (value, at) = unpack(current);
            let elapsed = now.since(at);
            // A thread whose clock reading is older must not turn the estimate's time back.
            let tick = if elapsed == 0 { at } else { now };
            let changed = pack(next(value, decay.factor(elapsed)), tick);
            match self.packed.compare_exchange_weak(current, changed, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => current = seen,
            }
        }
    }
}
