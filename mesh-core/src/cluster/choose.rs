//! The choice of one endpoint for one attempt, on the set in force.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::Guard;
use tokio::time::Instant;

use super::endpoint::since;
use super::group::Drawn;
use super::set::Set;
use super::{Cluster, Core, Pick, PickError, PickReason, PickScope, Tried};
use crate::balance::PickRequest;
use crate::telemetry::PickRefusal;

/// How often one pick chooses anew because the endpoint that it chose has just got its probe. Each time somebody else got
/// ahead; beyond this the request goes beside the probe.
pub(super) const LOST_CLAIMS: u32 = 16;

impl<T: Send + Sync + 'static> Cluster<T> {
    /// Chooses an endpoint for one attempt, as [`pick_by`](Self::pick_by) does for a request without a key.
    pub fn pick(&self, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        self.pick_by(None, tried, now)
    }

    /// Chooses an endpoint for one attempt.
    ///
    /// By priority, locality and policy among those that are ready and not ejected,
    /// and not yet tried; if only tried ones are left, one of those; if too few are in, as `balance.panic` says. `hash`
    /// is that of the request's key, for policies that go by one.
    ///
    /// The pick counts as in flight until finished or dropped.
    pub fn pick_by(&self, hash: Option<u64>, tried: &Tried, now: Instant) -> Result<Pick<T>, PickError> {
        self.pick_telling(hash, tried, now, |_, _, _| ()).map(|(pick, ())| pick)
    }

    /// The same, and why.
    pub fn pick_for(&self, hash: Option<u64>, tried: &Tried, now: Instant) -> Result<(Pick<T>, PickReason), PickError> {
        self.pick_telling(hash, tried, now, PickReason::new)
    }

    fn pick_telling<R>(
        &self,
        hash: Option<u64>,
        tried: &Tried,
        now: Instant,
        tell: impl FnOnce(&Drawn<'_, T>, PickScope, bool) -> R,
    ) -> Result<(Pick<T>, R), PickError> {
        let (core, shared) = (&*self.core, &*self.core.shared);
        let set = core.set.load();
        let millis = since(shared.epoch, now);
        if shared.next_return.due(millis).is_none()
            && let Some(drawn) = set.choose_ordinarily(tried, &core.rng, millis)
            && let Some(probe) = core.claim(&drawn.slot.vitals).won()
        {
            let told = tell(&drawn, PickScope::Planned, probe.is_some());
            return Ok((Pick::new(drawn.slot, &set.settings.attempt, probe, now), told));
        }
        self.pick_otherwise(set, hash, tried, now, millis, tell)
    }

    /// With all that a choice can depend on.
    #[inline(never)]
    fn pick_otherwise<R>(
        &self,
        mut set: Guard<Arc<Set<T>>>,
        hash: Option<u64>,
        tried: &Tried,
        now: Instant,
        millis: u64,
        tell: impl FnOnce(&Drawn<'_, T>, PickScope, bool) -> R,
    ) -> Result<(Pick<T>, R), PickError> {
        let (core, shared) = (&*self.core, &*self.core.shared);
        if shared.next_return.due(millis).is_some() {
            core.look(now);
            set = core.set.load();
        }
        let active = if set.settings.attempt.count_active { shared.active.load(Relaxed) } else { 0 };
        let request = PickRequest { hash, active, ..PickRequest::new(&core.rng) };
        let (mut lost, mut known) = (0, false);
        let (choice, probe) = loop {
            let choice = match set.choose(tried, request, millis) {
                Ok(choice) => choice,
                Err(PickError::Empty) if !self.resolved() => return Err(PickError::Unresolved),
                // Known by now, and maybe not yet when this set was read: the first one is put in force before that is said.
                Err(PickError::Empty) if !known => {
                    known = true;
                    set = core.set.load();
                    continue;
                }
                Err(error) => return Err(self.refused(error, &set)),
            };
            match core.claim(&choice.drawn.slot.vitals).won() {
                Some(probe) => break (choice, probe),
                // Somebody was faster, and the endpoint is out of this choice now.
                None if !choice.scope.is_panic() && lost < LOST_CLAIMS => lost += 1,
                None => break (choice, None),
            }
        };
        if choice.scope.is_panic() {
            shared.metrics.panic_picks.inc();
            core.ask_again(&set);
        }
        if choice.scope == PickScope::Spilled {
            shared.metrics.balance.spilled.inc();
        }
        let told = tell(&choice.drawn, choice.scope, probe.is_some());
        Ok((Pick::new(choice.drawn.slot, &set.settings.attempt, probe, now), told))
    }

    /// Counts a pick that found nobody in this set.
    fn refused(&self, error: PickError, set: &Set<T>) -> PickError {
        let refused = &self.core.shared.metrics.balance.refused;
        match error {
            PickError::Residency => refused.inc(PickRefusal::Residency),
            PickError::Unavailable => {
                refused.inc(PickRefusal::Panic);
                self.core.ask_again(set);
            }
            PickError::Empty | PickError::Unresolved => {}
        }
        error
    }
}

impl<T> Core<T> {
    /// Asks the endpoints' source for others, if all are out.
    fn ask_again(&self, set: &Set<T>) {
        if set.plan.available == 0 {
            self.out_of_reach.notify_one();
        }
    }
}
