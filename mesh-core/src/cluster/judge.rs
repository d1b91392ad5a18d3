//! What a cluster makes of its endpoints' outcomes: comparisons in each interval, and the ends of probes.
//!
//! Whoever takes an endpoint in or out with the lock held notes the returns and then makes the plan anew; whoever does so
//! without it has the next pick look, which does both.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::{Live, Vitals, since};
use super::members::Members;
use super::set::Set;
use super::settings::HealthSettings;
use super::{Core, EndpointState};
use crate::balance::{Tick, millis};
use crate::config::HealthCheckConfig;
use crate::health::{CheckVerdict, Claim, Counts, Outcome, Return, Standing, may_eject, outliers};
use crate::telemetry::{self, BreakerEvent, CheckResult, EjectReason, Label};

impl<T> Core<T> {
    /// Takes an endpoint out, unless too many would be out then.
    pub(super) fn eject(&self, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) {
        // Whoever holds the lock now changes who is out; the next failure asks again.
        let Some(_changing) = self.try_lock() else { return };
        let set = self.set.load();
        if self.put_out(&set, live, reason, now) {
            self.note_returns(&set.members);
            self.put(set.planned_anew());
        }
    }

    /// The same, with the lock held; says whether it went out. The plan is not made anew yet.
    fn put_out(&self, set: &Set<T>, live: &Arc<Live<T>>, reason: EjectReason, now: Instant) -> bool {
        let Some(state) = set.members.find(live) else { return false };
        let (vitals, states) = (&live.vitals, &set.members.states);
        if vitals.outlier.standing() != Standing::In {
            return false;
        }
        let health = self.health.load();
        let recently = now.checked_sub(health.outlier.interval).unwrap_or(self.shared.epoch);
        if is_common(reason, state, states, Tick::at(self.shared.epoch, recently)) {
            vitals.outlier.fails_with_others();
            self.shared.metrics.ejections_withheld.inc(reason);
            tracing::debug!(
                cluster = %self.shared.name, endpoint = %vitals.key, reason = reason.as_str(),
                "endpoint not ejected: most of the others fail as well"
            );
            return false;
        }
        let out = states.iter().filter(|other| !Arc::ptr_eq(other, state) && !other.live.vitals.is_well()).count();
        if !may_eject(out, states.len(), health.outlier.max_ejection_percent) {
            vitals.outlier.asked_in_vain();
            self.shared.metrics.ejections_withheld.inc(reason);
            tracing::debug!(
                cluster = %self.shared.name, endpoint = %vitals.key, reason = reason.as_str(), out,
                "endpoint not ejected: too many are out already"
            );
            return false;
        }
        let millis = since(self.shared.epoch, now);
        let Some(duration) = vitals.outlier.eject(reason, millis, &health.absence, &self.rng) else { return false };
        self.shared.metrics.ejections.inc(reason);
        self.shared.metrics.endpoints.add(telemetry::EndpointState::Ejected, 1);
        if health.absence.is_probed() {
            self.shared.metrics.breaker.inc(BreakerEvent::Opened);
        }
        tracing::warn!(
            cluster = %self.shared.name, endpoint = %vitals.key, reason = reason.as_str(), ?duration,
            n = vitals.outlier.ejections(), breaker = health.absence.is_probed(), "endpoint ejected"
        );
        true
    }

