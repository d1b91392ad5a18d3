//! A service's endpoints with their live state, and the choice of one for each attempt.
//!
//! `T` is what the transport keeps for each endpoint (a connection pool); this crate never looks inside.

mod endpoint;
mod pick;

pub use endpoint::{EndpointState, Readiness};
pub use pick::{Outcome, Pick, PickError, Tried};

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::ClusterConfig;
use crate::discover::Endpoint;
use crate::rng::Rng;
use crate::telemetry::Metrics;

/// The live endpoints of one cluster. `&self` everywhere; readers take no lock.
pub struct Cluster<T> {
    _transport: std::marker::PhantomData<fn() -> T>,
}

impl<T: Send + Sync + 'static> Cluster<T> {
    /// A cluster without endpoints yet. `make` builds the transport of an endpoint when it first appears.
    pub fn new(
        name: &str,
        config: &ClusterConfig,
        rng: Rng,
        metrics: Arc<Metrics>,
        make: impl Fn(&Endpoint, Readiness) -> T + Send + Sync + 'static,
    ) -> Self {
        let _ = (name, config, rng, metrics, make);
        unimplemented!()
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        unimplemented!()
    }

    /// Puts new balance and outlier settings in force; endpoints keep their state.
    pub fn reconfigure(&self, config: &ClusterConfig) {
        let _ = config;
        unimplemented!()
    }

    /// Replaces the set. Endpoints whose key and address stay keep their state and transport.
    pub fn update(&self, endpoints: Vec<Endpoint>, now: Instant) {
        let _ = (endpoints, now);
        unimplemented!()
    }

    /// Whether [`update`](Self::update) was ever called.
    pub fn resolved(&self) -> bool {
        unimplemented!()
    }

    /// Waits for the first [`update`](Self::update). Cancel safe.
    pub async fn until_resolved(&self) {
        unimplemented!()
    }

    /// Chooses an endpoint for one attempt: ready and not ejected, not yet tried; if only tried ones are left, one of
    /// those; if all are out, any. The pick counts as in flight until finished or dropped.
    pub fn pick(&self, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        let _ = (tried, now);
        unimplemented!()
    }

    /// The endpoints as they are now, in the order of their keys.
    pub fn endpoints(&self) -> Arc<Vec<Arc<EndpointState<T>>>> {
        unimplemented!()
    }
}
