//! One endpoint's record of failures and ejections.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Outcome;
use crate::balance::millis;
use crate::config::OutlierConfig;
use crate::telemetry::EjectReason;

/// Timeouts without any answer in between that eject, while other attempts are still under way.
const TIMEOUTS: u32 = 2;

/// Counts an endpoint's failures and says when it should be out.
///
/// Times are milliseconds since an epoch of the caller's choosing. Observing takes no lock; [`eject`](Self::eject) and
/// [`readmit`](Self::readmit) are for one caller at a time, who holds what the cluster's other endpoints are doing.
#[derive(Debug, Default)]
pub struct OutlierDetector {
    failures: AtomicU32,
    timeouts: AtomicU32,
    /// Among the failures in a row there is an answer.
    answered_badly: AtomicBool,
    /// 0 while it is in.
    ejected_until: AtomicU64,
    /// The `n` of the last ejection.
    ejections: AtomicU32,
    readmitted: AtomicU64,
    /// A transport that finds the endpoint again ends the ejection.
    liftable: AtomicBool,
}

impl OutlierDetector {
    /// Takes in an attempt's outcome. A reason says that the endpoint should be ejected now.
    ///
    /// `silent`: nothing else is under way there, and nothing was heard of it since the attempt began. Then one timeout
    /// is all that there is to know. Waiting for a second would be long: a picker that goes by latency sends nothing
    /// more to an endpoint that has just timed out, so that it would be out without ever being let in again.
    pub fn observe(&self, outcome: Outcome, silent: bool, config: &OutlierConfig) -> Option<EjectReason> {
        match outcome {
            Outcome::Cancelled => None,
            Outcome::Success => {
                // Mostly zero already: reading keeps the cache line shared.
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                    self.answered_badly.store(false, Relaxed);
                }
                self.answered();
                None
            }
            _ if config.consecutive_failures == 0 || self.is_ejected() => None,
            Outcome::Failure { .. } => {
                self.answered_badly.store(true, Relaxed);
                self.answered();
                self.failed(config)
            }
            Outcome::Unreachable => {
                self.answered();
                self.failed(config)
            }
            Outcome::Timeout => {
                let timeouts = self.timeouts.fetch_add(1, Relaxed).saturating_add(1);
                self.failed(config).or((silent || timeouts >= TIMEOUTS).then_some(EjectReason::Timeouts))
            }
        }
    }

    /// Something was heard of the endpoint or its host, good or bad: it is no black hole.
    pub fn answered(&self) {
        if self.timeouts.load(Relaxed) != 0 {
            self.timeouts.store(0, Relaxed);
        }
    }

    fn failed(&self, config: &OutlierConfig) -> Option<EjectReason> {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        (failures >= config.consecutive_failures).then_some(EjectReason::ConsecutiveFailures)
    }

    /// Whether it is out.
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.load(Relaxed) != 0
    }

    /// When it may come back, if it is out.
    pub fn ejected_until(&self) -> Option<u64> {
        Some(self.ejected_until.load(Relaxed)).filter(|until| *until != 0)
    }

    /// Takes it out, and says for how long.
    pub fn eject(&self, now: u64, config: &OutlierConfig) -> Duration {
        let healthy = now.saturating_sub(self.readmitted.load(Relaxed));
        let forgiven = u32::try_from(healthy / millis(config.base_ejection).max(1)).unwrap_or(u32::MAX);
        let n = self.ejections.load(Relaxed).saturating_sub(forgiven).saturating_add(1);
        let duration = config.base_ejection.saturating_mul(n).min(config.max_ejection);
        self.ejections.store(n, Relaxed);
        self.liftable.store(n == 1 && !self.answered_badly.load(Relaxed), Relaxed);
        self.ejected_until.store(now.saturating_add(millis(duration)).max(1), Relaxed);
        duration
    }

    /// Lets it in again if its time is up; says whether it did.
    pub fn readmit(&self, now: u64) -> bool {
        let due = self.ejected_until().is_some_and(|until| until <= now);
        if due {
            self.let_in(now);
        }
        due
    }

    /// Its transport found it again: forgets its failures, and lets it in if it was ejected for silence alone and does
    /// not flap. Says whether it was out and is in now.
    pub fn returned(&self, now: u64) -> bool {
        let lifted = self.is_ejected() && self.liftable.load(Relaxed);
        if lifted {
            self.let_in(now);
        } else {
            self.start_anew();
        }
        lifted
    }

    fn let_in(&self, now: u64) {
        self.start_anew();
        self.readmitted.store(now, Relaxed);
        self.ejected_until.store(0, Relaxed);
    }

    /// Forgets failures; also after an ejection that was withheld, so that the next one is asked for as late as the
    /// first.
    pub fn start_anew(&self) {
        self.failures.store(0, Relaxed);
        self.timeouts.store(0, Relaxed);
        self.answered_badly.store(false, Relaxed);
    }
}

