//! Judges a peer's certificate chain, purely: same chain, trust and time, same answer.
//!
//! | step | refuses |
//! |---|---|
//! | size | chains that cost more than they can be worth |
//! | leaf rules | what X509-SVID 4 and 5.2 forbid and webpki accepts |
//! | bundle | trust domains that nobody told us to trust, and roots of *other* trust domains |
//! | path (webpki) | signatures, issuers, expiry, constraints, extended key usage, unknown critical extensions |
//! | intermediates on the path | issuers that may not sign certificates |
//!
//! URI name constraints fail closed: webpki refuses a chain whose issuer carries any. (RUSTSEC-2026-0098)

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, KeyUsage};

use super::error::{MAX_CHAIN, MAX_CHAIN_BYTES};
use super::{SpiffeId, SvidError, TrustBundleSet, certificate};

/// The signatures that a chain may carry: what rustls accepts, without P-521 and the legacy encodings.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// How many anchors of other trust domains are tried to explain a refusal.
const MAX_SUSPECTS: usize = 8;

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
    /// When the first certificate on the path ends to be valid: the leaf, an intermediate or the root. No connection
    /// may outlive it.
    ///
    /// A root that is in the bundle with two validities ends with the later one.
    pub not_after: SystemTime,
    /// The leaf's serial number in lower-case hex.
    pub serial: String,
    /// SHA-256 of the leaf's DER.
    pub fingerprint: [u8; 32],
}

/// Judges `chain` against the bundle of the trust domain that its SVID names.
///
/// The chain is DER, leaf first.
///
/// Fails closed: anything that cannot be parsed or is not understood is an error. That the peer holds the leaf's key
/// is for the handshake to prove; that it is *the* peer we meant, for the caller to check.
pub fn verify_svid<C: AsRef<[u8]>>(
    chain: &[C],
    trust: &TrustBundleSet,
    role: PeerRole,
    now: SystemTime,
) -> Result<VerifiedSvid, SvidError> {
    let first = check_size(chain)?.as_ref();
    let seconds = now.duration_since(UNIX_EPOCH).map_err(|_| SvidError::NotYetValid)?.as_secs();
    let now = UNIX_EPOCH + Duration::from_secs(seconds);
    let leaf = valid_leaf(first, now)?;

    let domain = leaf.id.trust_domain();
    let bundle = trust.get(domain).ok_or_else(|| SvidError::UnknownTrustDomain(domain.to_owned()))?;
    let anchors = bundle.anchors_at(now);
    if anchors.is_empty() {
        return Err(SvidError::NoValidAuthority(domain.to_owned()));
    }

    let first_der = CertificateDer::from(first);
    let candidate = Candidate {
        leaf: EndEntityCert::try_from(&first_der).map_err(|error| path_error(&error))?,
        issuers: chain.iter().skip(1).map(|der| CertificateDer::from(der.as_ref())).collect(),
        time: UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        role,
    };
    let (issuers_end, anchor) =
        candidate.check(&anchors).map_err(|error| candidate.explain(error, trust, domain, now))?;
    let issuers_end = issuers_end.into_iter().chain(bundle.end_of(anchor));
    let not_after = issuers_end.fold(leaf.not_after, SystemTime::min);

    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, first).as_ref());
    Ok(VerifiedSvid { id: leaf.id, not_after, serial: leaf.serial, fingerprint })
}

/// A chain on its way to an anchor.
struct Candidate<'a> {
    leaf: EndEntityCert<'a>,
    issuers: Vec<CertificateDer<'a>>,
    time: UnixTime,
    role: PeerRole,
}

