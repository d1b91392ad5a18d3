//! Closed sets of label values, and a handle for each value.

use std::marker::PhantomData;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

pub(super) type Labels = Vec<(&'static str, String)>;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of the discriminants.
    const ALL: &'static [Self];
    /// The value as it is exposed.
    fn as_str(self) -> &'static str;
    /// Its place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident, $label:literal { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $crate::telemetry::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(super) use labels;

/// One counter for each value of a label, found without a lookup.
#[derive(Debug)]
pub struct Counters<L> {
    counters: Vec<Counter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    pub(super) fn of(family: &Family<Labels, Counter>, cluster: &str) -> Self {
        Self {
            counters: L::ALL.iter().map(|value| family.get_or_create_owned(&of_cluster(cluster, *value))).collect(),
            label: PhantomData,
        }
    }

    /// Counts one.
    pub fn inc(&self, value: L) {
        if let Some(counter) = self.counters.get(value.index()) {
            counter.inc();
        }
    }

    /// What was counted so far.
    pub fn count(&self, value: L) -> u64 {
        self.counters.get(value.index()).map_or(0, Counter::get)
    }
}

/// One gauge for each value of a label.
#[derive(Debug)]
pub struct Gauges<L> {
    gauges: Vec<Gauge>,
    label: PhantomData<L>,
}

impl<L: Label> Gauges<L> {
    pub(super) fn of(family: &Family<Labels, Gauge>, cluster: &str) -> Self {
        Self {
            gauges: L::ALL.iter().map(|value| family.get_or_create_owned(&of_cluster(cluster, *value))).collect(),
            label: PhantomData,
        }
    }

    /// Sets the value.
    pub fn set(&self, label: L, value: i64) {
        if let Some(gauge) = self.gauges.get(label.index()) {
            gauge.set(value);
        }
    }

    /// Moves the value.
    pub fn add(&self, label: L, by: i64) {
        if let Some(gauge) = self.gauges.get(label.index()) {
            gauge.inc_by(by);
        }
    }

    /// The value now.
    pub fn value(&self, label: L) -> i64 {
        self.gauges.get(label.index()).map_or(0, Gauge::get)
    }
}

fn of_cluster<L: Label>(cluster: &str, value: L) -> Labels {
    vec![("cluster", cluster.to_owned()), (L::NAME, value.as_str().to_owned())]
}
