//! What a cluster makes of its endpoints' outcomes: comparisons in each interval, and the ends of probes.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::{Live, since};
use super::set::Set;
use super::{Core, HealthSettings};
use crate::balance::{Tick, millis};
use crate::config::HealthCheckConfig;
use crate::health::{CheckVerdict, Counts, Outcome, Return, Standing, may_eject, outliers};
use crate::telemetry::{self, BreakerEvent, CheckResult, EjectReason, Label};

impl<T> Core<T> {
    /// Takes an endpoint out, unless too many would be out then.
    pub(super) fn eject(&self, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) {
        // Whoever holds the lock now changes who is out; the next failure asks again.
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        self.put_out(&set, live, reason, now);
        self.note_returns(&set);
    }

    /// The same, with the lock held.
    fn put_out(&self, set: &Set<T>, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) {
        let Some(state) = set.find(live) else { return };
        let vitals = &live.vitals;
        if vitals.outlier.standing() != Standing::In {
            return;
        }
        let out = set.states.iter().filter(|other| !Arc::ptr_eq(other, state) && !other.live.vitals.is_well()).count();
        let health = self.health.load();
        if !may_eject(out, set.states.len(), health.outlier.max_ejection_percent) {
            vitals.outlier.start_anew();
            self.metrics.ejections_withheld.inc(reason);
            tracing::debug!(
                cluster = %self.name, endpoint = %vitals.key, reason = reason.as_str(), out,
                "endpoint not ejected: too many are out already"
            );
            return;
        }
        let millis = since(self.epoch, now);
        let Some(duration) = vitals.outlier.eject(reason, millis, &health.absence, &self.rng) else { return };
        self.metrics.ejections.inc(reason);
        self.metrics.endpoints.add(telemetry::EndpointState::Ejected, 1);
        if health.absence.is_probed() {
            self.metrics.breaker.inc(BreakerEvent::Opened);
        }
        tracing::warn!(
            cluster = %self.name, endpoint = %vitals.key, reason = reason.as_str(), ?duration,
            n = vitals.outlier.ejections(), breaker = health.absence.is_probed(), "endpoint ejected"
        );
    }

    /// Lets in whose time is up, and those whom their transport found again. What was known of their latency is from
    /// before: they start as the median of the others. Compares all, if an interval is over.
    pub(super) fn look(&self, now: Instant) {
        let Some(_changing) = self.try_lock() else { return };
        let (set, health) = (self.set.load(), self.health.load());
        let (at, tick) = (since(self.epoch, now), Tick::at(self.epoch, now));
        self.compare(&set, &health, at, now);
        let median = set.median_latency(now, self.epoch);
        for vitals in set.states.iter().map(|state| &*state.live.vitals) {
            let returned = vitals.acknowledge_return();
            let outlier = &vitals.outlier;
            let back = if returned { outlier.returned(at, &health.absence) } else { outlier.look(at, &health.absence) };
            if returned || matches!(back, Some(Return::LetIn | Return::HalfOpen)) {
                vitals.ewma.reset(median, tick);
            }
            match back {
                Some(Return::HalfOpen) => {
                    self.metrics.breaker.inc(BreakerEvent::HalfOpened);
                    tracing::info!(cluster = %self.name, endpoint = %vitals.key, "endpoint waits for its probe");
                }
                Some(Return::LetIn) => {
                    self.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
                    tracing::info!(cluster = %self.name, endpoint = %vitals.key, "endpoint let in again");
                }
                Some(Return::Proven) => self.closed(vitals),
                None => {}
            }
        }
        self.note_returns(&set);
    }

    fn closed(&self, vitals: &super::Vitals) {
        self.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
        self.metrics.breaker.inc(BreakerEvent::Closed);
        tracing::info!(cluster = %self.name, endpoint = %vitals.key, "endpoint let in again: its probe succeeded");
    }

