//! The client's loop, as `mesh_tower::client` has it: deadline, attempts, retries, and what the picker is told.

use std::time::Duration;

use mesh_core::cluster::Tried;
use mesh_core::config::MaxRetries;
use mesh_core::deadline::Deadline;
use mesh_core::discover::EndpointKey;
use mesh_core::health::Outcome;
use mesh_core::retry::{FailedAttempt, Pushback, RetryDecision, RetrySafety, StatusClass, StopReason};

use super::{Engine, Event, nanos};
use crate::model::call::{Attempt, Call, End, Origin};
use crate::model::report::Failed;
use crate::model::server::{Answer, Sent};
use crate::model::slab::Id;

/// Service, method and path.
pub(super) type Asked<'a> = (&'a str, &'a str, &'a str);

/// What one attempt says of its endpoint, and of another attempt.
struct Class {
    outcome: Outcome,
    /// `None`: another attempt would mend nothing.
    safety: Option<Safety>,
    pushback: Pushback,
}

enum Safety {
    NotSent,
    MaybeProcessed,
}

impl Engine<'_> {
    /// `by`: when its answer is worthless to whoever made it.
    pub(super) fn begin(
        &mut self,
        origin: Origin,
        process: usize,
        (service, method, path): Asked<'_>,
        hash: Option<u64>,
        by: Option<u64>,
    ) -> Option<Id> {
        let now = self.instant();
        let Some(route) = self.processes[process].routes.find(service, method, path).cloned() else {
            self.answer_caller(origin, self.now, Err(Failed::NoRoute), false);
            return None;
        };
        route.budget.deposit(now);
        // A checked route names a cluster that there is.
        let cluster = self.scenario.config.clusters.keys().position(|name| **name == *route.cluster);
        let deadline = self.now.saturating_add(nanos(route.timeout)).min(by.unwrap_or(u64::MAX));
        self.calls_made += 1;
        let id = self.calls.insert(Call {
            number: self.calls_made,
            origin,
            process,
            cluster: cluster.unwrap_or_default(),
            hash: hash.filter(|_| !route.hash.is_empty()),
            idempotent: route.retry.as_ref().is_some_and(|retry| retry.idempotent(method)),
            started: self.now,
            deadline,
            attempts: 0,
            tried: Tried::default(),
            retry_place: false,
            current: None,
            route,
        });
        if deadline <= self.now {
            self.call_over(id, Err(Failed::Timeout), false);
            return None;
        }
        self.at(deadline, Event::Deadline(id));
        self.attempt(id);
        self.calls.get(id).map(|_| id)
    }

    fn attempt(&mut self, id: Id) {
        let now = self.instant();
        let Some(call) = self.calls.get_mut(id) else { return };
        let (process, cluster) = (call.process, call.cluster);
        let known = &mut self.processes[process].clusters[cluster];
        if known.requests >= known.limits.max_requests {
            let in_vain = call.attempts > 0;
            return self.call_over(id, Err(Failed::Limit), in_vain);
        }
        let Ok((server, chosen)) = known.balancer.pick(call.hash, &call.tried, now) else {
            let in_vain = call.attempts > 0;
            return self.call_over(id, Err(Failed::NoEndpoints), in_vain);
        };
        known.requests += 1;
        call.attempts += 1;
        let per_try = call.route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
        let limit = per_try.map_or(call.deadline, |limit| (self.now + nanos(limit)).min(call.deadline));
        call.current = Some(Attempt { chosen, server, limit, job: None });
        let (attempt, deadline) = (call.attempts, call.deadline);
        self.servers[server].under_way += 1;
        self.note_attempt(server, attempt);
        self.note_ejections(process, cluster);
        if limit < deadline {
            self.at(limit, Event::Limit { call: id, attempt });
        }
        self.send(server, Sent { call: id, attempt, process });
    }

    fn note_attempt(&mut self, server: usize, attempt: u32) {
        let (now, under_way) = (self.now, self.servers[server].under_way);
        self.report.attempts += 1;
        self.report.retried += u64::from(attempt > 1);
        self.report.second(now).attempts += 1;
        let of = &mut self.report.servers[server];
        of.requests += 1;
        of.busiest = of.busiest.max(under_way);
        for fault in &self.servers[server].faults {
            let fault = &mut self.report.faults[*fault];
            fault.requests += 1;
            fault.last_request = Duration::from_nanos(now).saturating_sub(fault.at);
        }
    }

    fn note_ejections(&mut self, process: usize, cluster: usize) {
        let now = self.instant();
        let before = self.report.ejections.len();
        let known = &mut self.processes[process].clusters[cluster];
        known.new_ejections(process, now, self.start, &mut self.report.ejections);
        if self.report.ejections.len() > before {
            self.report.most_out = self.report.most_out.max(known.ejected(now));
        }
    }

    /// Whether the attempt is still waited for.
    pub(super) fn is_waited_for(&self, sent: Sent) -> bool {
        self.calls.get(sent.call).is_some_and(|call| call.attempts == sent.attempt && call.current.is_some())
    }

    /// What the server made of an attempt.
    pub(super) fn accepted(&mut self, sent: Sent, job: Id) {
        if let Some(attempt) = self.calls.get_mut(sent.call).and_then(|call| call.current.as_mut()) {
            attempt.job = Some(job);
        }
    }

    pub(super) fn answered(&mut self, sent: Sent, answer: Answer) {
        if !self.is_waited_for(sent) {
            return;
        }
        if let Some(attempt) = self.calls.get(sent.call).and_then(|call| call.current.as_ref()) {
            let link = self.link(sent.process, attempt.server);
            (self.links[link].heard, self.links[link].failures) = (self.now, 0);
        }
        self.attempt_ended(sent, End::Answered(answer));
    }

    /// Takes the attempt off its call, and its places back.
    fn take_attempt(&mut self, id: Id) -> Option<Attempt> {
        let call = self.calls.get_mut(id)?;
        let known = &mut self.processes[call.process].clusters[call.cluster];
        let attempt = call.current.take();
        if std::mem::take(&mut call.retry_place) {
            known.retries -= 1;
        }
        if let Some(attempt) = &attempt {
            known.requests -= 1;
            self.servers[attempt.server].under_way -= 1;
        }
        attempt
    }

    /// One attempt is over: its endpoint is judged, and the call repeated or ended.
    pub(super) fn attempt_ended(&mut self, sent: Sent, end: End) {
        if !self.is_waited_for(sent) {
            return;
        }
        let (id, now, class) = (sent.call, self.instant(), classify(end));
        let Some(attempt) = self.take_attempt(id) else { return };
        match end {
            End::Answered(_) => attempt.chosen.answered(class.outcome, now),
            // The queue is the client's own.
            End::Overloaded => attempt.chosen.finish(Outcome::Cancelled, now),
            _ => attempt.chosen.finish(class.outcome, now),
        }
        self.judged(id, attempt.server, class.outcome);
        if class.outcome == Outcome::Success {
            return self.call_over(id, Ok(()), false);
        }
        match self.repeat(id, &class) {
            Ok(wait) => {
                if let Some(call) = self.calls.get_mut(id) {
                    call.tried.insert(EndpointKey(self.report.servers[attempt.server].name.as_str().into()));
                }
                self.after(wait, Event::Retry { call: id, attempt: sent.attempt });
            }
            Err(stop) => {
                let in_vain = sent.attempt > 1 || stop.is_some_and(StopReason::is_in_vain);
                self.call_over(id, Err(end.failed()), in_vain);
            }
        }
    }

    fn judged(&mut self, id: Id, server: usize, outcome: Outcome) {
        let of = &mut self.report.servers[server];
        let code = match outcome {
            Outcome::Success => {
                of.succeeded += 1;
                0
            }
            Outcome::Cancelled => {
                of.cancelled += 1;
                1
            }
            Outcome::Failure { .. } | Outcome::Timeout | Outcome::Unreachable => {
                of.failed += 1;
                2 + u64::from(outcome == Outcome::Timeout) + 2 * u64::from(outcome == Outcome::Unreachable)
            }
        };
        if let Some(call) = self.calls.get(id) {
            let (number, process, cluster) = (call.number, call.process, call.cluster);
            self.report.decided(number, server as u64, code, self.now);
            self.note_ejections(process, cluster);
        }
    }

    /// After which wait to send again. Core decides; here it is found out what happened. `Err(None)`: it was not asked.
    fn repeat(&mut self, id: Id, class: &Class) -> Result<Duration, Option<StopReason>> {
        // A mark counts on any answer, also on one that nobody would have repeated.
        if class.pushback == Pushback::Never && class.outcome != Outcome::Success {
            return Err(Some(StopReason::Marked));
        }
        let now = self.instant();
        let (Some(call), Some(safety)) = (self.calls.get_mut(id), &class.safety) else { return Err(None) };
        let safety = match safety {
            Safety::NotSent => RetrySafety::NotSent,
            Safety::MaybeProcessed if call.idempotent => RetrySafety::Idempotent,
            Safety::MaybeProcessed => RetrySafety::MaybeProcessed,
        };
        let failed = FailedAttempt {
            attempts: call.attempts,
            safety,
            outcome: class.outcome,
            pushback: class.pushback,
            deadline: Some(Deadline::after(self.start, Duration::from_nanos(call.deadline))),
        };
        let process = &mut self.processes[call.process];
        let known = &mut process.clusters[call.cluster];
        let max = known.limits.max_retries;
        let decision = call.route.retry_policy().decide(&failed, &process.rng, now, || {
            if max.is_some_and(|max| known.retries >= MaxRetries::of(max, known.requests)) {
                return Err(StopReason::Limit);
            }
            if call.route.budget.withdraw(now) { Ok(()) } else { Err(StopReason::Budget) }
        });
        match decision {
            RetryDecision::Retry { after, .. } => {
                if max.is_some() {
                    known.retries += 1;
                    call.retry_place = true;
                }
                Ok(after)
            }
            RetryDecision::Stop(stop) => {
                self.report.budget_exhausted += u64::from(stop == StopReason::Budget);
                Err(Some(stop))
            }
        }
    }

    pub(super) fn retry(&mut self, id: Id, attempt: u32) {
        if self.calls.get(id).is_some_and(|call| call.attempts == attempt && call.current.is_none()) {
            self.attempt(id);
        }
    }

    /// The time of one attempt is over.
    pub(super) fn limit(&mut self, id: Id, attempt: u32) {
        let Some(call) = self.calls.get(id) else { return };
        let sent = Sent { call: id, attempt, process: call.process };
        if self.is_waited_for(sent) {
            self.abandon(id);
            self.attempt_ended(sent, End::TimedOut);
        }
    }

    /// The time of the whole call is over: its attempt was too slow.
    pub(super) fn deadline(&mut self, id: Id) {
        let Some(call) = self.calls.get(id) else { return };
        let in_vain = call.attempts > 1;
        self.leave(id, Outcome::Timeout);
        self.call_over(id, Err(Failed::Timeout), in_vain);
    }

    /// Whoever made it is gone.
    pub(super) fn cancel(&mut self, id: Id) {
        self.leave(id, Outcome::Cancelled);
        self.calls.remove(id);
    }

    fn leave(&mut self, id: Id, outcome: Outcome) {
        self.abandon(id);
        let now = self.instant();
        if let Some(attempt) = self.take_attempt(id) {
            attempt.chosen.finish(outcome, now);
            self.judged(id, attempt.server, outcome);
        }
    }

    /// Has the server give up what nobody waits for.
    fn abandon(&mut self, id: Id) {
        let attempt = self.calls.get(id).and_then(|call| call.current.as_ref());
        if let Some((server, job)) = attempt.and_then(|attempt| Some((attempt.server, attempt.job?))) {
            self.give_up(server, job);
        }
    }

    /// `in_vain`: nobody further up should try again either.
    fn call_over(&mut self, id: Id, result: Result<(), Failed>, in_vain: bool) {
        self.take_attempt(id);
        if let Some(call) = self.calls.remove(id) {
            self.answer_caller(call.origin, call.started, result, in_vain);
        }
    }

    fn answer_caller(&mut self, origin: Origin, started: u64, result: Result<(), Failed>, in_vain: bool) {
        let now = self.now;
        match origin {
            Origin::Load => {
                self.report.latency.record(Duration::from_nanos(now - started));
                match result {
                    Ok(()) => {
                        self.report.succeeded += 1;
                        self.report.second(now).succeeded += 1;
                    }
                    Err(failed) => {
                        *self.report.failures.entry(failed).or_default() += 1;
                        self.report.second(now).failed += 1;
                    }
                }
            }
            Origin::Server { server, job } => {
                let answer = match result {
                    Ok(()) => Answer::OK,
                    Err(failed) => Answer { no_retry: in_vain, ..Answer::status(status(failed)) },
                };
                self.completed(server, job, answer);
            }
        }
    }
}

