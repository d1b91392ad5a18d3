//! The judge of handshakes: asks core about the chain, and remembers the answer for the handshake that it is about.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use mesh_core::identity::{PeerRole, SpiffeId, SvidError, VerifiedSvid, verify_svid};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, OtherError,
    SignatureScheme,
};

use super::VerifiedPeer;
use super::identity::Live;
use super::refusal::{HandshakeRefused, PeerRefused, refused_in};

/// Whom one handshake accepts.
#[derive(Debug)]
pub(super) enum Accepts {
    /// Any client that the bundles vouch for; policy decides later what it may do.
    AnyClient,
    /// A server with one of these names. Nobody, where the list is empty.
    Servers(Arc<[SpiffeId]>),
}

tokio::task_local! {
    /// The verdict of the handshake that is being polled. rustls asks its verifier nowhere but in a poll.
    static POLLED: Arc<OnceLock<Verdict>>;
}

/// Verifies the peer of one handshake, of one after the other, or of all that may resume each other's sessions.
#[derive(Debug)]
pub(super) struct Verifier {
    live: Arc<Live>,
    accepts: Accepts,
    judges: Judges,
}

/// How often a verifier is asked.
#[derive(Debug)]
enum Judges {
    /// By one handshake, which resumes nothing. Its verdict is kept.
    One { verdict: OnceLock<Verdict> },
    /// By all of a listener, which may resume older sessions: each verdict is kept beside its handshake.
    Each { resumes: bool },
    /// By many, so that no verdict can be kept: each peer is judged again when its handshake has ended.
    Many,
}

type Verdict = Result<Arc<VerifiedSvid>, PeerRefused>;

impl Verifier {
    /// For exactly one handshake, which resumes no session.
    pub(super) fn of_one(live: Arc<Live>, accepts: Accepts) -> Arc<Self> {
        Arc::new(Self { live, accepts, judges: Judges::One { verdict: OnceLock::new() } })
    }

    /// For all handshakes of a listener, which are polled by [`follow`](Self::follow). They may resume sessions if `resumes`.
    pub(super) fn of_each(live: Arc<Live>, accepts: Accepts, resumes: bool) -> Arc<Self> {
        Arc::new(Self { live, accepts, judges: Judges::Each { resumes } })
    }

    /// For all handshakes of one client and generation: rustls resumes only under the verifier that it knows.
    pub(super) fn of_many(live: Arc<Live>, accepts: Accepts) -> Arc<Self> {
        Arc::new(Self { live, accepts, judges: Judges::Many })
    }

    /// Polls one of many handshakes to its end, and keeps its verdict apart. Whatever is asked outside is refused.
    pub(super) async fn follow<S>(
        &self,
        handshake: impl Future<Output = io::Result<S>>,
        tls: impl FnOnce(&S) -> &CommonState,
    ) -> Result<(S, VerifiedPeer), HandshakeRefused> {
        let verdict = Arc::<OnceLock<Verdict>>::default();
        let ended = POLLED.scope(Arc::clone(&verdict), handshake).await;
        // Without a certificate rustls has failed the handshake, and knows no more; a session that is resumed needs none.
        self.live.presentable()?;
        self.decide(verdict.get(), ended, tls)
    }

    /// How the only handshake ended.
    pub(super) fn conclude<S>(
        &self,
        ended: io::Result<S>,
        tls: impl FnOnce(&S) -> &CommonState,
    ) -> Result<(S, VerifiedPeer), HandshakeRefused> {
        let verdict = match &self.judges {
            Judges::One { verdict } => verdict.get(),
            Judges::Each { .. } | Judges::Many => None,
        };
        self.decide(verdict, ended, tls)
    }

    /// Our verdict goes before TLS's word: it knows why. Without one there is no peer.
    fn decide<S>(
        &self,
        verdict: Option<&Verdict>,
        ended: io::Result<S>,
        tls: impl FnOnce(&S) -> &CommonState,
    ) -> Result<(S, VerifiedPeer), HandshakeRefused> {
        let stream = match (ended, verdict) {
            (_, Some(Err(refused))) => return Err(HandshakeRefused::Peer(refused.clone())),
            (Err(error), _) => {
                return Err(refused_in(&error).map_or(HandshakeRefused::Io(error), HandshakeRefused::Peer));
            }
            (Ok(stream), _) => stream,
        };
        let state = tls(&stream);
        let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        let svid = match &self.judges {
            Judges::Many => self.judge_again(state)?,
            Judges::Each { resumes: true } if resumed => self.judge_again(state)?,
            _ if resumed => return Err(HandshakeRefused::unjudged()),
            Judges::One { .. } | Judges::Each { .. } => match verdict {
                Some(Ok(svid)) => Arc::clone(svid),
                _ => return Err(HandshakeRefused::unjudged()),
            },
        };
        let peer = VerifiedPeer::new(svid, state, resumed);
        Ok((stream, peer))
    }

    /// What the chain that the connection has, restored or not, proves here and now.
    fn judge_again(&self, tls: &CommonState) -> Verdict {
        #[cfg(test)]
        if self.live.without.judging {
            return Ok(Arc::new(super::for_test::unjudged()));
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let (leaf, rest) = chain.split_first().ok_or(SvidError::NoCertificate)?;
        // A clock before 1970 judges as one at 1970: nothing is valid yet.
        let now = self.live.time.current_time().unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO));
        self.verify(leaf, rest, now)
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let keep = |verdict: &OnceLock<Verdict>| {
            let verdict = verdict.get_or_init(|| self.verify(leaf, rest, now));
            verdict.as_ref().map(|_| ()).map_err(|refused| Error::InvalidCertificate(alert(refused)))
        };
        match &self.judges {
            Judges::One { verdict } => keep(verdict),
            // Nobody would hear the verdict.
            Judges::Each { .. } => POLLED
                .try_with(|verdict| keep(verdict))
                .unwrap_or(Err(Error::General("a handshake is polled by nobody who waits for its verdict".to_owned()))),
            // The verdict travels in the error.
            Judges::Many => self.verify(leaf, rest, now).map(|_| ()).map_err(|refused| {
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::<PeerRefused>::new(refused))))
            }),
        }
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

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.live.provider.signature_verification_algorithms
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

/// The peer is told as little as TLS allows; the reason stays in the verdict.
fn alert(refused: &PeerRefused) -> CertificateError {
    match refused {
        PeerRefused::Svid(error) => CertificateError::Other(OtherError(Arc::<SvidError>::new(error.clone()))),
        PeerRefused::IdMismatch { .. } => CertificateError::ApplicationVerificationFailure,
    }
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
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, self.algorithms())
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
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
