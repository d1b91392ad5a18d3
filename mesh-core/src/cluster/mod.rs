//! A service's endpoints with their live state, and the choice of one for each attempt.
//!
//! Endpoints come and go while requests choose among them. Picking by position in a list that another thread replaces
//! sends requests to the wrong place (tower-rs/tower#856), and state that is thrown away with the list makes every
//! deployment of one pod forget what was learnt about all. So state is kept by key, and a pick holds the endpoint
//! itself.
//!
//! A set is immutable and replaced whole; a pick reads it without a lock, and finds an endpoint in constant expected
//! time. The few things that change a set or take an endpoint in or out are done by one thread at a time.
//!
//! `T` is what the transport keeps for each endpoint (a connection pool); this crate never looks inside. So a pick is
//! compiled where `T` is known, and the small functions that it calls are `#[inline]` to be compiled with it. `T` is dropped
//! when its endpoint has left the set and the last [`Pick`] of it has ended.

mod balancing;
mod choose;
mod endpoint;
mod explain;
mod feed;
mod group;
mod judge;
mod members;
mod next_return;
mod ordinary;
mod pick;
mod plan;
mod reason;
mod set;
mod settings;
mod tried;
mod update;

pub use endpoint::{EndpointReport, EndpointState, Readiness};
pub use explain::{
    ClusterExplanation, EndpointExplanation, EndpointStanding, Foreseen, LocalityExplanation, MAX_LISTED,
    PriorityExplanation, TransportReport,
};
pub use pick::{Pick, PickError};
pub use reason::{PickReason, PickScope, Rival};
pub use tried::Tried;

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::Picker;
use crate::config::{ClusterConfig, HealthCheckConfig, Locality};
use crate::discover::{Endpoint, Feed};
use crate::health::CheckVerdict;
use crate::rng::Rng;
use crate::telemetry::{ClusterMetrics, Metrics};

use balancing::Balancing;
use endpoint::{Shared, since};
use members::Members;
use next_return::NextReturn;
use set::Set;
use settings::{HealthSettings, Settings};

/// The live endpoints of one cluster.
///
/// `&self` everywhere; readers take no lock. Clones are handles of the same cluster.
pub struct Cluster<T> {
    core: Arc<Core<T>>,
}

type Make<T> = Box<dyn Fn(&Endpoint, Readiness) -> T + Send + Sync>;

struct Core<T> {
    shared: Arc<Shared>,
    rng: Rng,
    make: Make<T>,
    set: ArcSwap<Set<T>>,
    /// Held while a set is replaced or an endpoint goes in or out; never while requests wait for it.
    changing: Mutex<()>,
    /// When endpoints are next compared with each other.
    next_comparison: NextReturn,
    health: ArcSwap<HealthSettings>,
    resolved: watch::Sender<bool>,
    /// Tells the calls that wait for the first set, in the order in which they came: `resolved` would draw lots.
    first: Notify,
    /// Told when all endpoints are out: their source may know of others.
    out_of_reach: Arc<Notify>,
}

