//! The judge of one handshake: asks core about the chain, and remembers the answer.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use mesh_core::identity::{PeerRole, SpiffeId, SvidError, VerifiedSvid, verify_svid};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::VerifiedPeer;
use super::identity::Live;
use super::refusal::{HandshakeRefused, PeerRefused};

/// Whom one handshake accepts.
#[derive(Debug)]
pub(super) enum Accepts {
    /// Any client that the bundles vouch for; policy decides later what it may do.
    AnyClient,
    /// A server with one of these names. Nobody, where the list is empty.
    Servers(Arc<[SpiffeId]>),
}

/// Verifies the peer of exactly one handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    live: Arc<Live>,
    accepts: Accepts,
    verdict: OnceLock<Result<Arc<VerifiedSvid>, PeerRefused>>,
}

impl Verifier {
    pub(super) fn new(live: Arc<Live>, accepts: Accepts) -> Arc<Self> {
        Arc::new(Self { live, accepts, verdict: OnceLock::new() })
    }

    /// How the handshake ended. Our verdict goes before TLS's word: it knows why. Without one there is no peer.
    pub(super) fn conclude<S>(
        &self,
        ended: io::Result<S>,
        tls: impl FnOnce(&S) -> &CommonState,
    ) -> Result<(S, VerifiedPeer), HandshakeRefused> {
        match (ended, self.verdict.get()) {
            (_, Some(Err(refused))) => Err(HandshakeRefused::Peer(refused.clone())),
            (Err(error), _) => Err(HandshakeRefused::Io(error)),
            (Ok(stream), Some(Ok(svid))) => {
                let peer = VerifiedPeer::new(Arc::clone(svid), tls(&stream));
                Ok((stream, peer))
            }
            (Ok(_), None) => Err(HandshakeRefused::unjudged()),
        }
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let verdict = self.verdict.get_or_init(|| self.verify(leaf, rest, now));
        verdict.as_ref().map(|_| ()).map_err(|refused| Error::InvalidCertificate(alert(refused)))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Arc<VerifiedSvid>, PeerRefused> {
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(rest).map(AsRef::as_ref).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let role = match self.accepts {
            Accepts::AnyClient => PeerRole::Client,
            Accepts::Servers(_) => PeerRole::Server,
        };
        let svid = verify_svid(&chain, &self.live.identity.load().bundles, role, now)?;
        match &self.accepts {
            Accepts::Servers(expected) if !expected.contains(&svid.id) => {
                Err(PeerRefused::IdMismatch { expected: Arc::clone(expected), presented: svid.id })
            }
            _ => Ok(Arc::new(svid)),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.live.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.live.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The peer is told as little as TLS allows; the reason stays in the verdict.
fn alert(refused: &PeerRefused) -> CertificateError {
    match refused {
        PeerRefused::Svid(error) => CertificateError::Other(OtherError(Arc::<SvidError>::new(error.clone()))),
        PeerRefused::IdMismatch { .. } => CertificateError::ApplicationVerificationFailure,
    }
}

/// TLS 1.2 is never offered, so nobody can get here.
fn no_tls12<T>() -> Result<T, Error> {
    Err(Error::General("TLS 1.2 is not offered".to_owned()))
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // a hint would tell strangers whom we trust, and SPIFFE clients have one certificate
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, rest, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>, // an address: the expected SPIFFE IDs are the name (no DNS fallback)
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