/// As `mesh_tower::Error` becomes a response.
fn status(failed: Failed) -> u16 {
    match failed {
        Failed::Timeout => 504,
        Failed::NoEndpoints | Failed::Overloaded | Failed::Limit => 503,
        Failed::Answered | Failed::Unreachable | Failed::NoRoute => 502,
    }
}

fn classify(end: End) -> Class {
    let class = |outcome, safety| Class { outcome, safety: Some(safety), pushback: Pushback::None };
    let failure = Outcome::Failure { retry_after: None };
    match end {
        End::TimedOut => class(Outcome::Timeout, Safety::MaybeProcessed),
        End::Unreachable { sent: true } => class(Outcome::Unreachable, Safety::MaybeProcessed),
        End::Unreachable { sent: false } => class(Outcome::Unreachable, Safety::NotSent),
        End::Overloaded => class(failure, Safety::NotSent),
        End::Answered(Answer { status, retry_after, no_retry }) => {
            let status = StatusClass::of(status);
            let outcome = match status {
                StatusClass::Fine => Outcome::Success,
                StatusClass::Failure | StatusClass::Unavailable => {
                    Outcome::Failure { retry_after: retry_after.filter(|_| !no_retry) }
                }
            };
            let pushback = match retry_after {
                _ if no_retry => Pushback::Never,
                Some(wait) => Pushback::After(wait),
                None => Pushback::None,
            };
            let safety = (status == StatusClass::Unavailable).then_some(Safety::MaybeProcessed);
            Class { outcome, safety, pushback }
        }
    }
}
