//! Sets that take each other's place, one at a time: endpoints keep their state, and picks wait for nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use tokio::time::Instant;

use super::Core;
use super::balancing::Balancing;
use super::endpoint::{EndpointState, Live, since};
use super::members::Members;
use super::set::Set;
use super::settings::Settings;
use crate::balance::millis;
use crate::discover::Endpoint;
use crate::telemetry;

impl<T> Core<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data: a panic in `make` leaves the old set in force.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock if it is free: on the request path somebody else's change is not waited for.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, ()>> {
        match self.changing.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn update(self: &Arc<Self>, endpoints: Vec<Endpoint>, now: Instant) {
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
        if self.resolved.send_if_modified(|resolved| !std::mem::replace(resolved, true)) {
            self.first.notify_waiters();
        }
    }

    /// Changes what the set is balanced by.
    pub(super) fn rebalance(self: &Arc<Self>, change: impl FnOnce(Balancing) -> Balancing) {
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
    pub(super) fn replace(
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
    pub(super) fn put(&self, set: Set<T>) {
        set.plan.show(&set.members, &self.shared.metrics.balance);
        self.set.store(Arc::new(set));
    }

    /// Begins an interval of comparison, if endpoints are compared at all; has somebody look at once.
    pub(super) fn compare_from(&self, now: Instant) {
        let health = self.health.load();
        let end = since(self.shared.epoch, now).saturating_add(millis(health.outlier.interval));
        self.next_comparison.at(health.compares.then_some(end));
        self.shared.next_return.now();
    }
}
