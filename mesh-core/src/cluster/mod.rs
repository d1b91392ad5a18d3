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
mod endpoint;
mod explain;
mod feed;
mod group;
mod judge;
mod members;
mod next_return;
mod pick;
mod plan;
mod reason;
mod set;

pub use endpoint::{EndpointReport, EndpointState, Readiness};
pub use explain::{
    ClusterExplanation, EndpointExplanation, EndpointStanding, Foreseen, LocalityExplanation, MAX_LISTED,
    PriorityExplanation, TransportReport,
};
pub use pick::{Pick, PickError, Tried};
pub use reason::{PickReason, PickScope, Rival};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::balance::{Decay, PickRequest, Picker, SlowStart, millis};
use crate::config::{
    BalancePolicy, ClusterConfig, HealthCheckConfig, HoldConfig, Locality, OutlierConfig, PanicAction,
};
use crate::discover::{Endpoint, Feed};
use crate::health::{Absence, CheckVerdict, Claim, Rules, compares};
use crate::rng::Rng;
use crate::telemetry::{self, ClusterMetrics, Metrics, PickRefusal};

use balancing::Balancing;
use endpoint::{Live, Shared, Vitals, since};
use group::{Drawn, Slot};
use members::Members;
use next_return::NextReturn;
use set::Set;

/// How often one pick chooses anew because the endpoint that it chose has just got its probe. Each time somebody else got
/// ahead; beyond this the request goes beside the probe.
const LOST_CLAIMS: u32 = 16;

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

/// What a choice needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
struct Settings {
    decay: Decay,
    default_rtt: Duration,
    penalty: Duration,
    rules: Rules,
    hold: HoldConfig,
    panic: PanicAction,
    /// Of panic, in percent.
    threshold: u32,
    slow_start: Option<SlowStart>,
    /// Load is bounded by what is under way in the whole cluster.
    count_active: bool,
}

/// Of those, what an attempt needs when it ends. Each keeps what held when it was made, so it is kept small.
#[derive(Debug, Clone, Copy)]
struct AttemptSettings {
    decay: Decay,
    penalty: Duration,
    rules: Rules,
    count_active: bool,
}

impl Settings {
    fn of_attempt(&self) -> AttemptSettings {
        let Self { decay, penalty, rules, count_active, .. } = *self;
        AttemptSettings { decay, penalty, rules, count_active }
    }

