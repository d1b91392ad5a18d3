//! Latencies of millions of requests in a few kilobytes.

use std::time::Duration;

/// Counts durations in buckets that are 0.1 % wide; below 2 ms they are exact to the microsecond.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    micros: u128,
    max: Duration,
}

/// Microseconds below this have a bucket each.
const EXACT: u64 = 2048;

fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    let shift = 63 - micros.leading_zeros() - 10;
    // The leading bit is implied: 1,024 buckets for each power of two.
    EXACT as usize + ((shift as usize - 1) << 10) + ((micros >> shift) as usize - 1024)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let Some(above) = (bucket as u64).checked_sub(EXACT) else { return bucket as u64 };
    let (shift, mantissa) = ((above >> 10) + 1, (above & 1023) + 1024);
    (mantissa << shift) + (1 << (shift - 1))
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.micros += u128::from(micros);
        self.max = self.max.max(value);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The mean; zero of none.
    pub fn mean(&self) -> Duration {
        let mean = self.micros.checked_div(u128::from(self.total)).unwrap_or_default();
        Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// What a share, `0.0..=1.0`, of all did not exceed (nearest rank); zero of none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(middle(bucket)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_a_sorted_list_within_a_thousandth(
            mut micros in proptest::collection::vec(prop_oneof![0_u64..5_000, 0_u64..100_000_000], 1..200),
            share in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let (exact, seen) = (micros[rank - 1] as f64, histogram.quantile(share).as_micros() as f64);
            prop_assert!((exact - seen).abs() <= exact * 1e-3 + 0.5, "{exact} {seen}");
            prop_assert_eq!(histogram.max(), Duration::from_micros(micros[micros.len() - 1]));
        }
    }
}
