//! The ordinary pick, which nearly all are: the better of two, where nobody is out of the way and nothing divides them.
//!
//! It chooses what [`Set::choose`] would from the same random number. That can be asked for everything, and so keeps what
//! it decides by in memory; this one keeps it in registers, which halves what a pick costs.

use super::Tried;
use super::group::{Drawn, Group, Slot};
use super::set::Set;
use crate::balance::{Decay, PickRule, Picked, Tick, latency_by_load};
use crate::rng::Rng;

impl<T> Set<T> {
    /// The choice, if it is an ordinary one; `None`: it has to be made with all that is known.
    #[inline(always)]
    pub(super) fn choose_ordinarily(&self, tried: &Tried, rng: &Rng, now: u64) -> Option<Drawn<'_, T>> {
        if !self.plan.ordinary || !tried.is_empty() || now < self.plan.warm_from {
            return None;
        }
        let whole = &self.members.tiers.first()?.whole;
        whole.better_of_two(&self.members.slots, rng, Tick::of_millis(now), self.settings.decay)
    }
}

impl Group {
    /// Where somebody is out, both are drawn anew by whoever looks further: among equals that makes no difference.
    #[inline(always)]
    fn better_of_two<'s, T>(&self, slots: &'s [Slot<T>], rng: &Rng, now: Tick, decay: Decay) -> Option<Drawn<'s, T>> {
        let slots = slots.get(self.slots.clone())?;
        let (a, b) = self.weights.pair(rng.next_u64());
        let (first, second) = (slots.get(a)?, slots.get(b)?);
        if a == b || !first.vitals.is_in() || !second.vitals.is_in() {
            return None;
        }
        let cost = |slot: &Slot<T>| {
            latency_by_load(slot.vitals.ewma.seconds(now, decay), slot.vitals.in_flight(), slot.weight)
        };
        let (mine, other) = (cost(first), cost(second));
        let (slot, index, cost, rival) =
            if other < mine { (second, b, other, (a as u32, mine)) } else { (first, a, mine, (b as u32, other)) };
        let picked = Picked { cost, compared: 2, rival: Some(rival), ..Picked::by(PickRule::LeastLatency, index) };
        Some(Drawn { slot, slots, picked })
    }
}
