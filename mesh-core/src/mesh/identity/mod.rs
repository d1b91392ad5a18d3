//! Judges revisions of identity before they are published, and keeps the one in force up to date.
//!
//! An SVID that nobody can verify is worse than an old one, and a root that was taken out is a revocation that must not
//! wait. The two parts of a revision therefore go different ways when they do not fit:
//!
//! | the new revision | what is in force afterwards |
//! |---|---|
//! | its bundles vouch for its SVID | the revision |
//! | its SVID came before the root that vouches for it, begins later, has ended, or is missing | its bundles with the SVIDs in force; the new SVID is held, and judged again every second |
//! | it has no bundle for the own trust domain | what was in force before |
//!
//! Bundles never wait for an SVID: whom they no longer name is refused at once, even where the own SVID is of the same
//! root and readiness says that nobody vouches for it any more. (SPIFFE Workload API 5.2.1: each answer is complete, what
//! is absent is revoked.)

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{NotReady, StartError};
use crate::clock::WallClock;
use crate::identity::{
    Identity, IdentityUpdates, PeerRole, SvidError, TrustBundleSet, TrustDomain, X509Svid, verify_svid,
};
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, UpdateResult};

/// How long a mesh waits for its first identity.
const FIRST_IDENTITY: Duration = Duration::from_secs(10);

/// How often the remaining life of the SVID is measured.
const MEASURE: Duration = Duration::from_secs(5);

/// How often an SVID that is held is judged again: its time may come.
const AGAIN: Duration = Duration::from_secs(1);

/// Judges revisions before they are published.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) domain: TrustDomain,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a part of a revision is not put in force.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// A stable word.
    reason: &'static str,
    message: String,
}

/// Whether the default SVID proves anything at `now`, to those who trust what we trust.
pub(super) fn validity(identity: &Identity, now: SystemTime) -> Result<(), NotReady> {
    let svid = identity.svid().ok_or(NotReady::NoIdentity)?;
    let id = || svid.id().clone();
    if svid.not_before() > now {
        return Err(NotReady::NotYetValid { id: id(), not_before: svid.not_before() });
    }
    if svid.not_after() <= now {
        return Err(NotReady::Expired { id: id(), not_after: svid.not_after() });
    }
    vouched(svid, &identity.bundles, now).map_err(|error| NotReady::Unvouched { id: id(), error })
}

/// Whether the bundles accept `svid` on either side of a connection.
fn vouched(svid: &X509Svid, bundles: &TrustBundleSet, now: SystemTime) -> Result<(), SvidError> {
    for role in [PeerRole::Client, PeerRole::Server] {
        verify_svid(svid.chain(), bundles, role, now)?;
    }
    Ok(())
}

impl Judge {
    /// What of `revision` can be presented: its default SVID, and those others that somebody vouches for.
    fn presentable(&self, revision: &Identity) -> Result<Vec<Arc<X509Svid>>, Held> {
        let now = self.clock.now();
        validity(revision, now).map_err(|why| Held { reason: why.reason(), message: why.to_string() })?;
        let domain = self.domain.as_str();
        if let Some(svid) = revision.svid().filter(|svid| svid.id().trust_domain() != domain) {
            let message = format!("{} is not of the configured trust domain `{domain}`", svid.id());
            return Err(Held { reason: "foreign_trust_domain", message });
        }
        let mut kept = revision.svids.clone();
        kept.retain(|svid| match vouched(svid, &revision.bundles, now) {
            Ok(()) => true,
            Err(error) => {
                self.metrics.runtime.identity_held(error.reason());
                tracing::warn!(id = %svid.id(), reason = error.reason(), %error, "a further SVID is left out");
                false
            }
        });
        Ok(kept)
    }

    /// Whether its bundles can judge a peer of the own trust domain at all.
    fn has_bundle(&self, revision: &Identity) -> Result<(), Held> {
        let domain = self.domain.as_str();
        if revision.bundles.get(domain).is_none_or(|bundle| bundle.authorities().is_empty()) {
            let message = format!("no trust bundle for `{domain}`: no peer could be verified");
            return Err(Held { reason: "no_trust_bundle", message });
        }
        Ok(())
    }

    /// The whole revision, as it may be published.
    fn whole(&self, revision: &Identity) -> Result<Identity, Held> {
        self.has_bundle(revision)?;
        let svids = self.presentable(revision)?;
        Ok(Identity { svids, bundles: Arc::clone(&revision.bundles) })
    }