    /// Lets in whose time is up, and those whom their transport found again, and plans anew, also for those who went in or
    /// out by themselves. What was known of the latency of one that comes back is from before: it starts as the median of
    /// the others. Compares all, if an interval is over.
    pub(super) fn look(&self, now: Instant) {
        let Some(_changing) = self.try_lock() else { return };
        let (set, health) = (self.set.load(), self.health.load());
        let (at, tick) = (since(self.shared.epoch, now), Tick::at(self.shared.epoch, now));
        self.compare(&set, &health, at, now);
        let away = |vitals: &Vitals| vitals.has_returned() || vitals.outlier.standing() != Standing::In;
        let any_away = set.members.slots.iter().any(|slot| away(&slot.vitals));
        // Of those who stayed: before anybody is let in.
        let median = if any_away { set.median_latency(now, self.shared.epoch) } else { None };
        let median = median.unwrap_or(set.settings.default_rtt);
        for vitals in set.members.slots.iter().map(|slot| &*slot.vitals) {
            let returned = vitals.acknowledge_return();
            let outlier = &vitals.outlier;
            let back = if returned { outlier.returned(at, &health.absence) } else { outlier.look(at, &health.absence) };
            match back {
                // It warms up when it is proven, not while one request at a time goes there.
                Some(Return::HalfOpen) => {
                    vitals.ewma.reset(median, tick);
                    self.shared.metrics.breaker.inc(BreakerEvent::HalfOpened);
                    tracing::info!(cluster = %self.shared.name, endpoint = %vitals.key, "endpoint waits for its probe");
                }
                Some(Return::LetIn) => {
                    vitals.start_anew(median, at);
                    self.shared.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
                    tracing::info!(cluster = %self.shared.name, endpoint = %vitals.key, "endpoint let in again");
                }
                Some(Return::Proven) => self.closed(vitals, at),
                None if returned => vitals.start_anew(median, at),
                None => {}
            }
        }
        self.note_returns(&set.members);
        self.put(set.planned_anew());
    }

    /// Makes a request to this endpoint its probe, if it waits for one.
    pub(super) fn claim(&self, vitals: &Vitals) -> Claim {
        let claim = vitals.outlier.claim();
        if matches!(claim, Claim::Probe(_)) {
            // It is out for all others.
            self.shared.next_return.now();
            self.shared.metrics.breaker.inc(BreakerEvent::Probed);
            tracing::info!(cluster = %self.shared.name, endpoint = %vitals.key, "this request probes the endpoint");
        }
        claim
    }

    fn closed(&self, vitals: &Vitals, at: u64) {
        vitals.warm_up(at);
        self.shared.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
        self.shared.metrics.breaker.inc(BreakerEvent::Closed);
        tracing::info!(
            cluster = %self.shared.name, endpoint = %vitals.key, "endpoint let in again: its probe succeeded"
        );
    }

    /// Ejects the outliers of the interval that is over.
    fn compare(&self, set: &Set<T>, health: &HealthSettings, at: u64, now: Instant) {
        let Some(due) = self.next_comparison.due(at) else { return };
        let interval = millis(health.outlier.interval);
        self.next_comparison.at(health.compares.then(|| at.saturating_add(interval)));
        let counts: Vec<Counts> = (set.members.states.iter())
            .map(|state| {
                let vitals = &state.live.vitals;
                // Who cannot be reached is out for that: it is compared when it is back, without what broke meanwhile.
                if !vitals.is_usable() {
                    return Counts::default();
                }
                if vitals.has_returned() {
                    vitals.outlier.forget_unheard();
                }
                let counts = vitals.outlier.take_counts();
                if vitals.outlier.standing() == Standing::In { counts } else { Counts::default() }
            })
            .collect();
        // Nobody asked for so long that these are of another time.
        if at >= due.saturating_add(interval) {
            return;
        }
        for (index, reason) in outliers(&counts, &health.outlier) {
            if let Some(state) = set.members.states.get(index) {
                self.put_out(set, &state.live, reason, now);
            }
        }
    }

    /// The attempt that was the probe of `live` is over, or is known to have failed.
    pub(super) fn probed(&self, live: &Live<T>, probe: u64, outcome: Outcome, now: Instant) {
        let (vitals, at) = (&*live.vitals, since(self.shared.epoch, now));
        match outcome {
            Outcome::Cancelled => {
                if vitals.outlier.give_back(probe) {
                    self.shared.next_return.now();
                    self.shared.metrics.breaker.inc(BreakerEvent::GaveBack);
                }
            }
            Outcome::Success => {
                if vitals.outlier.passed(probe, at) {
                    self.closed(vitals, at);
                    self.shared.next_return.now();
                }
            }
            _ => {
                let absence = self.health.load().absence;
                if let Some((duration, until)) = vitals.outlier.probe_failed(probe, at, &absence, &self.rng) {
                    self.shared.next_return.by(until);
                    self.shared.metrics.ejections.inc(EjectReason::ProbeFailed);
                    self.shared.metrics.breaker.inc(BreakerEvent::Reopened);
                    tracing::warn!(
                        cluster = %self.shared.name, endpoint = %vitals.key, reason = EjectReason::ProbeFailed.as_str(),
                        ?duration, n = vitals.outlier.ejections(), breaker = true, "endpoint ejected"
                    );
                }
            }
        }
    }

