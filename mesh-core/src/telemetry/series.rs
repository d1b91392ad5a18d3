//! Metrics by label, bounded in number and read without a lock.
//!
//! Labels that come from traffic can grow without end, and a map behind a lock is shared by every connection. Here a
//! known label set costs one atomic load and a hash; a new one copies the map, which happens a bounded number of times.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// At most `limit` label sets, each with its metric.
///
/// Further ones are counted under one `overflow` set.
pub struct Series<L, M> {
    shared: Arc<Shared<L, M>>,
}

struct Shared<L, M> {
    known: ArcSwap<HashMap<L, Arc<M>>>,
    limit: usize,
    overflow: L,
}

impl<L: Clone + Eq + Hash, M: Default> Series<L, M> {
    /// An empty series.
    pub fn new(limit: usize, overflow: L) -> Self {
        Self { shared: Arc::new(Shared { known: ArcSwap::default(), limit, overflow }) }
    }

    /// Gives the metric of `labels` to `touch`.
    pub fn with(&self, labels: &L, touch: impl FnOnce(&M)) {
        let known = self.shared.known.load();
        if let Some(metric) = known.get(labels) {
            return touch(metric);
        }
        let labels = if known.len() < self.shared.limit { labels } else { &self.shared.overflow };
        drop(known);
        touch(&self.handle(labels));
    }

    /// The metric of `labels`, to be kept and used without a look-up.
    pub fn handle(&self, labels: &L) -> Arc<M> {
        let fresh = Arc::new(M::default());
        self.shared.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(labels.clone()).or_insert_with(|| Arc::clone(&fresh));
            known
        });
        self.shared.known.load().get(labels).map_or(fresh, Arc::clone)
    }
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<L, M> fmt::Debug for Series<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("len", &self.shared.known.load().len()).finish_non_exhaustive()
    }
}

impl<L: EncodeLabelSet + Eq + Hash, M: EncodeMetric + TypedMetric> EncodeMetric for Series<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (labels, metric) in self.shared.known.load().iter() {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn labels_beyond_the_limit_share_one_metric() {
        let series = Series::<[(&str, String); 1], Counter>::new(2, [("k", "-".to_owned())]);
        for key in ["a", "b", "c", "d", "a"] {
            series.with(&[("k", key.to_owned())], |counter| {
                counter.inc();
            });
        }
        let count = |key: &str| series.handle(&[("k", key.to_owned())]).get();
        assert_eq!((count("a"), count("b"), count("-")), (2, 1, 2));
    }
}
