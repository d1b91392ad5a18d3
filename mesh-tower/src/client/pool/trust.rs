//! Ends a connection whose server may not be talked to any more, whatever uses it.
//!
//! The handshake judges the server once. Afterwards its root may be removed, its certificate ends, or ours does: then
//! streams are cut, because a connection is worth what its certificates are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::clock::WallClock;
use mesh_core::identity::{Identity, PeerRole, verify_svid};
use mesh_core::snapshot::Snapshot;
use tokio::time::sleep;

use super::Shared;
use super::dial::Judged;

/// Calendar time may jump while timers do not: it is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// What trust depends on. It does not keep the pool alive.
pub(super) struct Trust {
    identity: Snapshot<Identity>,
    clock: Arc<dyn WallClock>,
    address: SocketAddr,
}

/// Why the peer may not be talked to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// No bundle vouches for its chain.
    Distrusted,
    PeerExpired,
    /// Our own certificate expired, and none followed.
    OwnExpired,
}

impl Lost {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Distrusted => "no trust bundle vouches for the endpoint any more",
            Self::PeerExpired => "the endpoint's certificate expired",
            Self::OwnExpired => "our own certificate expired and none followed",
        }
    }
}

impl Trust {
    /// `None` only in tests without TLS.
    pub(super) fn of(pool: &Shared) -> Option<Self> {
        let (identity, clock) = (pool.identity.clone()?, pool.clock.clone()?);
        Some(Self { identity, clock, address: pool.address })
    }

    /// Waits until the peer may not be talked to any more.
    pub(super) async fn lost(&self, Judged { peer, generation }: &Judged) -> Lost {
        let mut changes = self.identity.subscribe();
        let mut judged_under = *generation;
        loop {
            let (identity, now) = (self.identity.load(), self.clock.now());
            let left = |end: SystemTime| end.duration_since(now).ok().filter(|left| !left.is_zero());
            let Some(own) = identity.svid().and_then(|own| left(own.not_after())) else {
                tracing::error!(endpoint = %self.address, "connection cut: our own certificate expired and none followed");
                return Lost::OwnExpired;
            };
            let Some(theirs) = left(peer.svid.not_after) else {
                tracing::debug!(endpoint = %self.address, "connection cut: its peer's certificate expired");
                return Lost::PeerExpired;
            };
            if judged_under < identity.generation() {
                judged_under = identity.generation();
                if let Err(error) = verify_svid(&peer.chain, &identity.bundles, PeerRole::Server, now) {
                    let reason = error.reason();
                    tracing::warn!(endpoint = %self.address, reason, "connection cut: its peer is trusted no more");
                    return Lost::Distrusted;
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(own.min(theirs).min(CLOCK_CHECK)) => {}
            }
        }
    }
}
