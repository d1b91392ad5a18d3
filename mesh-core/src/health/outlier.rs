//! One endpoint's record of failures and ejections.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::latest::Latest;
use super::recent::Recent;
use super::rules::{Absence, Rules};
use super::standing::{Claim, StandingCell};
use super::statistics::{Counts, Tally};
use super::{Outcome, Standing};
use crate::balance::millis;
use crate::rng::Rng;
use crate::telemetry::{EjectReason, Label};

/// Timeouts without any answer in between that eject, while other attempts are still under way.
const TIMEOUTS: u16 = 2;

/// Counts an endpoint's failures, says when it should be out, and keeps where it stands.
///
/// Times are milliseconds since an epoch of the caller's choosing. Nothing takes a lock. [`eject`](Self::eject) and
/// [`look`](Self::look) are for one caller at a time, who holds what the cluster's other endpoints are doing; a probe's
/// end is for the one attempt that is the probe.
#[derive(Debug, Default)]
pub(crate) struct OutlierDetector {
    standing: StandingCell,
    /// In a row. 16 bits each, and these four no more than a word: there are many endpoints, and a thousand suffice.
    failures: AtomicU16,
    timeouts: AtomicU16,
    latest: Latest,
    /// Among the failures in a row there is an answer.
    answered_badly: AtomicBool,
    tally: Tally,
    /// Made when it is needed: of thousands of endpoints few are ever ejected, and not all clusters have a breaker.
    past: OnceLock<Box<Past>>,
}

/// What was learnt of an endpoint that was ejected, or has a breaker.
#[derive(Debug, Default)]
struct Past {
    /// The `n` of the last ejection, and how long it was to last.
    ejections: AtomicU32,
    lasted: AtomicU64,
    readmitted: AtomicU64,
    /// Of the failures in the interval that runs, those of connections that were refused or broke.
    unheard: AtomicU32,
    /// A transport that finds the endpoint again ends the ejection.
    liftable: AtomicBool,
    /// The place of the last ejection's reason among all.
    reason: AtomicU8,
    /// When the probe, whose headers were good, has been streaming long enough; 0: no headers yet.
    proven_at: AtomicU64,
    /// A breaker's alone.
    recent: OnceLock<Box<Recent>>,
}

/// What became of an endpoint that was out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// It is in.
    LetIn,
    /// The next request to it is the probe.
    HalfOpen,
    /// Its probe has been streaming for long, and it is in.
    Proven,
}

impl OutlierDetector {
    /// Takes in an attempt's outcome. A reason says that the endpoint should be ejected now.
    ///
    /// `silent`: nothing else is under way there, and nothing was heard of it since the attempt began. Then one timeout
    /// is all that there is to know. Waiting for a second would be long: a picker that goes by latency sends nothing
    /// more to an endpoint that has just timed out, so that it would be out without ever being let in again.
    pub(crate) fn observe(&self, outcome: Outcome, silent: bool, now: u64, rules: &Rules) -> Option<EjectReason> {
        if outcome == Outcome::Cancelled {
            return None;
        }
        let (failed, counts) = (outcome.speaks_against(), self.standing() == Standing::In);
        if !failed {
            // Mostly zero already: reading keeps the cache line shared.
            if self.failures.load(Relaxed) != 0 {
                self.failures.store(0, Relaxed);
                self.answered_badly.store(false, Relaxed);
            }
            self.answered();
        }
        if !counts {
            return None;
        }
        self.latest.note(failed);
        if rules.compared {
            self.tally.record(failed);
            if outcome == Outcome::Unreachable {
                self.past().unheard.fetch_add(1, Relaxed);
            }
        }
        if !failed {
            if let Some(rule) = rules.recent {
                self.recent().succeeded(now, rule);
            }
            return None;
        }
        let in_a_row = self.in_a_row(outcome, silent, rules);
        let too_few = rules.recent.is_some_and(|rule| self.recent().failed(now, rule));
        in_a_row.or(too_few.then_some(EjectReason::WindowSuccessRate))
    }

    fn past(&self) -> &Past {
        self.past.get_or_init(Box::default)
    }

    fn recent(&self) -> &Recent {
        self.past().recent.get_or_init(Box::default)
    }

