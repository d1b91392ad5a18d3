//! How traffic spreads over priorities and localities: Envoy's arithmetic, as functions of counts.
//!
//! | what | formula |
//! |---|---|
//! | health of a priority | `min(100, overprovisioning * available / total)`, in whole percent |
//! | its load | `health * 100 / min(100, sum of health)`, first to last, until 100 are given |
//! | panic of a priority | `100 * available / total < threshold`, unless the sum of health is 100 or more |
//! | all in panic | load by the number of endpoints, available or not |
//! | weight of a locality | `weight * min(100 %, overprovisioning * available / total)` |
//! | zone-aware, callers known | own zone whole if its share of endpoints is at least its share of callers, else their ratio; the rest by what other zones have more |
//!
//! The overprovisioning factor says how much more an endpoint can take than it does: at 140 %, a priority keeps all of
//! its traffic until fewer than 100/140 = 72 % of its endpoints are left.
//! (Envoy `source/extensions/load_balancing_policies/common/load_balancer_impl.cc`)

/// The endpoints of one priority or locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Those that may be used.
    pub available: u64,
    /// All of them.
    pub total: u64,
}

impl Count {
    /// Its health in whole percent, with `overprovisioning` in percent; 0 without endpoints.
    pub fn health(self, overprovisioning: u32) -> u32 {
        let health = (u64::from(overprovisioning) * self.available).checked_div(self.total).unwrap_or(0);
        health.min(100) as u32
    }

    /// Whether too few are available to trust the word that the others are not.
    ///
    /// 0 % is never.
    pub fn in_panic(self, threshold: u32) -> bool {
        self.available * 100 < u64::from(threshold) * self.total || (self.total == 0 && threshold > 0)
    }

    /// The share of them that may be used, 0 to 1.
    pub fn share(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.available as f64 / self.total as f64 }
    }
}

/// What one priority gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Of 100 requests, how many.
    pub percent: u32,
    /// Whether they go to all of its endpoints, available or not.
    pub panic: bool,
}

/// The load of each priority, first to last.
///
/// The percentages add up to 100, or to 0 where nothing is available and a threshold of 0 forbids panic.
///
/// ```
/// use mesh_core::balance::spread::{Count, priorities};
///
/// let [half, whole] = [Count { available: 5, total: 10 }, Count { available: 10, total: 10 }];
/// let loads = priorities(&[half, whole], 140, 50);
/// assert_eq!((loads[0].percent, loads[1].percent), (70, 30));
/// ```
pub fn priorities(counts: &[Count], overprovisioning: u32, threshold: u32) -> Vec<Load> {
    let health: Vec<u32> = counts.iter().map(|count| count.health(overprovisioning)).collect();
    let total = health.iter().sum::<u32>().min(100);
    if total == 0 {
        let panic = threshold > 0;
        return if panic { by_size(counts) } else { vec![Load::default(); counts.len()] };
    }
    let mut left = 100;
    let mut loads: Vec<Load> = (counts.iter().zip(&health))
        .map(|(count, health)| {
            let percent = (health * 100 / total).min(left);
            left -= percent;
            // While the priorities together can take everything, none of them is short of endpoints.
            Load { percent, panic: total < 100 && count.in_panic(threshold) }
        })
        .collect();
    if loads.iter().all(|load| load.panic) {
        return by_size(counts);
    }
    // What rounding left over goes to the first that has any health.
    if let Some((first, _)) = loads.iter_mut().zip(&health).find(|(_, health)| **health > 0) {
        first.percent += left;
    }
    loads
}

/// All are in panic: load follows the number of endpoints.
fn by_size(counts: &[Count]) -> Vec<Load> {
    let total: u64 = counts.iter().map(|count| count.total).sum();
    let mut left = 100;
    let mut loads: Vec<Load> = counts
        .iter()
        .map(|count| {
            let percent = (100 * count.total).checked_div(total).unwrap_or(0) as u32;
            left -= percent;
            Load { percent, panic: true }
        })
        .collect();
    let first = counts.iter().position(|count| count.total > 0).unwrap_or(0);
    if let Some(first) = loads.get_mut(first) {
        first.percent += left;
    }
    loads
}

/// What a locality of this weight weighs now.
pub fn locality(weight: u32, count: Count, overprovisioning: u32) -> f64 {
    f64::from(weight) * (f64::from(overprovisioning) / 100.0 * count.share()).min(1.0)
}

/// The shares of zones, the caller's own first.
///
/// From the numbers of callers and of available endpoints in each.
///
/// `None` where there is nothing to go by: no callers, no endpoints, or none in the own zone on either side.
pub fn zones(callers: &[u64], available: &[u64]) -> Option<Vec<f64>> {
    let share = |counts: &[u64]| {
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| counts.iter().map(|count| *count as f64 / total as f64).collect::<Vec<f64>>())
    };
    let (local, upstream) = (share(callers)?, share(available)?);
    let (own_callers, own_endpoints) = (*local.first()?, *upstream.first()?);
    if own_callers <= 0.0 || own_endpoints <= 0.0 {
        return None;
    }
    let own = (own_endpoints / own_callers).min(1.0);
    // What a zone has more than its own callers need.
    let mut rest: Vec<f64> = upstream.iter().zip(&local).map(|(there, here)| (there - here).max(0.0)).collect();
    if let Some(first) = rest.first_mut() {
        *first = 0.0;
    }
    let spare: f64 = rest.iter().sum();
    if own >= 1.0 || spare <= 0.0 {
        return Some((0..upstream.len()).map(|zone| if zone == 0 { 1.0 } else { 0.0 }).collect());
    }
    let mut shares: Vec<f64> = rest.iter().map(|rest| (1.0 - own) * rest / spare).collect();
    if let Some(first) = shares.first_mut() {
        *first = own;
    }
    Some(shares)
}

/// A number that is known to be at least 0 and below 2^64, without its fraction.
pub(super) fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests;