/// Whether one more of `total` endpoints may go out when `out` are out already.
pub fn may_eject(out: usize, total: usize, max_percent: u32) -> bool {
    (out as u64 + 1) * 100 <= total as u64 * u64::from(max_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Outcome = Outcome::Failure { retry_after: None };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn trips_on_failures_in_a_row_and_sooner_on_silence() {
        use EjectReason::{ConsecutiveFailures, Timeouts};
        use Outcome::{Cancelled, Success, Timeout, Unreachable};
        let cases: &[(&[Outcome], Option<EjectReason>)] = &[
            (&[FAILURE, FAILURE, FAILURE, FAILURE], None),
            (&[FAILURE, FAILURE, Unreachable, Timeout, FAILURE], Some(ConsecutiveFailures)),
            (&[FAILURE, FAILURE, FAILURE, FAILURE, Success, FAILURE], None),
            (&[FAILURE, FAILURE, FAILURE, FAILURE, Cancelled, FAILURE], Some(ConsecutiveFailures)),
            (&[Timeout], None),
            (&[Timeout, Timeout], Some(Timeouts)),
            (&[Timeout, Cancelled, Timeout], Some(Timeouts)),
            (&[Timeout, Success, Timeout], None),
            (&[Timeout, FAILURE, Timeout], None),
        ];
        for (outcomes, expected) in cases {
            let detector = OutlierDetector::default();
            let config = OutlierConfig::default();
            let last = outcomes.iter().map(|outcome| detector.observe(*outcome, false, &config)).last().flatten();
            assert_eq!(last, *expected, "{outcomes:?}");
            let off = OutlierConfig { consecutive_failures: 0, ..config };
            let detector = OutlierDetector::default();
            assert!(
                outcomes.iter().all(|outcome| detector.observe(*outcome, true, &off).is_none()),
                "0 switches it off"
            );
        }
    }

    #[test]
    fn ejections_grow_are_bounded_and_are_forgiven() {
        let config = OutlierConfig { base_ejection: secs(30), max_ejection: secs(100), ..OutlierConfig::default() };
        let detector = OutlierDetector::default();
        let mut now = 1_000;
        for expected in [30, 60, 90, 100, 100] {
            assert_eq!(detector.eject(now, &config), secs(expected));
            assert_eq!(detector.observe(FAILURE, false, &config), None, "out: not counted");
            now += expected * 1000;
            assert!(!detector.readmit(now - 1) && detector.is_ejected());
            assert!(detector.readmit(now) && !detector.readmit(now), "reported once");
            now += 1_000;
        }
        // Five ejections; four healthy intervals take off four.
        assert_eq!(detector.eject(now + 4 * 30_000, &config), secs(60));
    }

    #[test]
    fn a_transport_that_finds_it_again_ends_a_first_ejection_for_silence_only() {
        let config = OutlierConfig { consecutive_failures: 2, ..OutlierConfig::default() };
        let eject = |detector: &OutlierDetector, outcomes: [Outcome; 2]| {
            let tripped = outcomes.map(|outcome| detector.observe(outcome, false, &config));
            assert!(tripped[1].is_some());
            detector.eject(1_000, &config);
        };
        for (outcomes, lifted) in
            [([Outcome::Unreachable; 2], true), ([Outcome::Timeout; 2], true), ([Outcome::Unreachable, FAILURE], false)]
        {
            let detector = OutlierDetector::default();
            eject(&detector, outcomes);
            assert_eq!(detector.returned(2_000), lifted, "{outcomes:?}");
            assert_eq!(detector.is_ejected(), !lifted);
        }
        let flapping = OutlierDetector::default();
        eject(&flapping, [Outcome::Unreachable; 2]);
        assert!(flapping.returned(2_000));
        eject(&flapping, [Outcome::Unreachable; 2]);
        assert!(!flapping.returned(3_000), "the second time it has to wait");
    }

    #[test]
    fn the_share_is_tested_after_the_ejection() {
        let most = |total: usize, percent: u32| (0..total).take_while(|out| may_eject(*out, total, percent)).count();
        for (total, percent, expected) in [
            (1, 50, 0),
            (2, 50, 1),
            (3, 50, 1),
            (4, 50, 2),
            (3, 67, 2),
            (3, 100, 3),
            (1, 100, 1),
            (5, 10, 0),
            (5, 0, 0),
        ] {
            assert_eq!(most(total, percent), expected, "{percent} % of {total}");
        }
    }
}