impl Candidate<'_> {
    /// When the first intermediate of the first good path ends, and the anchor at its end.
    fn check<'p>(
        &'p self,
        anchors: &'p [TrustAnchor<'p>],
    ) -> Result<(Option<SystemTime>, &'p TrustAnchor<'p>), SvidError> {
        let usage = match self.role {
            PeerRole::Client => KeyUsage::client_auth(),
            PeerRole::Server => KeyUsage::server_auth(),
        };
        let path = self
            .leaf
            .verify_for_usage(ALGORITHMS, anchors, &self.issuers, self.time, usage, None, None)
            .map_err(|error| path_error(&error))?;
        let mut first_end: Option<SystemTime> = None;
        for issuer in path.intermediate_certificates() {
            let end = certificate::intermediate_end(issuer.der().as_ref())?;
            first_end = Some(first_end.map_or(end, |first| first.min(end)));
        }
        Ok((first_end, path.anchor()))
    }

    /// Tells the authority of a partner that poses as ours from one that nobody knows. Words only: refused it is.
    ///
    /// Bounded, because a stranger causes it: one more path check, over [`MAX_SUSPECTS`] anchors that bear a right name.
    fn explain(&self, error: SvidError, trust: &TrustBundleSet, domain: &str, now: SystemTime) -> SvidError {
        if !matches!(error, SvidError::UnknownIssuer | SvidError::BadSignature) {
            return error;
        }
        let others = trust.iter().filter(|bundle| bundle.domain().as_str() != domain);
        let anchors =
            others.flat_map(|bundle| bundle.anchors_at(now).into_iter().map(|anchor| (bundle.domain(), anchor)));
        let named = anchors.filter(|(_, anchor)| self.names_issuer(anchor.subject.as_ref()));
        let (owners, suspects): (Vec<_>, Vec<_>) = named.take(MAX_SUSPECTS).unzip();
        let Ok((_, culprit)) = self.check(&suspects) else { return error };
        match owners.iter().zip(&suspects).find(|(_, suspect)| *suspect == culprit) {
            Some((owner, _)) => SvidError::OtherTrustDomain(owner.as_str().to_owned()),
            None => error,
        }
    }

    /// Whether the leaf or one of its issuers says that `subject` issued it.
    fn names_issuer(&self, subject: &[u8]) -> bool {
        let issuer = |der| EndEntityCert::try_from(der).is_ok_and(|cert| cert.issuer() == subject);
        self.leaf.issuer() == subject || self.issuers.iter().any(issuer)
    }
}

/// The first certificate of a chain that is neither empty nor too large to look at.
pub(super) fn check_size<C: AsRef<[u8]>>(chain: &[C]) -> Result<&C, SvidError> {
    let bytes = chain.iter().map(|der| der.as_ref().len()).sum::<usize>();
    match chain.first() {
        None => Err(SvidError::NoCertificate),
        Some(_) if chain.len() > MAX_CHAIN => Err(SvidError::ChainTooLong(chain.len())),
        Some(_) if bytes > MAX_CHAIN_BYTES => Err(SvidError::ChainTooLarge(bytes)),
        Some(first) => Ok(first),
    }
}

/// By the time webpki is asked, the leaf's own validity and role are known to be good: what it finds is the issuers'.
fn path_error(error: &webpki::Error) -> SvidError {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer => SvidError::UnknownIssuer,
        E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => SvidError::BadSignature,
        E::CertExpired { .. } => SvidError::IssuerExpired,
        E::CertNotValidYet { .. } => SvidError::IssuerNotYetValid,
        E::EndEntityUsedAsCa => SvidError::IntermediateIsNoAuthority,
        E::RequiredEkuNotFoundContext(_) => SvidError::IntermediateExtendedKeyUsageWrong,
        E::NameConstraintViolation => SvidError::NameConstraint,
        E::PathLenConstraintViolated => SvidError::PathLength,
        E::UnsupportedCriticalExtension => SvidError::UnknownCriticalExtension,
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            SvidError::UnsupportedSignature
        }
        other => SvidError::Path(other.to_string()),
    }
}

/// The name in a leaf that keeps an X.509-SVID's rules at `now`.
///
/// Proves nothing, because nobody has vouched for it: for tools that show a certificate. A peer is judged by
/// [`verify_svid`].
pub fn check_leaf(leaf: &[u8], now: SystemTime) -> Result<SpiffeId, SvidError> {
    valid_leaf(leaf, now).map(|leaf| leaf.id)
}

/// The name that a leaf gives itself.
///
/// Whether or not it keeps any other rule; its path may be empty.
///
/// Proves nothing at all: for tools that say whose certificate they refuse.
pub fn claimed_id(leaf: &[u8]) -> Result<SpiffeId, SvidError> {
    certificate::claimed_id(leaf)
}

/// The public key of a leaf that keeps the rules of an X.509-SVID, as DER SubjectPublicKeyInfo.
pub(crate) fn leaf_public_key(leaf: &[u8]) -> Result<Vec<u8>, SvidError> {
    certificate::leaf(leaf).map(|leaf| leaf.public_key)
}

/// Validity is written in whole seconds, and the last one counts. (RFC 5280 4.1.2.5)
fn valid_leaf(der: &[u8], now: SystemTime) -> Result<certificate::Leaf, SvidError> {
    let leaf = certificate::leaf(der)?;
    if now < leaf.not_before {
        return Err(SvidError::NotYetValid);
    }
    if now >= leaf.not_after + Duration::from_secs(1) {
        return Err(SvidError::Expired);
    }
    Ok(leaf)
}