    fn in_a_row(&self, outcome: Outcome, silent: bool, rules: &Rules) -> Option<EjectReason> {
        if rules.consecutive_failures == 0 {
            return None;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let reason = (u32::from(failures) >= rules.consecutive_failures).then_some(EjectReason::ConsecutiveFailures);
        if outcome == Outcome::Timeout {
            let timeouts = self.timeouts.fetch_add(1, Relaxed).saturating_add(1);
            return reason.or((silent || timeouts >= TIMEOUTS).then_some(EjectReason::Timeouts));
        }
        if matches!(outcome, Outcome::Failure { .. }) {
            self.answered_badly.store(true, Relaxed);
        }
        self.answered();
        reason
    }

    /// Something was heard of the endpoint or its host, good or bad: it is no black hole.
    #[inline]
    pub(crate) fn answered(&self) {
        if self.timeouts.load(Relaxed) != 0 {
            self.timeouts.store(0, Relaxed);
        }
    }

    /// Where it stands.
    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        self.standing.load()
    }

    /// How it failed last, while it is not in.
    pub(crate) fn reason(&self) -> Option<EjectReason> {
        let past = self.past.get().filter(|_| self.standing() != Standing::In)?;
        EjectReason::ALL.get(usize::from(past.reason.load(Relaxed))).copied()
    }

    /// The `n` of the last ejection; it decides how long the next one lasts.
    pub(crate) fn ejections(&self) -> u32 {
        self.past.get().map_or(0, |past| past.ejections.load(Relaxed))
    }

    /// Nothing that broke with its connections is anything to compare it by.
    ///
    /// What was answered badly stays: whoever breaks connections would be judged by nothing else.
    pub(crate) fn forget_unheard(&self) {
        if let Some(past) = self.past.get() {
            self.tally.forget(past.unheard.swap(0, Relaxed));
        }
    }

    /// What it did since this was asked last.
    pub(crate) fn take_counts(&self) -> Counts {
        if let Some(past) = self.past.get() {
            past.unheard.store(0, Relaxed);
        }
        self.tally.take()
    }

    /// Takes it out, and says for how long; `None` if it is not in.
    pub(crate) fn eject(&self, reason: EjectReason, now: u64, absence: &Absence, rng: &Rng) -> Option<Duration> {
        let past = self.past();
        let healthy = now.saturating_sub(past.readmitted.load(Relaxed));
        let forgiven = absence.forgiven(healthy, past.lasted.load(Relaxed));
        let n = self.ejections().saturating_sub(forgiven).saturating_add(1);
        let duration = absence.duration(n, rng);
        let silence = matches!(reason, EjectReason::ConsecutiveFailures | EjectReason::Timeouts);
        let liftable = n == 1 && silence && !self.answered_badly.load(Relaxed);
        self.standing.trip(now.saturating_add(millis(duration)).max(1)).then(|| {
            past.note(n, duration, reason);
            past.liftable.store(liftable, Relaxed);
            duration
        })
    }

    /// Whether it fails as `other` does: its last attempt failed, or of its latest a third as many as of the other's.
    ///
    /// The more often the other one fails, the more is asked of its peers: one that is dead goes out beside peers that fail
    /// now and then, if later than beside peers that never do.
    pub(crate) fn fails_like(&self, other: &Self) -> bool {
        let as_many = other.latest.failures().div_ceil(3).max(1);
        self.failures.load(Relaxed) != 0 || self.latest.failures() >= as_many
    }

    /// It stays in because its peers fail as well: goes on failing, and is asked about again as late as at first.
    pub(crate) fn fails_with_others(&self) {
        self.asked_in_vain();
        self.failures.store(1, Relaxed);
    }

    /// When there is next something to look at, if nothing else happens.
    pub(crate) fn next_look(&self) -> Option<u64> {
        match self.standing.latest() {
            Standing::Out { until } => Some(until),
            Standing::Probing { .. } => Some(self.past().proven_at.load(Relaxed)).filter(|at| *at != 0),
            Standing::In | Standing::HalfOpen => None,
        }
    }

