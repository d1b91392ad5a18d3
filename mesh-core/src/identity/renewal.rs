//! When to ask for a new certificate: at half of its life, and again until there is one.
//!
//! Everything that renews certificates asks the same two questions, and both have wrong answers that only show in an
//! outage. Renewing all at the same moment, or retrying without a pause, turns an issuer that stumbles into one that
//! lies down; a pause that doubles without end leaves a workload without identity long after the issuer is back. So
//! both carry jitter, and a pause is at most [`Renewal::LONGEST_PAUSE`] after any outage.
//!
//! No input or output, no timer: whoever drives it asks [`is_due`](Renewal::is_due) and sleeps.

use std::time::{Duration, SystemTime};

use crate::rng::Rng;

/// The renewal of one certificate after another.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use mesh_core::identity::Renewal;
/// use mesh_core::rng::Rng;
///
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
/// let mut renewal = Renewal::new(Rng::seeded(1));
/// assert!(renewal.is_due(now), "there is nothing yet");
/// renewal.issued(now, now + Duration::from_secs(3600), now);
/// assert!(!renewal.is_due(now + Duration::from_secs(1600)));
/// assert!(renewal.is_due(now + Duration::from_secs(1800)));
/// assert!(renewal.failed() <= Renewal::LONGEST_PAUSE);
/// ```
#[derive(Debug)]
pub struct Renewal {
    /// From when until when nothing is to be done; `None` before the first certificate.
    calm: Option<(SystemTime, SystemTime)>,
    /// What was left of the certificate when it came.
    life: Duration,
    failures: u32,
    rng: Rng,
}

impl Renewal {
    /// The longest wait between two attempts, 4 s.
    ///
    /// So an issuer that is back is found within 5 s.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(4);
    /// The shortest wait between two attempts, 100 ms, whatever clock or issuer say.
    pub const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

    /// Due at once.
    pub fn new(rng: Rng) -> Self {
        Self { calm: None, life: Duration::MAX, failures: 0, rng }
    }

    /// A certificate came at `now`.
    ///
    /// The next is due when half of what is left of it has passed, less up to 10 % of that half, so that workloads
    /// which started together do not renew together.
    ///
    /// What is left counts, not the whole: issuers begin certificates in the past, for clocks that differ. One that has
    /// ended already is a [failure](Self::failed).
    pub fn issued(&mut self, not_before: SystemTime, not_after: SystemTime, now: SystemTime) {
        self.life = not_after.duration_since(now).unwrap_or_default();
        if self.life.is_zero() {
            // An issuer that hands out what has ended already, or a clock that runs ahead of it.
            let pause = self.failed();
            self.calm = Some((now, now + pause));
            return;
        }
        let due = now + self.life.mul_f64(0.5 - 0.05 * self.rng.unit());
        self.calm = Some((not_before.min(now), due));
        self.failures = 0;
    }

    /// Whether to ask the issuer now.
    ///
    /// A clock that was set back before the certificate's beginning makes it due, too.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.calm.is_none_or(|(from, until)| !(from..until).contains(&now))
    }

    /// How long until it is due; at least [`SHORTEST_PAUSE`](Self::SHORTEST_PAUSE).
    ///
    /// Calendar time jumps and timers stand still while a machine sleeps: ask again from time to time.
    pub fn wait(&self, now: SystemTime) -> Duration {
        let left = self.calm.filter(|_| !self.is_due(now)).and_then(|(_, until)| until.duration_since(now).ok());
        left.unwrap_or_default().max(Self::SHORTEST_PAUSE)
    }

    /// An attempt failed: how long to wait for the next.
    ///
    /// Doubles from 500 ms up to [`LONGEST_PAUSE`](Self::LONGEST_PAUSE), or to an eighth of a life that is shorter than
    /// 32 s; of that, the upper half is jitter.
    pub fn failed(&mut self) -> Duration {
        let life = if self.life.is_zero() { Duration::MAX } else { self.life };
        let longest = (life / 8).clamp(2 * Self::SHORTEST_PAUSE, Self::LONGEST_PAUSE);
        let pause = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        pause.min(longest).mul_f64(0.5 + 0.5 * self.rng.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + secs)
    }

    /// Drives it against an issuer that is away for a while; returns when each attempt was made, in seconds.
    fn attempts(seed: u64, life: Duration, away: std::ops::Range<u64>, until: u64) -> Vec<f64> {
        let mut renewal = Renewal::new(Rng::seeded(seed));
        let (mut now, mut made, mut not_after) = (at(0), Vec::new(), at(0));
        while now < at(until) {
            if renewal.is_due(now) {
                made.push(now.duration_since(at(0)).unwrap().as_secs_f64());
                if (at(away.start)..at(away.end)).contains(&now) {
                    now += renewal.failed();
                    continue;
                }
                assert!(away.contains(&0) || now < at(away.start) || not_after <= now || now <= not_after);
                not_after = now + life;
                renewal.issued(now - 60 * S, not_after, now);
            }
            now += renewal.wait(now);
        }
        made
    }

    #[test]
    fn renews_near_half_life_and_not_all_at_once() {
        let firsts: Vec<f64> = (0..200).map(|seed| attempts(seed, 3600 * S, 0..0, 1801)[1]).collect();
        assert!(firsts.iter().all(|at| (1620.0..=1800.0).contains(at)), "{firsts:?}");
        let (first, last) =
            (firsts.iter().copied().fold(f64::MAX, f64::min), firsts.iter().copied().fold(0.0, f64::max));
        assert!(last - first > 100.0, "spread over {first}..{last}");
    }

    #[test]
    fn an_issuer_that_is_back_is_found_within_five_seconds_and_not_besieged_before() {
        for life in [2 * S, 5 * S, 60 * S, 3600 * S] {
            for (seed, hours) in (0..50).zip([1, 2, 6].into_iter().cycle()) {
                let back = hours * 3600;
                let made = attempts(seed, life, 1..back, back + 5);
                let tries = made.iter().filter(|at| **at < back as f64).count();
                assert!(made.iter().any(|at| (back as f64..back as f64 + 5.0).contains(at)), "{life:?} seed {seed}");
                let closest = made.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::MAX, f64::min);
                assert!(closest >= 0.099, "{life:?} seed {seed}: {closest} s apart");
                assert!(tries as u64 <= back * 10, "{life:?} seed {seed}: {tries} attempts");
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_makes_it_due_and_never_busy() {
        let mut renewal = Renewal::new(Rng::seeded(3));
        renewal.issued(at(0), at(3600), at(60));
        for (now, due) in [(at(60), false), (at(1600), false), (at(7200), true), (at(0), false)] {
            assert_eq!(renewal.is_due(now), due);
        }
        let before = at(0) - 3600 * S;
        assert!(renewal.is_due(before));
        assert_eq!(renewal.wait(before), Renewal::SHORTEST_PAUSE);
        // An issuer that hands out what has ended already is asked less and less often.
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                renewal.issued(at(0), at(10), at(100));
                renewal.wait(at(100))
            })
            .collect();
        assert!(pauses[0] <= S / 2 && pauses[7] >= 2 * S && pauses[7] <= Renewal::LONGEST_PAUSE, "{pauses:?}");
        assert!(renewal.failed() >= Renewal::SHORTEST_PAUSE);
    }
}
