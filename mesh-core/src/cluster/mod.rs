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

mod balancing;
mod endpoint;
mod feed;
mod group;
mod members;
mod pick;
mod plan;
mod set;

pub use endpoint::{EndpointReport, EndpointState, Readiness};
pub use pick::{Pick, PickError, Tried};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::{Decay, PickRequest, Picker, SlowStart};
use crate::config::{BalancePolicy, ClusterConfig, Locality, OutlierConfig, PanicAction};
use crate::discover::{Endpoint, Resolve};
use crate::health::may_eject;
use crate::rng::Rng;
use crate::telemetry::{self, ClusterMetrics, EjectReason, Metrics, PickRefusal};

use balancing::Balancing;
use endpoint::{Live, Shared, Vitals, since};
use members::Members;
use set::Set;

/// The live endpoints of one cluster. `&self` everywhere; readers take no lock. Clones are handles of the same cluster.
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
    resolved: watch::Sender<bool>,
}

/// What a pick needs to know of the configuration; each pick keeps what held when it was made.
#[derive(Debug, Clone, Copy)]
struct Settings {
    decay: Decay,
    default_rtt: Duration,
    penalty: Duration,
    outlier: OutlierConfig,
    panic: PanicAction,
    /// Of panic, in percent.
    threshold: u32,
    slow_start: Option<SlowStart>,
    /// Load is bounded by what is under way in the whole cluster.
    count_active: bool,
}

