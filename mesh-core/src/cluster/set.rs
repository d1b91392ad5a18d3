//! One immutable set of endpoints, and the choice of one of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::balancing::Balancing;
use super::endpoint::{Share, Vitals};
use super::group::{Admit, Drawn, Slot, Terms};
use super::members::{Members, Tier};
use super::plan::{PartPlan, Plan, TierPlan};
use super::reason::PickScope;
use super::settings::Settings;
use super::{PickError, Tried};
use crate::balance::{PickRequest, Tick};
use crate::config::PanicAction;

/// As many others say what an endpoint should take: whoever lets calls time out must not have us look at thousands.
const COMPARED: usize = 64;

/// The endpoints with what they get of the traffic now. Changed whole.
pub(super) struct Set<T> {
    pub(super) members: Arc<Members<T>>,
    pub(super) plan: Plan,
    pub(super) settings: Settings,
    pub(super) balancing: Arc<Balancing>,
}

pub(super) struct Choice<'a, T> {
    pub(super) drawn: Drawn<'a, T>,
    pub(super) scope: PickScope,
}

impl<T> Set<T> {
    pub(super) fn new(members: Arc<Members<T>>, settings: Settings, balancing: Arc<Balancing>) -> Self {
        let plan = Plan::new(&members, &balancing, &settings);
        Self { members, plan, settings, balancing }
    }

    /// The same endpoints, with a plan of how they fare now.
    pub(super) fn planned_anew(&self) -> Self {
        Self::new(Arc::clone(&self.members), self.settings, Arc::clone(&self.balancing))
    }

    /// By the plan: a priority, a part of it, an endpoint in that. Where all there were tried already, any untried one
    /// that is in, of the same priority, then of the first that has one; then a tried one that is in; then, unless that is forbidden, one that is out.
    ///
    /// The ordinary way is compiled into its caller, so that what was chosen, and by what, stays in registers; the ways
    /// that are not ordinary are functions of their own.
    #[inline(always)]
    pub(super) fn choose(&self, tried: &Tried, request: PickRequest<'_>, now: u64) -> Result<Choice<'_, T>, PickError> {
        let tried = Some(tried).filter(|tried| !tried.is_empty());
        let terms = Terms { request, tried, admit: Admit::In, now, slow: None, settings: &self.settings };
        let Some((tier, plan)) = self.tier(&request) else { return Err(self.nobody()) };
        if !plan.load.panic
            && let Some(choice) = self.planned(tier, plan, &terms)
        {
            return Ok(choice);
        }
        self.unplanned(tier, plan.load.panic, terms)
    }

    /// In panic, or where the plan's own choice has nobody left.
    #[cold]
    #[inline(never)]
    fn unplanned(&self, tier: &Tier, panic: bool, terms: Terms<'_>) -> Result<Choice<'_, T>, PickError> {
        if panic {
            if self.settings.panic == PanicAction::Fail {
                return Err(PickError::Unavailable);
            }
            let request = PickRequest { available: 1.0, ..terms.request };
            let terms = Terms { admit: Admit::Usable, request, ..terms };
            if let Some(drawn) = tier.whole.pick(&self.members.slots, &terms) {
                return Ok(Choice { drawn, scope: PickScope::Panic });
            }
        }
        self.leftover(tier, terms)
    }

    /// Why there is nobody.
    fn nobody(&self) -> PickError {
        if !self.members.states.is_empty() {
            PickError::Unavailable
        } else if self.members.outside.is_empty() {
            PickError::Empty
        } else {
            PickError::Residency
        }
    }

    /// The priority of this request: by its key if it has one, so that one key keeps its priority.
    fn tier(&self, request: &PickRequest<'_>) -> Option<(&Tier, &TierPlan)> {
        let index = if self.plan.tiers.len() == 1 && self.plan.total > 0 {
            0
        } else {
            let percent = match request.hash {
                _ if self.plan.total == 0 => return None,
                Some(hash) => (hash % 100) as u32,
                None => request.rng.below(100) as u32,
            };
            let mut end = 0;
            self.plan.tiers.iter().position(|tier| {
                end += tier.load.percent;
                percent < end
            })?
        };
        self.members.tiers.get(index).zip(self.plan.tiers.get(index))
    }

    #[inline(always)]
    fn planned(&self, tier: &Tier, plan: &TierPlan, terms: &Terms<'_>) -> Option<Choice<'_, T>> {
        let part = match plan.parts.as_slice() {
            [] => None,
            [one] => Some(one),
            many => {
                let share = terms.request.rng.unit();
                Some(many.get(many.partition_point(|part| part.until <= share)).or(many.last())?)
            }
        };
        let (group, available, oldest) = match part {
            None => (&tier.whole, plan.available, plan.oldest),
            Some(part) => (&tier.parts.get(part.index)?.group, part.available, part.oldest),
        };
        let drawn = group.pick(&self.members.slots, &self.terms_of(terms, available, oldest))?;
        if let Some(part) = part
            && let Some((factor, next)) = plan.spill.as_ref().filter(|(_, next)| next.index > part.index)
            // Looking at the next ring costs a second pick: only where it can matter.
            && drawn.slot.vitals.in_flight() >= *factor as usize
            && let Some(other) = self.spilled(tier, next, &drawn, *factor as usize, terms)
        {
            return Some(Choice { drawn: other, scope: PickScope::Spilled });
        }
        Some(Choice { drawn, scope: PickScope::Planned })
    }

    #[inline(always)]
    fn terms_of<'a>(&self, terms: &Terms<'a>, available: f32, oldest: u64) -> Terms<'a> {
        let request = PickRequest { available, ..terms.request };
        let slow = self.settings.slow_start.filter(|_| terms.now < self.plan.warm_from);
        Terms { request, slow: slow.map(|slow| (slow, oldest)), ..*terms }
    }

    /// Somebody of the next ring, if this one has that much more to do.
    #[inline(never)]
    fn spilled(
        &self,
        tier: &Tier,
        next: &PartPlan,
        drawn: &Drawn<'_, T>,
        factor: usize,
        terms: &Terms<'_>,
    ) -> Option<Drawn<'_, T>> {
        let group = &tier.parts.get(next.index)?.group;
        let other = group.pick(&self.members.slots, &self.terms_of(terms, next.available, next.oldest))?;
        let busy = drawn.slot.vitals.in_flight() + 1;
        (busy > factor * (other.slot.vitals.in_flight() + 1)).then_some(other)
    }

