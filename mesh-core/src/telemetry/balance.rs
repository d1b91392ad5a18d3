//! What balancing decided, by cluster: who gets how much, and what was out of the ordinary.
//!
//! Shares are gauges that change when an endpoint goes in or out; a pick that follows them counts nothing.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Counters, Gauges, Label, Labels, labels};

labels! {
    /// A priority; from the fifth on they are counted together.
    PriorityLabel, "priority" {
        /// 0
        First = "0",
        /// 1
        Second = "1",
        /// 2
        Third = "2",
        /// 3
        Fourth = "3",
        /// 4 and all after it.
        Later = "4+",
    }
}

impl PriorityLabel {
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The label of a priority.
    pub fn of(priority: u32) -> Self {
        Self::ALL.get(priority as usize).copied().unwrap_or(Self::Later)
    }
}

labels! {
    /// How far away endpoints are; also the order in which zone-aware balancing prefers them.
    Distance, "distance" {
        /// In the own zone.
        Zone = "zone",
        /// In another zone of the own region.
        Region = "region",
        /// In another region.
        Far = "far",
        /// Not told apart.
        Any = "any",
    }
}

impl Distance {
    pub(crate) const COUNT: usize = Self::ALL.len();
}

labels! {
    /// Why no endpoint was picked although discovery knows some.
    PickRefusal, "reason" {
        /// None is in a region that the cluster's `residency` allows.
        Residency = "residency",
        /// Too few are available, and the cluster's `balance.panic` forbids to use the others.
        Panic = "panic",
    }
}

/// The families, for all clusters.
#[derive(Debug, Default)]
pub(super) struct BalanceFamilies {
    priority_percent: Family<Labels, Gauge>,
    priority_panic: Family<Labels, Gauge>,
    distance_percent: Family<Labels, Gauge>,
    outside: Family<Labels, Gauge>,
    refused: Family<Labels, Counter>,
    spilled: Family<Labels, Counter>,
}

impl BalanceFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        let mut gauge = |name: &str, help: &str, family: &Family<Labels, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge("priority_percent", "Of 100 requests, how many each priority gets now", &families.priority_percent);
        gauge("priority_panic", "1 while too few endpoints of a priority are available", &families.priority_panic);
        gauge("distance_percent", "Of 100 requests, how many go how far now", &families.distance_percent);
        gauge("endpoints_outside_residency", "Endpoints that residency shuts out", &families.outside);
        registry.register(
            "picks_refused",
            "Picks without an endpoint although some are known",
            families.refused.clone(),
        );
        registry.register("picks_spilled", "Picks that left the nearest zone for its load", families.spilled.clone());
        families
    }

    pub(super) fn cluster(&self, cluster: &str) -> BalanceMetrics {
        let own = || vec![("cluster", cluster.to_owned())];
        BalanceMetrics {
            priority_percent: Gauges::of(&self.priority_percent, cluster),
            priority_panic: Gauges::of(&self.priority_panic, cluster),
            distance_percent: Gauges::of(&self.distance_percent, cluster),
            outside: self.outside.get_or_create_owned(&own()),
            refused: Counters::of(&self.refused, cluster),
            spilled: self.spilled.get_or_create_owned(&own()),
        }
    }
}

/// What balancing decided in one cluster; kept by [`Cluster`](crate::cluster::Cluster).
#[derive(Debug)]
pub struct BalanceMetrics {
    /// Of 100 requests, how many each priority gets.
    pub priority_percent: Gauges<PriorityLabel>,
    /// 1 while a priority is in panic.
    pub priority_panic: Gauges<PriorityLabel>,
    /// Of 100 requests, how many go how far.
    pub distance_percent: Gauges<Distance>,
    /// Endpoints that `residency` shuts out.
    pub outside: Gauge,
    /// Picks without an endpoint although discovery knows some.
    pub refused: Counters<PickRefusal>,
    /// Picks that left the nearest ring because its endpoint had too much to do.
    pub spilled: Counter,
}

impl BalanceMetrics {
    pub(crate) fn show(&self, percents: &[i64], panics: &[i64], distances: &[i64]) {
        for (label, (percent, panic)) in PriorityLabel::ALL.iter().zip(percents.iter().zip(panics)) {
            self.priority_percent.set(*label, *percent);
            self.priority_panic.set(*label, *panic);
        }
        for (label, percent) in Distance::ALL.iter().zip(distances) {
            self.distance_percent.set(*label, *percent);
        }
    }
}
