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
//! `T` is what the transport keeps for each endpoint (a connection pool); this crate never looks inside. It is dropped
//! when its endpoint has left the set and the last [`Pick`] of it has ended.

mod endpoint;
mod feed;
mod judge;
mod next_return;
mod pick;
mod set;

pub use endpoint::{EndpointReport, EndpointState, Readiness};
pub use pick::{Pick, PickError, Tried};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::{Decay, Tick, millis};
use crate::config::{ClusterConfig, HealthCheckConfig, HoldConfig, OutlierConfig};
use crate::discover::{Endpoint, Feed};
use crate::health::{Absence, CheckVerdict, Claim, Rules, compares};
use crate::rng::Rng;
use crate::telemetry::{self, BreakerEvent, ClusterMetrics, Metrics};

use endpoint::{Live, Vitals, since};
use next_return::NextReturn;
use set::Set;

/// The live endpoints of one cluster. `&self` everywhere; readers take no lock. Clones are handles of the same cluster.
pub struct Cluster<T> {
    core: Arc<Core<T>>,
}

type Make<T> = Box<dyn Fn(&Endpoint, Readiness) -> T + Send + Sync>;

struct Core<T> {
    name: Arc<str>,
    epoch: Instant,
    rng: Rng,
    metrics: Arc<ClusterMetrics>,
    make: Make<T>,
    set: ArcSwap<Set<T>>,
    /// Held while a set is replaced or an endpoint goes in or out; never while requests wait for it.
    changing: Mutex<()>,
    next_return: Arc<NextReturn>,
    /// When endpoints are next compared with each other.
    next_comparison: NextReturn,
    health: ArcSwap<HealthSettings>,
    resolved: watch::Sender<bool>,
    /// Told when all endpoints are out: their source may know of others.
    out_of_reach: Arc<Notify>,
}

/// What decides who is out, and for how long. Asked when somebody may go out or in, not by every pick.
#[derive(Debug)]
struct HealthSettings {
    outlier: OutlierConfig,
    absence: Absence,
    compares: bool,
}

impl HealthSettings {
    fn new(config: &ClusterConfig) -> Self {
        Self { outlier: config.outlier, absence: Absence::of(config), compares: compares(config) }
    }
}

/// What a pick needs to know of the configuration; each pick keeps what held when it was made.
#[derive(Debug, Clone, Copy)]
struct Settings {
    decay: Decay,
    default_rtt: Duration,
    penalty: Duration,
    rules: Rules,
    hold: HoldConfig,
}