impl Settings {
    fn new(config: &ClusterConfig) -> Self {
        let balance = &config.balance;
        let slow_start = balance
            .slow_start
            .map(|slow| SlowStart::new(slow.window, f64::from(slow.min_weight_percent) / 100.0, slow.aggression));
        Self {
            decay: Decay::new(balance.decay),
            default_rtt: balance.default_rtt,
            penalty: balance.failure_penalty,
            outlier: config.outlier,
            panic: balance.panic.action,
            threshold: balance.panic.threshold_percent,
            slow_start,
            count_active: matches!(&balance.policy, BalancePolicy::RingHash(ring) if ring.balance_factor.is_some()),
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
            resolved: watch::Sender::new(false),
        };
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

    /// Puts new balance and outlier settings in force; endpoints keep their state.
    ///
    /// A policy of the program's own stays what it was: [`reconfigure_with`](Self::reconfigure_with) replaces it.
    pub fn reconfigure(&self, config: &ClusterConfig) {
        let custom = self.core.set.load().balancing.custom.clone();
        self.reconfigure_with(config, custom);
    }

    /// The same, with the picker that stands behind the configured policy, if that is one of the program's own.
    pub fn reconfigure_with(&self, config: &ClusterConfig, picker: Option<Arc<dyn Picker>>) {
        let core = &self.core;
        let _changing = core.lock();
        let old = core.set.load_full();
        let balancing = Balancing::new(config, old.balancing.local.clone(), picker);
        core.replace(&old, old.members.endpoints(), Settings::new(config), balancing, Instant::now());
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

    /// Keeps the cluster up to date with what `resolver` says, until that ends or the last handle is dropped.
    ///
    /// Fails open: a source that cannot be read, or that suddenly knows no endpoint at all, leaves the last good set in
    /// force, with a warning and `mesh_client_discovery_stale` at 1. Only a service that is [`Gone`] is emptied.
    ///
    /// The future holds no handle of the cluster. Cancel safe.
    ///
    /// [`Gone`]: crate::discover::Update::Gone
    pub fn follow(&self, resolver: Arc<dyn Resolve>) -> impl Future<Output = ()> + Send + use<T> {
        feed::follow(Arc::downgrade(&self.core), self.core.resolved.subscribe(), resolver)
    }

    /// Chooses an endpoint for one attempt, as [`pick_by`](Self::pick_by) does for a request without a key.
    pub fn pick(&self, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        self.pick_by(None, tried, now)
    }

    /// Chooses an endpoint for one attempt: by priority, locality and policy among those that are ready and not ejected,
    /// and not yet tried; if only tried ones are left, one of those; if too few are in, as `balance.panic` says. `hash`
    /// is that of the request's key, for policies that go by one.
    ///
    /// The pick counts as in flight until finished or dropped.
    pub fn pick_by(&self, hash: Option<u64>, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        let core = &*self.core;
        let mut set = core.set.load();
        let shared = &*core.shared;
        let millis = since(shared.epoch, now);
        if shared.next_return.is_due(millis) {
            core.readmit(now);
            set = core.set.load();
        }
        let active = if set.settings.count_active { shared.active.load(Relaxed) } else { 0 };
        let request = PickRequest { hash, active, ..PickRequest::new(&core.rng) };
        let choice = match set.choose(tried, request, millis) {
            Ok(choice) => choice,
            Err(error) => return Err(self.refused(error)),
        };
        if choice.panic {
            shared.metrics.panic_picks.inc();
        }
        if choice.spilled {
            shared.metrics.balance.spilled.inc();
        }
        Ok(Pick::new(Arc::clone(choice.state), set.settings, now))
    }

    /// Counts a pick that found nobody.
    fn refused(&self, error: PickError) -> PickError {
        let refused = &self.core.shared.metrics.balance.refused;
        match error {
            PickError::Empty if !self.resolved() => return PickError::Unresolved,
            PickError::Residency => refused.inc(PickRefusal::Residency),
            PickError::Unavailable => refused.inc(PickRefusal::Panic),
            PickError::Empty | PickError::Unresolved => {}
        }
        error
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
                        cluster = %self.shared.name, endpoint = %taken.key(),
                        "endpoint ignored: another one has its key"
                    );
                }
            }
        }
        let balancing = Arc::clone(&old.balancing);
        self.replace(&old, by_key.into_values().collect(), old.settings, balancing, now);
        self.resolved.send_if_modified(|resolved| !std::mem::replace(resolved, true));
    }

    /// Changes what the set is balanced by.
    fn rebalance(self: &Arc<Self>, change: impl FnOnce(Balancing) -> Balancing) {
        let _changing = self.lock();
        let old = self.set.load_full();
        let Balancing { config, residency, local, custom } = &*old.balancing;
        let balancing = Balancing {
            config: config.clone(),
            residency: residency.clone(),
            local: local.clone(),
            custom: custom.clone(),
        };
        self.replace(&old, old.members.endpoints(), old.settings, change(balancing), Instant::now());
    }

    /// Puts a set of these endpoints, sorted by their keys, in the place of `old`. Called with the lock held.
    fn replace(
        self: &Arc<Self>,
        old: &Set<T>,
        endpoints: Vec<Endpoint>,
        settings: Settings,
        balancing: impl Into<Arc<Balancing>>,
        now: Instant,
    ) {
        let balancing = balancing.into();
        let states = &old.members.states;
        // Both sides are sorted by key, and keys are unique: states are found by search, never by position.
        let keep = |endpoint: &Endpoint| {
            let index = states.binary_search_by(|state| state.endpoint.key.cmp(&endpoint.key)).ok()?;
            states.get(index).filter(|state| state.endpoint.address == endpoint.address)
        };
        // A new one is as good as the others until it is known better: with more it would starve beside fast ones.
        let assumed = old.median_latency(now, self.shared.epoch).unwrap_or(settings.default_rtt);
        let known = endpoints.len();
        let (inside, outside): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|endpoint| balancing.admits(endpoint));
        let states: Vec<_> = inside
            .into_iter()
            .map(|endpoint| match keep(&endpoint) {
                Some(state) if state.endpoint == endpoint => Arc::clone(state),
                Some(state) => Arc::new(EndpointState { live: Arc::clone(&state.live), endpoint }),
                None => Arc::new(EndpointState { live: Live::new(self, &endpoint, assumed, now), endpoint }),
            })
            .collect();
        let metrics = &self.shared.metrics;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.endpoints.set(telemetry::EndpointState::Known, count(known));
        if outside.len() != old.members.outside.len() {
            tracing::warn!(
                cluster = %self.shared.name, outside = outside.len(), inside = states.len(),
                residency = ?balancing.residency, "endpoints in other regions get no traffic"
            );
        }
        metrics.balance.outside.set(count(outside.len()));
        let members = Members::new(states, outside, &balancing, &self.rng);
        self.note_ejections(&members);
        self.put(Set::new(Arc::new(members), settings, balancing));
    }

    /// Puts a set in force, and shows what it planned. Called with the lock held.
    fn put(&self, set: Set<T>) {
        set.plan.show(&set.members, &self.shared.metrics.balance);
        self.set.store(Arc::new(set));
    }

    /// Takes an endpoint out, unless too many would be out then.
    fn eject(&self, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) {
        // Whoever holds the lock now changes who is out; the next failure asks again.
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        let Some(state) = set.members.find(live) else { return };
        if live.vitals.outlier.is_ejected() {
            return;
        }
        let states = &set.members.states;
        let out = states.iter().filter(|other| !Arc::ptr_eq(other, state) && !other.live.vitals.is_in()).count();
        let config = &set.settings.outlier;
        if !may_eject(out, states.len(), config.max_ejection_percent) {
            live.vitals.outlier.start_anew();
            self.shared.metrics.ejections_withheld.inc(reason);
            tracing::debug!(
                cluster = %self.shared.name, endpoint = %live.vitals.key, reason = telemetry::Label::as_str(reason), out,
                "endpoint not ejected: too many are out already"
            );
            return;
        }
        let duration = live.vitals.outlier.eject(since(self.shared.epoch, now), config);
        self.shared.metrics.ejections.inc(reason);
        self.note_ejections(&set.members);
        self.put(set.planned_anew());
        tracing::warn!(
            cluster = %self.shared.name, endpoint = %live.vitals.key, reason = telemetry::Label::as_str(reason), ?duration,
            "endpoint ejected"
        );
    }

    /// Lets in whose time is up, and those whom their transport found again, and plans anew, also for those who went out
    /// by themselves. What was known of the latency of one that comes back is from before: it starts as the median of
    /// the others.
    fn readmit(&self, now: Instant) {
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        let millis = since(self.shared.epoch, now);
        let due = |vitals: &Vitals| vitals.outlier.ejected_until().is_some_and(|until| until <= millis);
        let back = set.members.slots.iter().any(|slot| slot.vitals.has_returned() || due(&slot.vitals));
        // Of those who stayed: before anybody is let in.
        let median = if back { set.median_latency(now, self.shared.epoch) } else { None };
        let median = median.unwrap_or(set.settings.default_rtt);
        for vitals in set.members.slots.iter().map(|slot| &*slot.vitals) {
            let Vitals { key, outlier, .. } = vitals;
            let returned = vitals.acknowledge_return();
            let readmitted = if returned { outlier.returned(millis) } else { outlier.readmit(millis) };
            if returned || readmitted {
                vitals.start_anew(median, millis);
            }
            if readmitted {
                tracing::info!(cluster = %self.shared.name, endpoint = %key, "endpoint let in again");
            }
        }
        self.note_ejections(&set.members);
        self.put(set.planned_anew());
    }

    /// Keeps the gauge and the time of the next return in step with the set. Called with the lock held, and before the
    /// plan is made: who goes in or out after that says so again.
    fn note_ejections(&self, members: &Members<T>) {
        let ends = || members.states.iter().filter_map(|state| state.live.vitals.outlier.ejected_until());
        let next_return = &self.shared.next_return;
        next_return.at(ends().min());
        if members.states.iter().any(|state| state.live.vitals.has_returned()) {
            // It returned after it was looked at; what it wrote to `next_return` has just been overwritten.
            next_return.now();
        }
        let ejected = i64::try_from(ends().count()).unwrap_or(i64::MAX);
        self.shared.metrics.endpoints.set(telemetry::EndpointState::Ejected, ejected);
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
            .field("name", &self.core.shared.name)
            .field("endpoints", &self.core.set.load().members.states)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