impl<T: Send + Sync + 'static> Cluster<T> {
    /// A cluster without endpoints yet.
    ///
    /// `make` builds the transport of an endpoint when it first appears.
    pub fn new(
        name: &str,
        config: &ClusterConfig,
        rng: Rng,
        metrics: Arc<Metrics>,
        make: impl Fn(&Endpoint, Readiness) -> T + Send + Sync + 'static,
    ) -> Self {
        let (settings, balancing) = (Settings::new(config), Balancing::new(config, Locality::default(), None));
        let members = Members::new(Vec::new(), Vec::new(), &balancing, &rng);
        let shared = Shared {
            name: name.into(),
            epoch: Instant::now(),
            metrics: metrics.client.cluster(name),
            next_return: NextReturn::default(),
            active: AtomicUsize::new(0),
        };
        let core = Core {
            shared: Arc::new(shared),
            rng,
            make: Box::new(make),
            set: ArcSwap::from_pointee(Set::new(Arc::new(members), settings, Arc::new(balancing))),
            changing: Mutex::new(()),
            next_comparison: NextReturn::default(),
            health: ArcSwap::from_pointee(HealthSettings::new(config)),
            resolved: watch::Sender::new(false),
            first: Notify::new(),
            out_of_reach: Arc::default(),
        };
        core.compare_from(core.shared.epoch);
        Self { core: Arc::new(core) }
    }

    /// Tells where this process runs, which zone-aware balancing goes by; unknown until then.
    #[must_use]
    pub fn located(self, local: Locality) -> Self {
        self.core.rebalance(|config| Balancing { local, ..config });
        self
    }

    /// Balances by this policy where the configuration names one that the program brings; see
    /// [`Mesh::balancer`](crate::Mesh::balancer).
    #[must_use]
    pub fn balanced_by(self, picker: Option<Arc<dyn Picker>>) -> Self {
        self.core.rebalance(|config| Balancing { custom: picker, ..config });
        self
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.core.shared.name
    }

    /// What its clients count.
    pub fn metrics(&self) -> &Arc<ClusterMetrics> {
        &self.core.shared.metrics
    }

    /// Puts new balance, outlier and breaker settings in force; endpoints keep their state.
    ///
    /// A policy of the program's own stays what it was: [`reconfigure_with`](Self::reconfigure_with) replaces it.
    pub fn reconfigure(&self, config: &ClusterConfig) {
        let custom = self.core.set.load().balancing.custom.clone();
        self.reconfigure_with(config, custom);
    }

    /// As [`reconfigure`](Self::reconfigure), with the picker behind the configured policy.
    ///
    /// If that is one of the program's own.
    pub fn reconfigure_with(&self, config: &ClusterConfig, picker: Option<Arc<dyn Picker>>) {
        let (core, now) = (&self.core, Instant::now());
        let _changing = core.lock();
        let old = core.set.load_full();
        let balancing = Balancing::new(config, old.balancing.local.clone(), picker);
        core.health.store(Arc::new(HealthSettings::new(config)));
        core.replace(&old, old.members.endpoints(), Settings::new(config), balancing, now);
        core.compare_from(now);
        // How long held endpoints stay may be another now.
        core.resolved.send_modify(|_| {});
    }

    /// Replaces the set. Endpoints whose key and address stay keep their state and transport.
    ///
    /// Of two endpoints with one key the first is taken, and the other logged.
    pub fn update(&self, endpoints: Vec<Endpoint>, now: Instant) {
        self.core.update(endpoints, now);
    }

    /// Whether [`update`](Self::update) was ever called.
    pub fn resolved(&self) -> bool {
        *self.core.resolved.borrow()
    }

    /// Waits for the first [`update`](Self::update). Cancel safe.
    pub async fn until_resolved(&self) {
        let first = self.core.first.notified(); // before the look, or a set between the two would not wake it
        if !self.resolved() {
            first.await;
        }
    }

    /// Keeps the cluster up to date with what the resolver of `feed` says.
    ///
    /// Until that ends or the last handle is dropped.
    ///
    /// Fails open: a source that cannot be read leaves the last good set in force; one that suddenly lacks many endpoints,
    /// or all, is followed in what it adds, and in what it lacks when that was confirmed
    /// ([`HoldConfig`](crate::config::HoldConfig)). Both with a warning and `mesh_client_discovery_stale` at 1. A service that is
    /// [`Gone`] is emptied.
    ///
    /// With a [snapshot](Feed::snapshot), the last good set is written to disk, a second after it changed, at most every 5 s
    /// and at least every 10 min while the source is well. At the start it is in force as soon as the source says that it
    /// cannot see, or has said nothing for 500 ms; and the first set is held against it.
    ///
    /// The future holds no handle of the cluster. Cancel safe.
    ///
    /// [`Gone`]: crate::discover::Update::Gone
    pub fn follow<F: Into<Feed>>(&self, feed: F) -> impl Future<Output = ()> + Send + use<T, F> {
        let feed = feed.into();
        feed::follow(
            Arc::downgrade(&self.core),
            self.core.resolved.subscribe(),
            Arc::clone(&self.core.out_of_reach),
            feed,
        )
    }

    /// Takes in what an active health check of an endpoint said.
    ///
    /// What changes is logged with the check's reason. A success ends an ejection only if `config` says so, and an
    /// inconclusive check changes nothing.
    pub fn checked(&self, state: &EndpointState<T>, verdict: &CheckVerdict, config: &HealthCheckConfig, now: Instant) {
        self.core.checked(&state.live.vitals, verdict, config, now);
    }

    /// The endpoints as they are now, in the order of their keys.
    pub fn endpoints(&self) -> Arc<Vec<Arc<EndpointState<T>>>> {
        Arc::clone(&self.core.set.load().members.states)
    }

    /// How each endpoint fares, in the order of their keys.
    pub fn report(&self, now: Instant) -> Vec<EndpointReport> {
        let set = self.core.set.load();
        let millis = since(self.core.shared.epoch, now);
        let mut reports: Vec<EndpointReport> =
            set.shares(millis).map(|(slot, share)| slot.state.report(now, set.settings.decay, share)).collect();
        reports.sort_by(|a, b| a.key.cmp(&b.key));
        reports
    }
}

impl<T> Clone for Cluster<T> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<T> fmt::Debug for Cluster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.core.shared.name)
            .field("endpoints", &self.core.set.load().members.states)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
