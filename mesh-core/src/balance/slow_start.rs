//! A new endpoint's share while it warms up.

use std::time::Duration;

use super::millis;

/// How the share of a new endpoint grows.
///
/// `max(min_weight, (t / window) ^ (1 / aggression))` of its weight.
///
/// A process that has just started has cold caches and connections still to make; with its full share at once it
/// answers slowly or not at all. (Envoy's `slow_start_config`, Istio's `warmup`)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    window: u64,
    min_weight: f32,
    /// 1 / aggression.
    exponent: f32,
}

impl SlowStart {
    /// `min_weight` is a share of 1.
    ///
    /// With an `aggression` above 1 the share grows fast first and slowly then.
    pub fn new(window: Duration, min_weight: f64, aggression: f64) -> Self {
        Self { window: millis(window).max(1), min_weight: min_weight as f32, exponent: (1.0 / aggression) as f32 }
    }

    /// The share of an endpoint's weight that it has so many milliseconds after it came.
    ///
    /// 1 from the window's end on.
    pub fn factor(&self, elapsed: u64) -> f32 {
        if elapsed >= self.window {
            return 1.0;
        }
        let ratio = elapsed as f32 / self.window as f32;
        let grown = if self.exponent == 1.0 { ratio } else { ratio.powf(self.exponent) };
        grown.max(self.min_weight)
    }

    /// When one that came then has its full share.
    pub(crate) fn ends(&self, came: u64) -> u64 {
        came.saturating_add(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_by_the_formula() {
        let secs = Duration::from_secs;
        for (aggression, min, elapsed, expected) in [
            (1.0, 0.1, 0, 0.1),
            (1.0, 0.1, 3, 0.1),
            (1.0, 0.1, 15, 0.5),
            (1.0, 0.1, 29, 29.0 / 30.0),
            (1.0, 0.1, 30, 1.0),
            (2.0, 0.1, 15, 0.5_f64.sqrt()),
            (0.5, 0.1, 15, 0.25),
            (1.0, 0.5, 3, 0.5),
            (1.0, 1.0, 0, 1.0),
        ] {
            let found = SlowStart::new(secs(30), min, aggression).factor(elapsed * 1_000);
            assert!((f64::from(found) - expected).abs() < 1e-5, "{aggression} {min} {elapsed}: {found}");
        }
    }
}
