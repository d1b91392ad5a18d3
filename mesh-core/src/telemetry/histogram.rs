//! Latencies counted without a lock.
//!
//! prometheus-client's own histogram takes a mutex for each observation, which every connection of the process would
//! share. This one is an array of atomics: an observation is two relaxed additions and one for its bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in seconds: 100 us to 60 s, two to three for each factor of ten.
const BOUNDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// A histogram of durations with fixed bounds. Clones count into the same buckets.
#[derive(Debug, Clone, Default)]
pub struct LatencyHistogram {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl LatencyHistogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.shared.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.shared.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

impl TypedMetric for LatencyHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for LatencyHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        // The encoder sums the buckets up itself; its last bound stands for infinity.
        let mut buckets = [(f64::INFINITY, 0); BOUNDS.len() + 1];
        let mut count = 0;
        for (at, (slot, bucket)) in buckets.iter_mut().zip(&self.shared.buckets).enumerate() {
            let seen = bucket.load(Ordering::Relaxed);
            count += seen;
            *slot = (BOUNDS.get(at).copied().unwrap_or(f64::INFINITY), seen);
        }
        let sum = Duration::from_nanos(self.shared.nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_sum_up_and_the_last_is_infinite() {
        let mut registry = prometheus_client::registry::Registry::default();
        let series = super::super::Series::<[(&str, &str); 1], LatencyHistogram>::new(4, [("k", "-")]);
        registry.register("took", "t", series.clone());
        for millis in [1, 1, 7, 100_000] {
            series.with(&[("k", "v")], |histogram| histogram.observe(Duration::from_millis(millis)));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"took_bucket{le="0.0005",k="v"} 0"#,
            r#"took_bucket{le="0.001",k="v"} 2"#,
            r#"took_bucket{le="0.01",k="v"} 3"#,
            r#"took_bucket{le="60.0",k="v"} 3"#,
            r#"took_bucket{le="+Inf",k="v"} 4"#,
            r#"took_count{k="v"} 4"#,
            r#"took_sum{k="v"} 100.009"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
