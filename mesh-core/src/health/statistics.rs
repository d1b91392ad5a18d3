//! Which endpoints are worse than the others, by what was counted of all in one interval.
//!
//! Failures in a row find an endpoint that is broken. One that fails every third request never fails five times in a
//! row, and is found only beside its peers. Two rules, both Envoy's and gRPC A50's, over endpoints that are in and had
//! enough requests in the interval, if enough endpoints had:
//!
//! - **success rate**: below `mean - stdev_factor x sigma` of all success rates. Where *k* of *N* endpoints are dead and
//!   the rest are well, that finds them only if `N > 4.61 k` (at 1.9): 1 of 5, 2 of 10, 3 of 14, 4 of 19.
//! - **failure percentage**: at least `threshold` per cent failed, whatever the others do; it finds what the first misses.
//!
//! The first rule alone ejects healthy endpoints: among ten that all fail 2 % of their requests, chance puts one below
//! the line every few intervals, because sigma measures nothing but chance then. So an endpoint must also be worse than
//! chance explains: by `significance` standard errors of one that is as good as the mean. 0 gives the reference's rule.

use crate::atomic::{AtomicU64, Ordering::Relaxed};
use crate::config::OutlierConfig;
use crate::telemetry::EjectReason;

/// What one endpoint did in the interval that runs: all and failed requests, in one word.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Counts one. An interval of 2^32 requests is beyond any endpoint.
    pub(crate) fn record(&self, failed: bool) {
        self.0.fetch_add((1 << 32) | u64::from(failed), Relaxed);
    }

    /// So many failures were nothing to compare it by.
    pub(crate) fn forget(&self, failures: u32) {
        let without = |word: u64| {
            let Counts { requests, failures: failed } = Counts::from(word);
            Some((u64::from(requests.saturating_sub(failures)) << 32) | u64::from(failed.saturating_sub(failures)))
        };
        _ = self.0.fetch_update(Relaxed, Relaxed, without);
    }

    /// What was counted since the last time.
    pub(crate) fn take(&self) -> Counts {
        self.0.swap(0, Relaxed).into()
    }
}

/// Requests of one endpoint in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Answered or failed; those that their callers gave up are not counted.
    pub(crate) requests: u32,
    /// Those that spoke against the endpoint.
    pub(crate) failures: u32,
}

impl From<u64> for Counts {
    fn from(word: u64) -> Self {
        // Both halves are 32 bits wide.
        Self { requests: (word >> 32) as u32, failures: word as u32 }
    }
}

impl Counts {
    fn success_rate(self) -> f64 {
        1.0 - f64::from(self.failures) / f64::from(self.requests.max(1))
    }
}

/// The outliers among endpoints that are in, the worst first, with the rule that found each.
pub(crate) fn outliers(counts: &[Counts], config: &OutlierConfig) -> Vec<(usize, EjectReason)> {
    let mut found: Vec<(usize, EjectReason)> = by_success_rate(counts, config)
        .map(|index| (index, EjectReason::SuccessRate))
        .chain(by_failure_percentage(counts, config).map(|index| (index, EjectReason::FailurePercentage)))
        .collect();
    let rate = |index: usize| counts.get(index).map_or(1.0, |counts| counts.success_rate());
    // Stable: of two rules the first one is named.
    found.sort_by(|(a, _), (b, _)| rate(*a).total_cmp(&rate(*b)).then(a.cmp(b)));
    found.dedup_by_key(|(index, _)| *index);
    found
}

/// Those with enough requests, if there are enough of them.
fn valid(counts: &[Counts], min_requests: u32, min_hosts: u32) -> Vec<(usize, Counts)> {
    let enough = |(_, counts): &(usize, Counts)| counts.requests >= min_requests.max(1);
    let valid: Vec<_> = counts.iter().copied().enumerate().filter(enough).collect();
    if valid.len() >= min_hosts as usize { valid } else { Vec::new() }
}

fn by_success_rate(counts: &[Counts], config: &OutlierConfig) -> impl Iterator<Item = usize> + use<> {
    let rule = config.success_rate;
    let off = rule.stdev_factor <= 0.0;
    let valid = if off { Vec::new() } else { valid(counts, rule.min_requests, rule.min_hosts) };
    let n = valid.len().max(1) as f64;
    let mean = valid.iter().map(|(_, counts)| counts.success_rate()).sum::<f64>() / n;
    let variance = valid.iter().map(|(_, counts)| (counts.success_rate() - mean).powi(2)).sum::<f64>() / n;
    let below = mean - rule.stdev_factor * variance.sqrt();
    let chance = move |requests: u32| rule.significance * (mean * (1.0 - mean) / f64::from(requests)).max(0.0).sqrt();
    valid.into_iter().filter_map(move |(index, counts)| {
        let rate = counts.success_rate();
        (rate < below && rate < mean - chance(counts.requests)).then_some(index)
    })
}

fn by_failure_percentage(counts: &[Counts], config: &OutlierConfig) -> impl Iterator<Item = usize> + use<> {
    let rule = config.failure_percentage;
    let off = rule.threshold == 0;
    let valid = if off { Vec::new() } else { valid(counts, rule.min_requests, rule.min_hosts) };
    let too_many = move |counts: Counts| {
        u64::from(counts.failures) * 100 >= u64::from(rule.threshold) * u64::from(counts.requests)
    };
    valid.into_iter().filter_map(move |(index, counts)| too_many(counts).then_some(index))
}
