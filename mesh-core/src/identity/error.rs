//! Why a chain is refused.

use super::{KeyError, SpiffeIdError};

/// Certificates in a chain. webpki itself gives up after six intermediates.
pub(super) const MAX_CHAIN: usize = 8;
/// Bytes of a chain.
pub(super) const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// Why a chain is refused. [`reason`](Self::reason) is stable, for logs, metrics and audit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// More certificates than anyone needs.
    #[error("a chain of {0} certificates is too long, at most {MAX_CHAIN} are accepted")]
    ChainTooLong(usize),
    /// More bytes than anyone needs.
    #[error("a chain of {0} bytes is too large, at most {MAX_CHAIN_BYTES} are accepted")]
    ChainTooLarge(usize),
    /// Something is there and cannot be read.
    #[error("the certificate is malformed: {0}")]
    Malformed(&'static str),
    /// The leaf has no names that count: a common name is none.
    #[error("the leaf has no subject alternative name; an X.509-SVID has exactly one URI there")]
    SanMissing,
    /// The leaf has names, and none of them is a URI.
    #[error("the leaf has no URI subject alternative name; an X.509-SVID has exactly one")]
    UriMissing,
    /// The leaf names two.
    #[error("the leaf has more than one URI subject alternative name; an X.509-SVID has exactly one")]
    UriAmbiguous,
    /// The leaf's name is no SPIFFE ID.
    #[error("the leaf's URI is no SPIFFE ID: {0}")]
    InvalidId(#[from] SpiffeIdError),
    /// The leaf names a trust domain, not a workload.
    #[error("the leaf's SPIFFE ID has no path, so that it names a trust domain and no workload")]
    PathMissing,
    /// An authority's own certificate was presented.
    #[error("the leaf is a certificate authority")]
    LeafIsAuthority,
    /// X509-SVID 4.3 demands it.
    #[error("the leaf has no key usage")]
    KeyUsageMissing,
    /// X509-SVID 4.3 demands it.
    #[error("the leaf's key usage is not marked critical")]
    KeyUsageNotCritical,
    /// X509-SVID 4.3.
    #[error("the leaf's key usage must contain digitalSignature, and neither keyCertSign nor cRLSign")]
    KeyUsageWrong,
    /// X509-SVID 4.4.
    #[error("the leaf's extended key usage must contain both clientAuth and serverAuth, or be absent")]
    ExtendedKeyUsageWrong,
    /// Its time is over.
    #[error("the certificate is expired")]
    Expired,
    /// Its time has not come.
    #[error("the certificate is not valid yet; compare the clocks")]
    NotYetValid,
    /// There is no bundle for the peer's trust domain.
    #[error("there is no trust bundle for the trust domain {0:?}")]
    UnknownTrustDomain(String),
    /// There is a bundle, but it is empty or expired.
    #[error("no authority in the trust bundle of {0:?} is valid now")]
    NoValidAuthority(String),
    /// No authority of the peer's own trust domain vouches for it.
    #[error("no authority of the certificate's own trust domain issued it")]
    UnknownIssuer,
    /// An authority that vouches for this trust domain only issued it; its own authorities did not.
    #[error("it was issued by an authority of the trust domain {0:?}, which vouches for no other")]
    OtherTrustDomain(String),
    /// Forged or damaged.
    #[error("a signature in the chain is wrong")]
    BadSignature,
    /// Weak, rare or too new.
    #[error("a signature in the chain is of an unsupported kind")]
    UnsupportedSignature,
    /// An intermediate's time is over.
    #[error("an issuer in the chain is expired")]
    IssuerExpired,
    /// An intermediate's time has not come.
    #[error("an issuer in the chain is not valid yet")]
    IssuerNotYetValid,
    /// A leaf tried to issue another.
    #[error("an issuer in the chain is no certificate authority")]
    IntermediateIsNoAuthority,
    /// X509-SVID 4.3.
    #[error("an issuer in the chain may not sign certificates (its key usage lacks keyCertSign)")]
    IntermediateKeyUsageWrong,
    /// An issuer has an extended key usage without the one that was needed, for example for code signing.
    #[error("an issuer in the chain may not issue certificates for TLS (its extended key usage excludes them)")]
    IntermediateExtendedKeyUsageWrong,
    /// An issuer may not name this workload, or uses constraints that are not understood.
    #[error("an issuer's name constraints exclude the certificate")]
    NameConstraint,
    /// An authority made more authorities than it may.
    #[error("the chain is longer than an issuer allows")]
    PathLength,
    /// A critical extension is not understood. (RFC 5280 4.2)
    #[error("a certificate in the chain has a critical extension that is not understood")]
    UnknownCriticalExtension,
    /// Any other reason of the path check.
    #[error("no valid path to an authority: {0}")]
    Path(String),
    /// A certificate came with another's key.
    #[error("the private key does not belong to the leaf certificate")]
    KeyMismatch,
    /// The key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SvidError {
    /// Whether a newer trust bundle could change the verdict.
    ///
    /// Its authority may have been added since ours was read.
    pub fn is_about_trust(&self) -> bool {
        matches!(
            self,
            // An authority that was renewed under its old name shows as a signature that is wrong.
            Self::UnknownTrustDomain(_)
                | Self::NoValidAuthority(_)
                | Self::UnknownIssuer
                | Self::OtherTrustDomain(_)
                | Self::BadSignature
        )
    }

    /// A stable code, for example `no_certificate`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong(_) => "chain_too_long",
            Self::ChainTooLarge(_) => "chain_too_large",
            Self::Malformed(_) => "malformed",
            Self::SanMissing => "san_missing",
            Self::UriMissing => "uri_missing",
            Self::UriAmbiguous => "uri_ambiguous",
            Self::InvalidId(error) => error.reason(),
            Self::PathMissing => "spiffe_id_without_path",
            Self::LeafIsAuthority => "leaf_is_authority",
            Self::KeyUsageMissing => "key_usage_missing",
            Self::KeyUsageNotCritical => "key_usage_not_critical",
            Self::KeyUsageWrong => "key_usage_wrong",
            Self::ExtendedKeyUsageWrong => "extended_key_usage_wrong",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownTrustDomain(_) => "unknown_trust_domain",
            Self::NoValidAuthority(_) => "no_valid_authority",
            Self::UnknownIssuer => "unknown_issuer",
            Self::OtherTrustDomain(_) => "issuer_of_another_trust_domain",
            Self::BadSignature => "bad_signature",
            Self::UnsupportedSignature => "unsupported_signature",
            Self::IssuerExpired => "issuer_expired",
            Self::IssuerNotYetValid => "issuer_not_yet_valid",
            Self::IntermediateIsNoAuthority => "intermediate_is_no_authority",
            Self::IntermediateKeyUsageWrong => "intermediate_key_usage_wrong",
            Self::IntermediateExtendedKeyUsageWrong => "intermediate_extended_key_usage_wrong",
            Self::NameConstraint => "name_constraint",
            Self::PathLength => "path_length",
            Self::UnknownCriticalExtension => "unknown_critical_extension",
            Self::Path(_) => "path_refused",
            Self::KeyMismatch => "key_mismatch",
            Self::Key(_) => "key_unusable",
        }
    }
}