    /// Ejects the outliers of the interval that is over.
    fn compare(&self, set: &Set<T>, health: &HealthSettings, at: u64, now: Instant) {
        let Some(due) = self.next_comparison.due(at) else { return };
        let interval = millis(health.outlier.interval);
        self.next_comparison.at(health.compares.then(|| at.saturating_add(interval)));
        let counts: Vec<Counts> = (set.states.iter())
            .map(|state| {
                let counts = state.live.vitals.outlier.take_counts();
                let is_in = state.live.vitals.outlier.standing() == Standing::In;
                if is_in { counts } else { Counts::default() }
            })
            .collect();
        // Nobody asked for so long that these are of another time.
        if at >= due.saturating_add(interval) {
            return;
        }
        for (index, reason) in outliers(&counts, &health.outlier) {
            if let Some(state) = set.states.get(index) {
                self.put_out(set, &state.live, reason, now);
            }
        }
    }

    /// The attempt that was the probe of `live` is over, or is known to have failed.
    pub(super) fn probed(&self, live: &Live<T>, probe: u64, outcome: Outcome, now: Instant) {
        let (vitals, at) = (&*live.vitals, since(self.epoch, now));
        match outcome {
            Outcome::Cancelled => {
                if vitals.outlier.give_back(probe) {
                    self.metrics.breaker.inc(BreakerEvent::GaveBack);
                }
            }
            Outcome::Success => {
                if vitals.outlier.passed(probe, at) {
                    self.closed(vitals);
                }
            }
            _ => {
                let absence = self.health.load().absence;
                if let Some((duration, until)) = vitals.outlier.probe_failed(probe, at, &absence, &self.rng) {
                    self.next_return.by(until);
                    self.metrics.ejections.inc(EjectReason::ProbeFailed);
                    self.metrics.breaker.inc(BreakerEvent::Reopened);
                    tracing::warn!(
                        cluster = %self.name, endpoint = %vitals.key, reason = EjectReason::ProbeFailed.as_str(),
                        ?duration, n = vitals.outlier.ejections(), breaker = true, "endpoint ejected"
                    );
                }
            }
        }
    }

    /// See [`Cluster::checked`](super::Cluster::checked).
    pub(super) fn checked(
        &self,
        vitals: &super::Vitals,
        verdict: &CheckVerdict,
        config: &HealthCheckConfig,
        now: Instant,
    ) {
        let (result, reason) = match verdict {
            CheckVerdict::Healthy => (CheckResult::Healthy, ""),
            CheckVerdict::Unhealthy(reason) => (CheckResult::Unhealthy, reason.as_str()),
            CheckVerdict::Inconclusive(reason) => (CheckResult::Inconclusive, reason.as_str()),
        };
        self.metrics.health_checks.inc(result);
        let (cluster, endpoint) = (&*self.name, &vitals.key);
        if result == CheckResult::Inconclusive {
            tracing::debug!(cluster, %endpoint, reason, "health check says nothing");
            return;
        }
        let healthy = result == CheckResult::Healthy;
        if vitals.checked.record(healthy, config) {
            self.metrics.endpoints.add(telemetry::EndpointState::Unhealthy, if healthy { -1 } else { 1 });
            if healthy {
                // What was known of its latency is from before.
                self.start_from_median(vitals, now);
                tracing::info!(cluster, %endpoint, "endpoint is healthy again");
            } else {
                tracing::warn!(cluster, %endpoint, reason, "endpoint is unhealthy");
            }
        }
        let ends = healthy && config.ends_ejection && vitals.outlier.standing() != Standing::In;
        if ends && vitals.outlier.let_in(since(self.epoch, now)) {
            self.start_from_median(vitals, now);
            self.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
            tracing::info!(cluster, %endpoint, "endpoint let in again: its health check succeeded");
        }
    }

    fn start_from_median(&self, vitals: &super::Vitals, now: Instant) {
        let median = self.set.load().median_latency(now, self.epoch);
        vitals.ewma.reset(median, Tick::at(self.epoch, now));
    }

    /// Keeps the time of the next look in step with the set. Called with the lock held.
    pub(super) fn note_returns(&self, set: &Set<T>) {
        let next = || {
            // Zero: one returned after it was looked at; what it wrote to `next_return` has just been overwritten.
            let returned = set.states.iter().any(|state| state.live.vitals.has_returned()).then_some(0);
            let ends = set.states.iter().filter_map(|state| state.live.vitals.outlier.next_look());
            ends.chain(returned).chain(self.next_comparison.get()).min()
        };
        self.next_return.settle(next);
    }
}