    /// The first revision that can be used.
    pub(super) async fn first(&self, updates: &mut IdentityUpdates) -> Result<Identity, StartError> {
        let started = Instant::now();
        let mut last = "the source says nothing; is it running?".to_owned();
        let search = async {
            let mut held: Option<Identity> = None;
            loop {
                let (revision, news) = tokio::select! {
                    biased;
                    update = super::next(updates) => match update {
                        Some(Ok(revision)) => (revision, true),
                        Some(Err(error)) => {
                            self.metrics.runtime.identity_update(UpdateResult::Error);
                            last = error.to_string();
                            continue;
                        }
                        None => return None,
                    },
                    () = tokio::time::sleep(AGAIN), if held.is_some() => match held.take() {
                        Some(revision) => (revision, false),
                        None => continue,
                    },
                };
                match self.whole(&revision) {
                    Ok(identity) => return Some(identity),
                    Err(why) => {
                        if news {
                            self.metrics.runtime.identity_update(UpdateResult::Held);
                            self.metrics.runtime.identity_held(why.reason);
                        }
                        last = why.message;
                        held = Some(revision);
                    }
                }
            }
        };
        match tokio::time::timeout(FIRST_IDENTITY, search).await {
            Ok(Some(identity)) => {
                self.accepted(&identity);
                Ok(identity)
            }
            _ => Err(StartError::Identity { waited: started.elapsed(), message: last }),
        }
    }

    /// Publishes what can be used of every later revision. Ends only with the source, which should not.
    pub(super) async fn follow(self, mut updates: IdentityUpdates, cell: Snapshot<Identity>) {
        let mut held = None;
        let mut ended = false;
        loop {
            let pause = if held.is_some() { AGAIN } else { MEASURE };
            let update = tokio::select! {
                biased;
                update = super::next(&mut updates), if !ended => update,
                () = tokio::time::sleep(pause) => {
                    held = held.and_then(|revision| self.again(revision, &cell));
                    self.measure(&cell.load());
                    continue;
                }
            };
            match update {
                Some(Ok(revision)) => held = self.take(revision, &cell),
                Some(Err(error)) => {
                    self.metrics.runtime.identity_update(UpdateResult::Error);
                    tracing::warn!(%error, "identity not renewed; the last good one stays in force until it expires");
                }
                None => {
                    ended = true;
                    self.metrics.runtime.identity_update(UpdateResult::Error);
                    tracing::error!("the source of identity ended; the last one stays in force until it expires");
                }
            }
        }
    }

    /// Puts in force what can be of a new revision, and gives back one whose SVID has to wait.
    fn take(&self, revision: Identity, cell: &Snapshot<Identity>) -> Option<Identity> {
        let why = match self.whole(&revision) {
            Ok(identity) => {
                self.accepted(&identity);
                cell.publish(identity);
                return None;
            }
            Err(why) => why,
        };
        self.metrics.runtime.identity_held(why.reason);
        if self.has_bundle(&revision).is_err() {
            self.metrics.runtime.identity_update(UpdateResult::Error);
            tracing::warn!(
                reason = why.reason,
                error = why.message,
                "identity not replaced; the last one stays in force"
            );
            return None;
        }
        self.metrics.runtime.identity_update(UpdateResult::Held);
        let in_force = cell.load();
        let bundles_changed = *in_force.bundles != *revision.bundles;
        tracing::warn!(
            reason = why.reason,
            error = why.message,
            bundles_changed,
            "the new SVID is held, the last one stays in force; the bundles that came with it count at once"
        );
        if bundles_changed {
            let partly = Identity { svids: in_force.svids.clone(), bundles: Arc::clone(&revision.bundles) };
            if let Err(error) = validity(&partly, self.clock.now()) {
                tracing::error!(reason = error.reason(), %error, "this workload cannot prove who it is");
            }
            cell.publish(partly);
        }
        Some(revision)
    }

    /// Looks once more at a revision whose SVID was held. Its bundles are in force already.
    fn again(&self, revision: Identity, cell: &Snapshot<Identity>) -> Option<Identity> {
        match self.whole(&revision) {
            Ok(identity) => {
                self.accepted(&identity);
                cell.publish(identity);
                None
            }
            Err(_) => Some(revision),
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

#[cfg(test)]
mod tests;