impl Settings {
    fn new(config: &ClusterConfig) -> Self {
        Self {
            decay: Decay::new(config.balance.decay),
            default_rtt: config.balance.default_rtt,
            penalty: config.balance.failure_penalty,
            rules: Rules::of(config),
            hold: config.discover_hold,
        }
    }
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
        let core = Core {
            name: name.into(),
            epoch: Instant::now(),
            rng,
            metrics: metrics.client.cluster(name),
            make: Box::new(make),
            set: ArcSwap::from_pointee(Set::new(Vec::new(), Settings::new(config))),
            changing: Mutex::new(()),
            next_return: Arc::default(),
            next_comparison: NextReturn::default(),
            health: ArcSwap::from_pointee(HealthSettings::new(config)),
            resolved: watch::Sender::new(false),
            out_of_reach: Arc::default(),
        };
        core.compare_from(core.epoch);
        Self { core: Arc::new(core) }
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.core.name
    }

    /// What its clients count.
    pub fn metrics(&self) -> &Arc<ClusterMetrics> {
        &self.core.metrics
    }

    /// Puts new balance, outlier and breaker settings in force; endpoints keep their state.
    pub fn reconfigure(&self, config: &ClusterConfig) {
        let _changing = self.core.lock();
        let states = Vec::clone(&self.core.set.load().states);
        self.core.set.store(Arc::new(Set::new(states, Settings::new(config))));
        self.core.health.store(Arc::new(HealthSettings::new(config)));
        self.core.compare_from(Instant::now());
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
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.core.resolved.subscribe().wait_for(|resolved| *resolved).await;
    }

    /// Keeps the cluster up to date with what the resolver of `feed` says, until that ends or the last handle is dropped.
    ///
    /// Fails open: a source that cannot be read leaves the last good set in force; one that suddenly lacks many endpoints,
    /// or all, is followed in what it adds, and in what it lacks when that was confirmed
    /// ([`HoldConfig`]). Both with a warning and `mesh_client_discovery_stale` at 1. A service that is
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

    /// Chooses an endpoint for one attempt: ready and not ejected, not yet tried; if only tried ones are left, one of
    /// those; if all are out, any. The pick counts as in flight until finished or dropped.
    pub fn pick(&self, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        let core = &*self.core;
        let set = core.set.load();
        let millis = since(core.epoch, now);
        if core.next_return.due(millis).is_some() {
            core.look(now);
        }
        let (choice, probe) = loop {
            let Some(choice) = set.choose(tried, Tick::of_millis(millis), &core.rng) else {
                return Err(if self.resolved() { PickError::Empty } else { PickError::Unresolved });
            };
            if choice.panic {
                core.metrics.panic_picks.inc();
                core.out_of_reach.notify_one();
                break (choice, None);
            }
            match choice.state.live.vitals.outlier.claim() {
                Claim::Ordinary => break (choice, None),
                Claim::Probe(probe) => {
                    core.metrics.breaker.inc(BreakerEvent::Probed);
                    tracing::info!(
                        cluster = %core.name, endpoint = %choice.state.endpoint.key, "this request probes the endpoint"
                    );
                    break (choice, Some(probe));
                }
                // Somebody was faster, and the endpoint is out of this choice now.
                Claim::Taken => {}
            }
        };
        Ok(Pick::new(Arc::clone(choice.state), set.settings, probe, now))
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
        Arc::clone(&self.core.set.load().states)
    }

    /// How each endpoint fares, in the order of their keys.
    pub fn report(&self, now: Instant) -> Vec<EndpointReport> {
        let set = self.core.set.load();
        set.states.iter().map(|state| state.report(now, set.settings.decay)).collect()
    }
}

impl<T> Core<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        // It guards no data: a panic in `make` leaves the old set in force.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock if it is free: on the request path somebody else's change is not waited for.
    fn try_lock(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        match self.changing.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn update(self: &Arc<Self>, endpoints: Vec<Endpoint>, now: Instant) {
        let _changing = self.lock();
        let old = self.set.load_full();
        let mut by_key = BTreeMap::new();
        for endpoint in endpoints {
            match by_key.entry(endpoint.key.clone()) {
                Entry::Vacant(vacant) => _ = vacant.insert(endpoint),
                Entry::Occupied(taken) => {
                    tracing::warn!(
                        cluster = %self.name, endpoint = %taken.key(), "endpoint ignored: another one has its key"
                    );
                }
            }
        }
        // Both sides are sorted by key, and keys are unique: states are found by search, never by position.
        let keep = |endpoint: &Endpoint| {
            let index = old.states.binary_search_by(|state| state.endpoint.key.cmp(&endpoint.key)).ok()?;
            old.states.get(index).filter(|state| state.endpoint.address == endpoint.address)
        };
        let states: Vec<_> = by_key
            .into_values()
            .map(|endpoint| match keep(&endpoint) {
                Some(state) if state.endpoint == endpoint => Arc::clone(state),
                Some(state) => Arc::new(EndpointState { live: Arc::clone(&state.live), endpoint }),
                None => Arc::new(EndpointState {
                    live: Live::new(self, &endpoint, old.settings.default_rtt, now),
                    endpoint,
                }),
            })
            .collect();
        self.metrics.endpoints.set(telemetry::EndpointState::Known, i64::try_from(states.len()).unwrap_or(i64::MAX));
        let set = Set::new(states, old.settings);
        self.note_returns(&set);
        self.set.store(Arc::new(set));
        self.resolved.send_if_modified(|resolved| !std::mem::replace(resolved, true));
    }

    /// Begins an interval of comparison, if endpoints are compared at all; has somebody look at once.
    fn compare_from(&self, now: Instant) {
        let health = self.health.load();
        let end = since(self.epoch, now).saturating_add(millis(health.outlier.interval));
        self.next_comparison.at(health.compares.then_some(end));
        self.next_return.now();
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
            .field("name", &self.core.name)
            .field("endpoints", &self.core.set.load().states)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
