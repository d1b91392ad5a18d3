//! What a set is balanced by.

use std::sync::Arc;

use crate::balance::Picker;
use crate::config::{BalanceConfig, BalancePolicy, ClusterConfig, Locality, LocalityConfig};
use crate::discover::Endpoint;
use crate::telemetry::Distance;

/// The configuration of balancing, and what it needs to know besides.
#[derive(Debug)]
pub(super) struct Balancing {
    pub(super) config: BalanceConfig,
    pub(super) residency: Vec<String>,
    /// Where this process runs.
    pub(super) local: Locality,
    /// What stands behind a policy of the program's own.
    pub(super) custom: Option<Arc<dyn Picker>>,
}

impl Balancing {
    pub(super) fn new(config: &ClusterConfig, local: Locality, custom: Option<Arc<dyn Picker>>) -> Self {
        Self { config: config.balance.clone(), residency: config.residency.clone(), local, custom }
    }

    /// Whether traffic may go there at all.
    pub(super) fn admits(&self, endpoint: &Endpoint) -> bool {
        self.residency.is_empty() || self.residency.contains(&endpoint.locality.region)
    }

    pub(super) fn distance(&self, endpoint: &Endpoint) -> Distance {
        let (there, LocalityConfig::ZoneAware(_)) = (&endpoint.locality, &self.config.locality) else {
            return Distance::Any;
        };
        match (there.region == self.local.region, there.zone == self.local.zone) {
            (true, true) => Distance::Zone,
            (true, false) => Distance::Region,
            (false, _) => Distance::Far,
        }
    }

    /// Whether one group holds all localities, with their weights in those of their endpoints.
    pub(super) fn folds_localities(&self) -> bool {
        matches!(self.config.policy, BalancePolicy::RingHash(_))
    }

    /// The weight of an endpoint's locality.
    pub(super) fn weight(&self, endpoint: &Endpoint) -> u32 {
        match &self.config.locality {
            LocalityConfig::Weighted(config) => config.weight(&endpoint.locality),
            _ => 1,
        }
    }

    /// How many callers there are in an endpoint's zone.
    pub(super) fn callers(&self, endpoint: &Endpoint) -> u64 {
        match &self.config.locality {
            LocalityConfig::ZoneAware(config) => config.callers_in(&endpoint.locality),
            _ => 0,
        }
    }
}