    /// See [`Cluster::checked`](super::Cluster::checked).
    pub(super) fn checked(&self, vitals: &Vitals, verdict: &CheckVerdict, config: &HealthCheckConfig, now: Instant) {
        let (result, reason) = match verdict {
            CheckVerdict::Healthy => (CheckResult::Healthy, ""),
            CheckVerdict::Unhealthy(reason) => (CheckResult::Unhealthy, reason.as_str()),
            CheckVerdict::Inconclusive(reason) => (CheckResult::Inconclusive, reason.as_str()),
        };
        self.shared.metrics.health_checks.inc(result);
        let (cluster, endpoint) = (&*self.shared.name, &vitals.key);
        if result == CheckResult::Inconclusive {
            tracing::debug!(cluster, %endpoint, reason, "health check says nothing");
            return;
        }
        let healthy = result == CheckResult::Healthy;
        if vitals.checked.record(healthy, config) {
            self.shared.metrics.endpoints.add(telemetry::EndpointState::Unhealthy, if healthy { -1 } else { 1 });
            if healthy {
                // What was known of its latency is from before.
                self.start_from_median(vitals, now);
                tracing::info!(cluster, %endpoint, "endpoint is healthy again");
            } else {
                tracing::warn!(cluster, %endpoint, reason, "endpoint is unhealthy");
            }
            self.shared.next_return.now();
        }
        let ends = healthy && config.ends_ejection && vitals.outlier.standing() != Standing::In;
        if ends && vitals.outlier.let_in(since(self.shared.epoch, now)) {
            self.start_from_median(vitals, now);
            self.shared.next_return.now();
            self.shared.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
            tracing::info!(cluster, %endpoint, "endpoint let in again: its health check succeeded");
        }
    }

    /// As one that returns: with the median latency of the others, and slowly.
    fn start_from_median(&self, vitals: &Vitals, now: Instant) {
        let (set, epoch) = (self.set.load(), self.shared.epoch);
        let median = set.median_latency(now, epoch).unwrap_or(set.settings.default_rtt);
        vitals.start_anew(median, since(epoch, now));
    }

    /// Keeps the time of the next look in step with the set. Called with the lock held, and before the plan is made: who
    /// goes in or out after that says so again.
    pub(super) fn note_returns(&self, members: &Members<T>) {
        let next = || {
            // Zero: one returned after it was looked at; what it wrote to `next_return` has just been overwritten.
            let returned = members.slots.iter().any(|slot| slot.vitals.has_returned()).then_some(0);
            let ends = members.slots.iter().filter_map(|slot| slot.vitals.outlier.next_look());
            ends.chain(returned).chain(self.next_comparison.get()).min()
        };
        self.shared.next_return.settle(next);
    }
}

/// Whether more than half of the others fail as well, and not a request since, or are out for it.
///
/// Then it is no endpoint's own fault - what they all call is broken, or there is more load than all of them bear - and
/// taking out some would drown the rest. Not where another priority has anybody who is in: there the load can go, and a
/// standby that failed when it was last asked must not keep a broken primary.
fn is_common<T>(
    reason: EjectReason,
    state: &Arc<EndpointState<T>>,
    states: &[Arc<EndpointState<T>>],
    recently: Tick,
) -> bool {
    if reason == EjectReason::SuccessRate {
        return false; // found beside the others already
    }
    let (mut failing, mut out, mut all) = (0, 0, 0);
    for other in states.iter().filter(|other| !Arc::ptr_eq(other, state)) {
        let (vitals, near) = (&other.live.vitals, other.endpoint.priority == state.endpoint.priority);
        if vitals.is_well() {
            if !near {
                return false;
            }
            let as_well = vitals.outlier.fails_like(&state.live.vitals.outlier);
            failing += usize::from(as_well && vitals.ewma.changed_since(recently));
            all += 1;
        } else if near && vitals.outlier.standing() != Standing::In {
            out += 1;
        }
    }
    // Who is out fails: not counted, each ejection would make the next one easier. Of the last one that is in nobody can say
    // that others fail as well; whether it may go is for `max_ejection_percent` to say.
    all > 0 && (failing + out) * 2 > all + out
}
