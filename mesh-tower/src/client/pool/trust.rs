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
use crate::tls::VerifiedPeer;

/// Calendar time may jump while timers do not: it is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Who answered.
pub(crate) struct Judged {
    pub(crate) peer: VerifiedPeer,
    /// The generation of identity that it was judged under, or an older one.
    pub(crate) generation: u64,
}

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
        let (identity, clock) = (pool.context.identity.clone()?, pool.context.clock.clone()?);
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
                biased;
                _ = changes.changed() => {}
                () = sleep(own.min(theirs).min(CLOCK_CHECK)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use mesh_core::config::TlsVersion;
    use tokio::time::Instant;

    use super::*;
    use crate::fixture::{Ca, DAY};

    const S: Duration = Duration::from_secs(1);

    /// Calendar time that moves with tokio's.
    #[derive(Debug)]
    struct Calendar(Instant);

    impl WallClock for Calendar {
        fn now(&self) -> SystemTime {
            UNIX_EPOCH + 1_800_000_000 * S + self.0.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_certificates_and_with_the_trust_in_them() {
        let start = Instant::now();
        let clock: Arc<dyn WallClock> = Arc::new(Calendar(start));
        let ours = Ca::new("ours", &clock);
        // (our certificate lasts, theirs, their root's, what is published after 30 s, judged late, when it ends, why)
        type Later = Option<(Duration, bool)>;
        let table: [(u32, u32, u32, Later, bool, u64, Lost); 8] = [
            (1000, 100, 9000, None, false, 100, Lost::PeerExpired),
            (1000, 1000, 70, None, false, 70, Lost::PeerExpired),
            (100, 1000, 9000, None, false, 100, Lost::OwnExpired),
            (100, 1000, 9000, Some((500 * S, true)), false, 530, Lost::OwnExpired),
            (100, 200, 9000, Some((500 * S, true)), false, 200, Lost::PeerExpired),
            (1000, 1000, 9000, Some((1000 * S, false)), false, 30, Lost::Distrusted),
            // The root was removed while the handshake lasted.
            (1000, 1000, 9000, None, true, 0, Lost::Distrusted),
            (0, 1000, 9000, None, false, 0, Lost::OwnExpired),
        ];
        for (own, peer, root, later, late, ends, why) in table {
            let theirs = Ca::lasting("theirs", &clock, root * S);
            let trusting = |ttl: Duration, theirs: Option<&Ca>| Identity {
                bundles: Arc::new(Ca::trust(&[Some(&ours), theirs].into_iter().flatten().collect::<Vec<_>>())),
                ..ours.issue("spiffe://td/ns/shop/sa/web", ttl)
            };
            let answering = theirs.issue("spiffe://td/ns/shop/sa/orders", peer * S);
            let chain = answering.svid().unwrap().chain().to_vec();
            let both = Ca::trust(&[&ours, &theirs]);
            let svid = verify_svid(&chain, &both, PeerRole::Server, clock.now()).unwrap();
            let judged = Judged {
                peer: VerifiedPeer {
                    svid: Arc::new(svid),
                    chain,
                    http: http::Version::HTTP_2,
                    version: TlsVersion::V1_3,
                    resumed: false,
                    group: None,
                    server_name: None,
                },
                generation: 1,
            };
            let identity = Snapshot::new(trusting(own * S, Some(&theirs)));
            if late {
                identity.publish(trusting(DAY, None));
            }
            let trust =
                Trust { identity: identity.clone(), clock: Arc::clone(&clock), address: ([10, 0, 0, 1], 1).into() };
            let begun = Instant::now();
            let publish = async {
                sleep(30 * S).await;
                if let Some((ttl, trusted)) = later {
                    identity.publish(trusting(ttl, trusted.then_some(&theirs)));
                }
                std::future::pending::<()>().await;
            };
            let lost = tokio::select! {
                lost = trust.lost(&judged) => lost,
                () = publish => unreachable!(),
            };
            assert_eq!((lost, begun.elapsed().as_secs()), (why, ends), "{own} {peer} {root} {later:?}");
        }
    }
}
