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
mod pick;
mod set;

pub use endpoint::{EndpointReport, EndpointState, Readiness};
pub use pick::{Pick, PickError, Tried};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::{Decay, Tick};
use crate::config::{ClusterConfig, HoldConfig, OutlierConfig};
use crate::discover::{Endpoint, Feed};
use crate::health::may_eject;
use crate::rng::Rng;
use crate::telemetry::{self, ClusterMetrics, EjectReason, Metrics};

use endpoint::{Live, Vitals, since};
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
    resolved: watch::Sender<bool>,
    /// Told when all endpoints are out: their source may know of others.
    out_of_reach: Arc<Notify>,
}

/// What a pick needs to know of the configuration; each pick keeps what held when it was made.
#[derive(Debug, Clone, Copy)]
struct Settings {
    decay: Decay,
    default_rtt: Duration,
    penalty: Duration,
    outlier: OutlierConfig,
    hold: HoldConfig,
}

impl Settings {
    fn new(config: &ClusterConfig) -> Self {
        Self {
            decay: Decay::new(config.balance.decay),
            default_rtt: config.balance.default_rtt,
            penalty: config.balance.failure_penalty,
            outlier: config.outlier,
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
            resolved: watch::Sender::new(false),
            out_of_reach: Arc::default(),
        };
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

    /// Puts new balance and outlier settings in force; endpoints keep their state.
    pub fn reconfigure(&self, config: &ClusterConfig) {
        let _changing = self.core.lock();
        let states = Vec::clone(&self.core.set.load().states);
        self.core.set.store(Arc::new(Set::new(states, Settings::new(config))));
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
        if core.next_return.is_due(millis) {
            core.readmit(now);
        }
        let Some(choice) = set.choose(tried, Tick::of_millis(millis), &core.rng) else {
            return Err(if self.resolved() { PickError::Empty } else { PickError::Unresolved });
        };
        if choice.panic {
            core.metrics.panic_picks.inc();
            core.out_of_reach.notify_one();
        }
        Ok(Pick::new(Arc::clone(choice.state), set.settings, now))
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
        self.note_ejections(&set);
        self.set.store(Arc::new(set));
        self.resolved.send_if_modified(|resolved| !std::mem::replace(resolved, true));
    }

    /// Takes an endpoint out, unless too many would be out then.
    fn eject(&self, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) {
        // Whoever holds the lock now changes who is out; the next failure asks again.
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        let Some(state) = set.find(live) else { return };
        if live.vitals.outlier.is_ejected() {
            return;
        }
        let out = set.states.iter().filter(|other| !Arc::ptr_eq(other, state) && !other.live.vitals.is_in()).count();
        let config = &set.settings.outlier;
        if !may_eject(out, set.states.len(), config.max_ejection_percent) {
            live.vitals.outlier.start_anew();
            self.metrics.ejections_withheld.inc(reason);
            tracing::debug!(
                cluster = %self.name, endpoint = %live.vitals.key, reason = telemetry::Label::as_str(reason), out,
                "endpoint not ejected: too many are out already"
            );
            return;
        }
        let duration = live.vitals.outlier.eject(since(self.epoch, now), config);
        self.metrics.ejections.inc(reason);
        self.note_ejections(&set);
        tracing::warn!(
            cluster = %self.name, endpoint = %live.vitals.key, reason = telemetry::Label::as_str(reason), ?duration,
            "endpoint ejected"
        );
    }

    /// Lets in whose time is up, and those whom their transport found again. What was known of their latency is from
    /// before: they start as the median of the others.
    fn readmit(&self, now: Instant) {
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        let (millis, tick) = (since(self.epoch, now), Tick::at(self.epoch, now));
        let median = set.median_latency(now, self.epoch);
        for vitals in set.states.iter().map(|state| &*state.live.vitals) {
            let Vitals { key, outlier, ewma, .. } = vitals;
            let returned = vitals.acknowledge_return();
            let readmitted = if returned { outlier.returned(millis) } else { outlier.readmit(millis) };
            if returned || readmitted {
                ewma.reset(median, tick);
            }
            if readmitted {
                tracing::info!(cluster = %self.name, endpoint = %key, "endpoint let in again");
            }
        }
        self.note_ejections(&set);
    }

    /// Keeps the gauge and the time of the next return in step with the set. Called with the lock held.
    fn note_ejections(&self, set: &Set<T>) {
        let ends = || set.states.iter().filter_map(|state| state.live.vitals.outlier.ejected_until());
        self.next_return.at(ends().min());
        if set.states.iter().any(|state| state.live.vitals.has_returned()) {
            // It returned after it was looked at; what it wrote to `next_return` has just been overwritten.
            self.next_return.now();
        }
        self.metrics
            .endpoints
            .set(telemetry::EndpointState::Ejected, i64::try_from(ends().count()).unwrap_or(i64::MAX));
    }
}

/// When the next endpoint may come back, so that a pick need not look at all of them.
#[derive(Debug)]
struct NextReturn {
    /// In milliseconds since the cluster's epoch; `u64::MAX`: nobody is out.
    millis: AtomicU64,
}

impl Default for NextReturn {
    fn default() -> Self {
        Self { millis: AtomicU64::new(u64::MAX) }
    }
}

impl NextReturn {
    fn is_due(&self, now: u64) -> bool {
        now >= self.millis.load(Relaxed)
    }

    fn at(&self, millis: Option<u64>) {
        self.millis.store(millis.unwrap_or(u64::MAX), SeqCst);
    }

    fn now(&self) {
        self.at(Some(0));
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
mod simulation;
#[cfg(test)]
mod tests;