    /// Somebody, where the plan's own choice has nobody left: all were tried, or went out since. `planned` comes first.
    fn leftover(&self, planned: &Tier, terms: Terms<'_>) -> Result<Choice<'_, T>, PickError> {
        let retry = terms.tried.is_some();
        let steps = [(Admit::In, true), (Admit::In, false), (Admit::Usable, true), (Admit::Usable, false)];
        let steps = steps.into_iter().chain([(Admit::Any, true), (Admit::Any, false)]);
        for (admit, untried) in steps {
            if !untried && !retry {
                continue; // without earlier attempts everybody is untried: the step before has asked this already
            }
            let scope = match (admit, untried) {
                (Admit::In, true) => PickScope::Untried,
                (Admit::In, false) => PickScope::Again,
                (Admit::Usable, _) => PickScope::Panic,
                (Admit::Any, _) => PickScope::Unreachable,
            };
            if scope.is_panic() && (self.settings.panic == PanicAction::Fail || self.settings.threshold == 0) {
                return Err(PickError::Unavailable);
            }
            let terms = Terms { admit, tried: terms.tried.filter(|_| untried), ..terms };
            let mut tiers = std::iter::once(planned).chain(&self.members.tiers);
            if let Some(drawn) = tiers.find_map(|tier| tier.whole.pick(&self.members.slots, &terms)) {
                return Ok(Choice { drawn, scope });
            }
        }
        Err(self.nobody())
    }

    /// The median latency of the endpoints that are in, if any is: what one that comes, or comes back, is assumed to have.
    pub(super) fn median_latency(&self, now: Instant, epoch: Instant) -> Option<Duration> {
        let tick = Tick::at(epoch, now);
        let vitals = self.members.slots.iter().map(|slot| &slot.vitals);
        let mut seconds: Vec<f32> = vitals
            .filter(|vitals| vitals.is_in() && !vitals.has_returned())
            .map(|vitals| vitals.ewma.seconds(tick, self.settings.decay))
            .collect();
        seconds.sort_unstable_by(f32::total_cmp);
        seconds.get(seconds.len() / 2).map(|median| Duration::from_secs_f32(*median))
    }

    /// What the others take, by the last estimate of each: the median of a few that are in.
    ///
    /// `None` where there are none.
    pub(super) fn usual_latency(&self, but: &Vitals) -> Option<Duration> {
        let others = self.members.slots.iter().map(|slot| &*slot.vitals);
        let others = others.filter(|vitals| vitals.is_in() && !std::ptr::eq(*vitals, but));
        let mut last: Vec<Duration> = others.map(|vitals| vitals.ewma.last()).take(COMPARED).collect();
        last.sort_unstable();
        last.get(last.len() / 2).copied()
    }

    /// The slots with what each one's group gets of the traffic.
    pub(super) fn shares(&self, now: u64) -> impl Iterator<Item = (&Slot<T>, Share)> {
        let slow = self.settings.slow_start.filter(|_| now < self.plan.warm_from);
        self.members.tiers.iter().enumerate().flat_map(move |(index, tier)| {
            let slots = self.members.slots.iter().enumerate();
            slots.skip(tier.whole.slots.start).take(tier.whole.slots.len()).map(move |(place, slot)| {
                let part = tier.parts.iter().position(|part| part.group.slots.contains(&place)).unwrap_or(0);
                let (load, locality_percent) = self.plan.share(index, part);
                let warmth = slow.map_or(1.0, |slow| slow.factor(now.saturating_sub(slot.vitals.came())));
                let share = Share {
                    priority_percent: load.percent,
                    locality_percent,
                    panic: load.panic,
                    warmth_percent: (warmth * 100.0).round() as u32,
                };
                (slot, share)
            })
        })
    }
}
