//! What each priority and locality gets of the traffic, computed when an endpoint goes in or out.

use super::balancing::Balancing;
use super::group::Slot;
use super::members::{Members, Part, Tier};
use super::settings::Settings;
use crate::balance::spread::{self, Count, Load};
use crate::config::LocalityConfig;
use crate::telemetry::{BalanceMetrics, Distance, PriorityLabel};

/// Where traffic goes now. Immutable: whoever goes in or out makes another one.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the set's tiers.
    pub(super) tiers: Vec<TierPlan>,
    /// Nobody starts slowly from then on; 0: nobody does.
    pub(super) warm_from: u64,
    /// The percentages add up to this: 100, or 0 where nothing may be used.
    pub(super) total: u32,
    /// How many endpoints are in.
    pub(super) available: u64,
    /// One priority, in which localities and weights make no difference, not in panic, and of two the better one by latency is
    /// chosen.
    pub(super) ordinary: bool,
}

#[derive(Debug)]
pub(super) struct TierPlan {
    pub(super) load: Load,
    /// The share of it that may be used.
    pub(super) available: f32,
    /// The localities or rings that get anything, with the end of each one's share; empty: no difference is made.
    pub(super) parts: Vec<PartPlan>,
    /// A choice in a nearer part gives way to one in this if its endpoint has so many times as much to do.
    pub(super) spill: Option<(u32, PartPlan)>,
    /// When the one came that came first, of those that are in.
    pub(super) oldest: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PartPlan {
    /// Of the tier's parts.
    pub(super) index: usize,
    /// The end of its share of 1.
    pub(super) until: f64,
    pub(super) available: f32,
    pub(super) oldest: u64,
}

impl Plan {
    pub(super) fn new<T>(members: &Members<T>, balancing: &Balancing, settings: &Settings) -> Self {
        let config = &balancing.config;
        let surveys: Vec<Survey> = members.tiers.iter().map(|tier| Survey::of(members, tier)).collect();
        let counts: Vec<Count> = surveys.iter().map(|survey| survey.whole.count).collect();
        let loads = spread::priorities(&counts, config.overprovisioning_percent, config.panic.threshold_percent);
        let tiers = members.tiers.iter().zip(&surveys).zip(loads).enumerate().map(|(index, ((tier, survey), load))| {
            let (parts, spill) = survey.parts(balancing, tier, index == 0);
            TierPlan { load, available: survey.whole.share(), parts, spill, oldest: survey.whole.oldest }
        });
        let tiers: Vec<TierPlan> = tiers.collect();
        let youngest = surveys.iter().map(|survey| survey.whole.youngest).max();
        let warm_from = settings.slow_start.zip(youngest).map_or(0, |(slow, youngest)| slow.ends(youngest));
        let total = tiers.iter().map(|tier| tier.load.percent).sum();
        let available = counts.iter().map(|count| count.available).sum();
        let ordinary = match (tiers.as_slice(), members.tiers.as_slice()) {
            ([plan], [tier]) => total > 0 && !plan.load.panic && plan.parts.is_empty() && tier.whole.compares_equals(),
            _ => false,
        };
        Self { tiers, warm_from, total, available, ordinary }
    }

    /// Shows in metrics what was planned.
    pub(super) fn show<T>(&self, members: &Members<T>, metrics: &BalanceMetrics) {
        let mut percents = [0; PriorityLabel::COUNT];
        let mut panics = [0; PriorityLabel::COUNT];
        let mut distances = [0.0; Distance::COUNT];
        for (tier, plan) in members.tiers.iter().zip(&self.tiers) {
            let label = PriorityLabel::of(tier.priority) as usize;
            if let (Some(percent), Some(panic)) = (percents.get_mut(label), panics.get_mut(label)) {
                *percent += i64::from(plan.load.percent);
                *panic |= i64::from(plan.load.panic);
            }
            let mut give = |distance: Distance, percent: f64| {
                if let Some(sum) = distances.get_mut(distance as usize) {
                    *sum += percent;
                }
            };
            if plan.parts.is_empty() || plan.load.panic {
                give(Distance::Any, f64::from(plan.load.percent));
                continue;
            }
            let mut start = 0.0;
            for part in &plan.parts {
                let distance = tier.parts.get(part.index).map_or(Distance::Any, |part| part.distance);
                give(distance, (part.until - start) * f64::from(plan.load.percent));
                start = part.until;
            }
        }
        metrics.show(&percents, &panics, &distances.map(|percent: f64| percent.round() as i64));
    }

