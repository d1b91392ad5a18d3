//! Waits for the first identity, then keeps it up to date.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior};

use super::{NotReady, StartError};
use crate::clock::WallClock;
use crate::identity::{Identity, IdentityUpdates, TrustDomain};
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, UpdateResult};

/// How long a mesh waits for its first identity.
const FIRST_IDENTITY: Duration = Duration::from_secs(10);

/// How often the remaining life of the SVID is measured.
const MEASURE: Duration = Duration::from_secs(5);

/// Judges revisions before they are published.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) domain: TrustDomain,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) metrics: Arc<Metrics>,
}

/// Whether the default SVID is valid at `now`.
pub(super) fn validity(identity: &Identity, now: SystemTime) -> Result<(), NotReady> {
    let svid = identity.svid().ok_or(NotReady::NoIdentity)?;
    if svid.not_before() > now {
        return Err(NotReady::NotYetValid { id: svid.id().clone(), not_before: svid.not_before() });
    }
    if svid.not_after() <= now {
        return Err(NotReady::Expired { id: svid.id().clone(), not_after: svid.not_after() });
    }
    Ok(())
}

impl Judge {
    /// Why a revision cannot be used: a workload of another domain, or one that can vouch for nobody, is none.
    fn judge(&self, identity: &Identity) -> Result<(), String> {
        validity(identity, self.clock.now()).map_err(|error| error.to_string())?;
        let domain = self.domain.as_str();
        if let Some(svid) = identity.svid().filter(|svid| svid.id().trust_domain() != domain) {
            return Err(format!("{} is not of the configured trust domain `{domain}`", svid.id()));
        }
        if identity.bundles.get(domain).is_none_or(|bundle| bundle.authorities().is_empty()) {
            return Err(format!("no trust bundle for `{domain}`: no peer could be verified"));
        }
        Ok(())
    }

    /// The first revision that can be used.
    pub(super) async fn first(&self, updates: &mut IdentityUpdates) -> Result<Identity, StartError> {
        let started = Instant::now();
        let mut last = "the source says nothing; is it running?".to_owned();
        let search = async {
            while let Some(update) = super::next(updates).await {
                match update.map_err(|error| error.to_string()).and_then(|i| self.judge(&i).map(|()| i)) {
                    Ok(identity) => return Some(identity),
                    Err(message) => last = message,
                }
                self.metrics.runtime.identity_update(UpdateResult::Error);
            }
            None
        };
        match tokio::time::timeout(FIRST_IDENTITY, search).await {
            Ok(Some(identity)) => {
                self.accepted(&identity);
                Ok(identity)
            }
            _ => Err(StartError::Identity { waited: started.elapsed(), message: last }),
        }
    }

    /// Publishes every later revision that can be used. Ends only with the source, which should not.
    pub(super) async fn follow(self, mut updates: IdentityUpdates, cell: Snapshot<Identity>) {
        let mut measure = tokio::time::interval(MEASURE);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = false;
        loop {
            let update = tokio::select! {
                update = super::next(&mut updates), if !ended => update,
                _ = measure.tick() => {
                    self.measure(&cell.load());
                    continue;
                }
            };
            match update.map(|update| update.map_err(|e| e.to_string()).and_then(|i| self.judge(&i).map(|()| i))) {
                Some(Ok(identity)) => {
                    self.accepted(&identity);
                    cell.publish(identity);
                }
                Some(Err(error)) => {
                    self.metrics.runtime.identity_update(UpdateResult::Error);
                    tracing::warn!(error, "identity not replaced; the last good one stays in force until it expires");
                }
                None => {
                    ended = true;
                    self.metrics.runtime.identity_update(UpdateResult::Error);
                    tracing::error!("the source of identity ended; the last one stays in force until it expires");
                }
            }
        }
    }

    fn accepted(&self, identity: &Identity) {
        self.metrics.runtime.identity_update(UpdateResult::Ok);
        self.measure(identity);
        if let Some(svid) = identity.svid() {
            let remaining = svid.not_after().duration_since(self.clock.now()).unwrap_or_default();
            tracing::info!(id = %svid.id(), serial = svid.serial(), ?remaining, "identity in force");
        }
    }

    fn measure(&self, identity: &Identity) {
        let Some(svid) = identity.svid() else { return };
        let remaining = match svid.not_after().duration_since(self.clock.now()) {
            Ok(left) => left.as_secs_f64(),
            Err(over) => -over.duration().as_secs_f64(),
        };
        self.metrics.runtime.svid_remaining.set(remaining);
    }
}