    fn new(config: &ClusterConfig) -> Self {
        let balance = &config.balance;
        let slow_start = balance
            .slow_start
            .map(|slow| SlowStart::new(slow.window, f64::from(slow.min_weight_percent) / 100.0, slow.aggression));
        Self {
            decay: Decay::new(balance.decay),
            default_rtt: balance.default_rtt,
            penalty: balance.failure_penalty,
            rules: Rules::of(config),
            hold: config.discover_hold,
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
            next_comparison: NextReturn::default(),
            health: ArcSwap::from_pointee(HealthSettings::new(config)),
            resolved: watch::Sender::new(false),
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

    /// The same, with the picker that stands behind the configured policy, if that is one of the program's own.
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

    /// Chooses an endpoint for one attempt, as [`pick_by`](Self::pick_by) does for a request without a key.
    pub fn pick(&self, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        self.pick_by(None, tried, now)
    }

    /// Chooses an endpoint for one attempt.
    ///
    /// By priority, locality and policy among those that are ready and not ejected,
    /// and not yet tried; if only tried ones are left, one of those; if too few are in, as `balance.panic` says. `hash`
    /// is that of the request's key, for policies that go by one.
    ///
    /// The pick counts as in flight until finished or dropped.
    pub fn pick_by(&self, hash: Option<u64>, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        self.pick_telling(hash, tried, now, |_, _, _| ()).map(|(pick, ())| pick)
    }

    /// The same, and why.
    pub fn pick_for(&self, hash: Option<u64>, tried: &Tried, now: Instant) -> Result<(Pick<T>, PickReason), PickError> {
        self.pick_telling(hash, tried, now, PickReason::new)
    }

    fn pick_telling<R>(
        &self,
        hash: Option<u64>,
        tried: &Tried,
        now: Instant,
        tell: impl FnOnce(&Drawn<'_, T>, PickScope, bool) -> R,
    ) -> Result<(Pick<T>, R), PickError> {
        let (core, shared) = (&*self.core, &*self.core.shared);
        let mut set = core.set.load();
        let millis = since(shared.epoch, now);
        if shared.next_return.due(millis).is_some() {
            core.look(now);
            set = core.set.load();
        }
        let active = if set.settings.count_active { shared.active.load(Relaxed) } else { 0 };
        let request = PickRequest { hash, active, ..PickRequest::new(&core.rng) };
        let (mut lost, mut known) = (0, false);
        let (choice, probe) = loop {
            let choice = match set.choose(tried, request, millis) {
                Ok(choice) => choice,
                Err(PickError::Empty) if !self.resolved() => return Err(PickError::Unresolved),
                // Known by now, and maybe not yet when this set was read: the first one is put in force before that is said.
                Err(PickError::Empty) if !known => {
                    known = true;
                    set = core.set.load();
                    continue;
                }
                Err(error) => return Err(self.refused(error, &set)),
            };
            match core.claim(&choice.drawn.slot.vitals) {
                Claim::Probe(probe) => break (choice, Some(probe)),
                // Somebody was faster, and the endpoint is out of this choice now.
                Claim::Taken if !choice.scope.is_panic() && lost < LOST_CLAIMS => lost += 1,
                Claim::Ordinary | Claim::Taken => break (choice, None),
            }
        };
        if choice.scope.is_panic() {
            shared.metrics.panic_picks.inc();
            core.ask_again(&set);
        }
        if choice.scope == PickScope::Spilled {
            shared.metrics.balance.spilled.inc();
        }
        let told = tell(&choice.drawn, choice.scope, probe.is_some());
        let Slot { state, vitals, .. } = choice.drawn.slot;
        Ok((Pick::new(state, vitals, set.settings.of_attempt(), probe, now), told))
    }

    /// Takes in what an active health check of an endpoint said.
    ///
    /// What changes is logged with the check's reason. A success ends an ejection only if `config` says so, and an
    /// inconclusive check changes nothing.
    pub fn checked(&self, state: &EndpointState<T>, verdict: &CheckVerdict, config: &HealthCheckConfig, now: Instant) {
        self.core.checked(&state.live.vitals, verdict, config, now);
    }

    /// Counts a pick that found nobody in this set.
    fn refused(&self, error: PickError, set: &Set<T>) -> PickError {
        let refused = &self.core.shared.metrics.balance.refused;
        match error {
            PickError::Residency => refused.inc(PickRefusal::Residency),
            PickError::Unavailable => {
                refused.inc(PickRefusal::Panic);
                self.core.ask_again(set);
            }
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
        self.note_returns(&members);
        self.put(Set::new(Arc::new(members), settings, balancing));
    }

    /// Puts a set in force, and shows what it planned. Called with the lock held.
    fn put(&self, set: Set<T>) {
        set.plan.show(&set.members, &self.shared.metrics.balance);
        self.set.store(Arc::new(set));
    }

    /// Asks the endpoints' source for others, if all are out.
    fn ask_again(&self, set: &Set<T>) {
        if set.plan.available == 0 {
            self.out_of_reach.notify_one();
        }
    }

    /// Begins an interval of comparison, if endpoints are compared at all; has somebody look at once.
    fn compare_from(&self, now: Instant) {
        let health = self.health.load();
        let end = since(self.shared.epoch, now).saturating_add(millis(health.outlier.interval));
        self.next_comparison.at(health.compares.then_some(end));
        self.shared.next_return.now();
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
