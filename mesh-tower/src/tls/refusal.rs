//! Why a handshake failed, in stable words for logs, metrics and the pool.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use mesh_core::identity::{SpiffeId, SvidError};
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Why we refused the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefused {
    /// Its chain does not prove an identity.
    #[error("the peer's certificate is refused: {0}")]
    Svid(#[from] SvidError),
    /// It is somebody, but not one of those we meant to reach.
    #[error("the peer is `{presented}`, expected {}", names(.expected))]
    IdMismatch {
        /// The names that the cluster's `identities` allow.
        expected: Arc<[SpiffeId]>,
        /// Who answered.
        presented: SpiffeId,
    },
}

impl PeerRefused {
    /// Whether a newer trust bundle could change the verdict.
    pub(crate) fn is_about_trust(&self) -> bool {
        matches!(self, Self::Svid(error) if error.is_about_trust())
    }

    /// A stable code: one of core's, or `peer_id_mismatch`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Svid(error) => error.reason(),
            Self::IdMismatch { .. } => "peer_id_mismatch",
        }
    }
}

/// Why we have nothing to show to a peer.
///
/// Fails closed: an SVID that has ended is presented to nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnRefused {
    /// It has ended, and its source gave no newer one.
    #[error("the own SVID of `{0}` is expired: its source does not renew it")]
    Expired(SpiffeId),
}

impl OwnRefused {
    /// A stable code.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired(_) => "own_svid_expired",
        }
    }
}

/// Why a handshake gave no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeRefused {
    /// We refused the peer.
    #[error(transparent)]
    Peer(#[from] PeerRefused),
    /// It speaks plaintext, which the listener took until its `permissive_until`.
    #[error("plaintext, and the listener's `permissive_until` has passed")]
    PermissiveEnded,
    /// We have no identity to present.
    #[error(transparent)]
    Own(#[from] OwnRefused),
    /// TLS or the transport failed.
    #[error("TLS handshake: {0}")]
    Io(#[from] io::Error),
}

impl HandshakeRefused {
    pub(super) fn tls(error: rustls::Error) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The verifier is mandatory; a handshake that passed it by without resuming a session is refused.
    pub(super) fn unjudged() -> Self {
        Self::Peer(SvidError::NoCertificate.into())
    }

    /// A stable code for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Peer(refused) => refused.reason(),
            Self::PermissiveEnded => "permissive_ended",
            Self::Own(refused) => refused.reason(),
            Self::Io(error) => handshake_reason(error),
        }
    }
}

fn names(expected: &[SpiffeId]) -> String {
    match expected {
        [] => "nobody (the cluster lists no identities)".to_owned(),
        expected => expected.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(" or "),
    }
}

/// Finds the TLS alert that the peer sent anywhere in `error`'s causes.
///
/// A TLS 1.3 client's handshake ends before the server has judged its certificate. A refusal arrives with the first
/// read: as an error of the connection, deep inside its causes.
pub(crate) fn alert_in(error: &(dyn StdError + 'static)) -> Option<AlertDescription> {
    match tls_error_in(error)? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// Whether this alert says that our certificate was refused, and so that no request was read.
///
/// Any other can come at any time, also from a server that is at work on what it has read: whoever damages a record on the
/// way makes it send `BadRecordMac`.
pub(crate) fn refuses_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure
    )
}

/// The verdict of ours that a failed handshake carries.
pub(super) fn refused_in(error: &io::Error) -> Option<PeerRefused> {
    match tls_error_in(error)? {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref().cloned(),
        _ => None,
    }
}

/// A stable code for a failed handshake that no verdict explains.
pub(crate) fn handshake_reason(error: &io::Error) -> &'static str {
    match tls_error_in(error) {
        Some(rustls::Error::AlertReceived(_)) => "refused_by_peer",
        Some(rustls::Error::NoCertificatesPresented) => "no_certificate",
        Some(rustls::Error::NoApplicationProtocol) => "no_common_protocol",
        Some(rustls::Error::InvalidMessage(InvalidMessage::CertificatePayloadTooLarge)) => "chain_too_large",
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::MessageTooLarge,
        )) => "handshake_too_large",
        Some(rustls::Error::InvalidMessage(_)) => "not_tls",
        Some(rustls::Error::PeerIncompatible(_)) => "incompatible",
        Some(rustls::Error::PeerMisbehaved(_) | rustls::Error::InappropriateHandshakeMessage { .. }) => "misbehaved",
        Some(rustls::Error::InvalidCertificate(_)) => "bad_certificate",
        Some(_) => "tls",
        None => "io",
    }
}

fn tls_error_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // `io::Error::source` skips the error it wraps and goes to that one's source.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
