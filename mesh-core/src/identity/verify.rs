//! Judges a peer's certificate chain, purely: same chain, trust and time, same answer.

use std::time::SystemTime;

use super::{SpiffeId, TrustBundleSet};

/// Which side of the handshake is being judged; chooses the extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// The peer connected to us: `id-kp-clientAuth`.
    Client,
    /// We connected to the peer: `id-kp-serverAuth`.
    Server,
}

/// What a chain proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSvid {
    /// The name in the leaf.
    pub id: SpiffeId,
    /// When the leaf ends to be valid; no connection may outlive it.
    pub not_after: SystemTime,
    /// The leaf's serial number in lower-case hex.
    pub serial: String,
    /// SHA-256 of the leaf's DER.
    pub fingerprint: [u8; 32],
}

/// Judges `chain` (DER, leaf first) against the bundle of the trust domain that its own SVID names.
///
/// Fails closed: anything that cannot be parsed or is not understood is an error.
pub fn verify_svid<C: AsRef<[u8]>>(
    chain: &[C],
    trust: &TrustBundleSet,
    role: PeerRole,
    now: SystemTime,
) -> Result<VerifiedSvid, SvidError> {
    let _ = (chain, trust, role, now);
    unimplemented!()
}

/// Why a chain is refused. [`reason`](Self::reason) is stable, for logs, metrics and audit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
}

impl SvidError {
    /// A stable code, for example `no_certificate`.
    pub fn reason(&self) -> &'static str {
        unimplemented!()
    }
}