    /// Ends what time ends.
    pub(crate) fn look(&self, now: u64, absence: &Absence) -> Option<Return> {
        match (self.standing(), absence.probed) {
            (Standing::In, _) | (Standing::HalfOpen, true) => None,
            (Standing::Out { until }, _) if until > now => None,
            (Standing::Out { .. }, true) => self.half_open(now).then_some(Return::HalfOpen),
            (Standing::Probing { probe }, true) => {
                let proven = self.next_look().is_some_and(|at| at <= now);
                (proven && self.passed(probe, now)).then_some(Return::Proven)
            }
            // Also what a breaker left that the configuration no longer has.
            (_, false) => self.let_in(now).then_some(Return::LetIn),
        }
    }

    /// Its transport found it again: forgets its failures, and ends its time if it was ejected for silence alone and does
    /// not flap. What broke with its connections is nothing to compare it by either.
    pub(crate) fn returned(&self, now: u64, absence: &Absence) -> Option<Return> {
        self.forget_unheard();
        let out = matches!(self.standing(), Standing::Out { .. });
        if !(out && self.past().liftable.load(Relaxed)) {
            self.start_anew();
            return None;
        }
        if absence.probed {
            return self.half_open(u64::MAX).then_some(Return::HalfOpen);
        }
        self.let_in(now).then_some(Return::LetIn)
    }

    fn half_open(&self, now: u64) -> bool {
        self.start_anew();
        self.past().proven_at.store(0, Relaxed);
        self.standing.half_open(now)
    }

    /// Lets it in, wherever it stands; says whether it was not in.
    pub(crate) fn let_in(&self, now: u64) -> bool {
        self.start_anew();
        // One without a past was never out.
        if let Some(past) = self.past.get() {
            past.readmitted.store(now, Relaxed);
        }
        self.standing.let_in()
    }

    /// Whose request a pick of it is.
    #[inline]
    pub(crate) fn claim(&self) -> Claim {
        self.standing.claim()
    }

    /// The probe's headers were good. It is over at its end, or when it has been streaming for a whole window: a stream
    /// that lives for hours must not keep all others out.
    pub(crate) fn probe_answered(&self, now: u64, rules: &Rules) -> Option<u64> {
        let at = now.saturating_add(rules.recent?.window()).max(1);
        self.past().proven_at.store(at, Relaxed);
        Some(at)
    }

    /// The probe ended well; says whether that let the endpoint in.
    pub(crate) fn passed(&self, probe: u64, now: u64) -> bool {
        let passed = self.standing.pass(probe);
        if passed {
            self.past().readmitted.store(now, Relaxed);
        }
        passed
    }

    /// The probe failed: it is out again, for longer.
    pub(crate) fn probe_failed(&self, probe: u64, now: u64, absence: &Absence, rng: &Rng) -> Option<(Duration, u64)> {
        let n = self.ejections().saturating_add(1);
        let duration = absence.duration(n, rng);
        let until = now.saturating_add(millis(duration)).max(1);
        let past = self.past();
        past.liftable.store(false, Relaxed);
        self.standing.fail(probe, until).then(|| {
            past.note(n, duration, EjectReason::ProbeFailed);
            (duration, until)
        })
    }

    /// The probe was given up by its caller.
    pub(crate) fn give_back(&self, probe: u64) -> bool {
        self.past().proven_at.store(0, Relaxed);
        self.standing.give_back(probe)
    }

    /// Forgets failures.
    fn start_anew(&self) {
        self.asked_in_vain();
        self.latest.clear();
    }

    /// Its ejection was withheld: the next one is asked for as late as the first.
    pub(crate) fn asked_in_vain(&self) {
        self.failures.store(0, Relaxed);
        self.timeouts.store(0, Relaxed);
        self.answered_badly.store(false, Relaxed);
        if let Some(recent) = self.past.get().and_then(|past| past.recent.get()) {
            recent.clear();
        }
    }
}

impl Past {
    fn note(&self, n: u32, duration: Duration, reason: EjectReason) {
        self.ejections.store(n, Relaxed);
        self.lasted.store(millis(duration), Relaxed);
        self.reason.store(u8::try_from(reason.index()).unwrap_or(u8::MAX), Relaxed);
    }
}

/// Whether one more of `total` endpoints may go out when `out` are out already.
pub(crate) fn may_eject(out: usize, total: usize, max_percent: u32) -> bool {
    (out as u64 + 1) * 100 <= total as u64 * u64::from(max_percent)
}