    /// Of 100 requests, how many a tier gets, and how many of those a part of it.
    pub(super) fn share(&self, tier: usize, part: usize) -> (Load, u32) {
        let Some(plan) = self.tiers.get(tier) else { return (Load::default(), 0) };
        if plan.parts.is_empty() || plan.load.panic {
            return (plan.load, 100);
        }
        let index = plan.parts.iter().position(|planned| planned.index == part);
        let percent = index.and_then(|index| {
            let start = index.checked_sub(1).and_then(|before| plan.parts.get(before)).map_or(0.0, |part| part.until);
            plan.parts.get(index).map(|part| ((part.until - start) * 100.0).round() as u32)
        });
        (plan.load, percent.unwrap_or(0))
    }
}

/// How the endpoints of one tier fare, all together and by part.
struct Survey {
    whole: Tally,
    parts: Vec<Tally>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    count: Count,
    oldest: u64,
    youngest: u64,
}

impl Tally {
    fn of<T>(slots: &[Slot<T>]) -> Self {
        let mut tally =
            Self { count: Count { available: 0, total: slots.len() as u64 }, oldest: u64::MAX, youngest: 0 };
        for vitals in slots.iter().map(|slot| &slot.vitals).filter(|vitals| vitals.is_in()) {
            tally.count.available += 1;
            tally.oldest = tally.oldest.min(vitals.came());
            tally.youngest = tally.youngest.max(vitals.came());
        }
        tally
    }

    fn share(&self) -> f32 {
        self.count.share() as f32
    }

    fn part(&self, index: usize, until: f64) -> PartPlan {
        PartPlan { index, until, available: self.share(), oldest: self.oldest }
    }
}

impl Survey {
    fn of<T>(members: &Members<T>, tier: &Tier) -> Self {
        let tally = |slots: &std::ops::Range<usize>| Tally::of(members.slots.get(slots.clone()).unwrap_or_default());
        Self {
            whole: tally(&tier.whole.slots),
            parts: tier.parts.iter().map(|part| tally(&part.group.slots)).collect(),
        }
    }

    /// The shares of the tier's parts, and where load spills to.
    fn parts(&self, balancing: &Balancing, tier: &Tier, first: bool) -> (Vec<PartPlan>, Option<(u32, PartPlan)>) {
        const NONE: (Vec<PartPlan>, Option<(u32, PartPlan)>) = (Vec::new(), None);
        let over = balancing.config.overprovisioning_percent;
        if tier.parts.len() < 2 {
            return NONE;
        }
        let counts: Vec<Count> = self.parts.iter().map(|tally| tally.count).collect();
        match &balancing.config.locality {
            LocalityConfig::Off => NONE,
            LocalityConfig::Weighted(_) => {
                let weights = tier.parts.iter().zip(&counts);
                let weights = weights.map(|(part, count)| spread::locality(part.weight, *count, over));
                (self.cumulate(weights), None)
            }
            LocalityConfig::ZoneAware(config) => {
                if !first || self.whole.count.available < u64::from(config.min_endpoints) {
                    return NONE;
                }
                if config.callers.is_empty() {
                    // Rings: like priorities, but never in panic.
                    let loads = spread::priorities(&counts, over, 0);
                    let parts = self.cumulate(loads.iter().map(|load| f64::from(load.percent)));
                    let nearest = parts.first().map_or(0, |part| part.index);
                    let next =
                        self.parts.iter().enumerate().skip(nearest + 1).find(|(_, tally)| tally.count.available > 0);
                    let spill = next.map(|(index, tally)| (config.spill, tally.part(index, 1.0)));
                    return (parts, spill);
                }
                let mut callers: Vec<u64> = tier.parts.iter().map(Part::callers).collect();
                let mut available: Vec<u64> = counts.iter().map(|count| count.available).collect();
                // Callers in zones without endpoints need their share of the others.
                let all: u64 = config.callers.values().copied().map(u64::from).sum();
                callers.push(all.saturating_sub(callers.iter().sum()));
                available.push(0);
                // Nothing in the own zone on either side: no difference is made. (Envoy)
                let own = tier.parts.first().is_some_and(|part| part.distance == Distance::Zone);
                match spread::zones(&callers, &available).filter(|_| own) {
                    Some(shares) => (self.cumulate(shares.into_iter()), None),
                    None => NONE,
                }
            }
        }
    }

    fn cumulate(&self, weights: impl Iterator<Item = f64> + Clone) -> Vec<PartPlan> {
        let total: f64 = weights.clone().sum();
        let mut sum = 0.0;
        let parts = weights.zip(&self.parts).enumerate().filter(|(_, (weight, _))| *weight > 0.0);
        parts
            .map(|(index, (weight, tally))| {
                sum += weight;
                tally.part(index, sum / total)
            })
            .collect()
    }
}
