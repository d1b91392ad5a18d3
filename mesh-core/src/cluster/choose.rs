//! The choice of one endpoint for one attempt, on the set in force.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::endpoint::since;
use super::group::{Drawn, Slot};
use super::set::Set;
use super::{Cluster, Core, Pick, PickError, PickReason, PickScope, Tried};
use crate::balance::PickRequest;
use crate::health::Claim;
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
        let mut set = core.set.load();
        let millis = since(shared.epoch, now);
        if shared.next_return.due(millis).is_some() {
            core.look(now);
            set = core.set.load();
        }
        let active = if set.settings.count_active { shared.active.load(Relaxed) } else { 0 };
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
            match core.claim(&choice.drawn.slot.vitals) {
                Claim::Probe(probe) => break (choice, Some(probe)),
                // Somebody was faster, and the endpoint is out of this choice now.
                Claim::Taken if !choice.scope.is_panic() && lost < LOST_CLAIMS => lost += 1,
                Claim::Ordinary | Claim::Taken => break (choice, None),
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
        let Slot { state, vitals, .. } = choice.drawn.slot;
        Ok((Pick::new(state, vitals, set.settings.of_attempt(), probe, now), told))
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
