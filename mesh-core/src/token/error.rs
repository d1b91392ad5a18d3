//! Why a token is refused, as stable codes.

/// Why a token is refused. Never carries the token, nor anything from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// More than one credential, in one `Authorization` header or in several.
    #[error("the request carries more than one credential")]
    Ambiguous,
    /// Beyond 8 KiB.
    #[error("the token is larger than 8 KiB")]
    TooLarge,
    /// Not three base64url parts that hold JSON objects; JWE and JSON serialisation are that too.
    #[error("not a compact JWS: {0}")]
    Malformed(&'static str),
    /// A header that brings its own key, critical extensions, compression or encryption.
    #[error("the token's header `{0}` is not accepted")]
    ForbiddenHeader(&'static str),
    /// `none`, a symmetric algorithm, or one that nobody knows.
    #[error("the token's `alg` is not an accepted asymmetric algorithm")]
    ForbiddenAlgorithm,
    /// No configured issuer has this `iss`.
    #[error("the token's issuer is not accepted")]
    UnknownIssuer,
    /// The issuer's configuration does not list the algorithm.
    #[error("the token's `alg` is not accepted from its issuer")]
    AlgorithmNotAccepted,
    /// The issuer's keys have not been read yet.
    #[error("the issuer's keys are not known yet")]
    NoKeys,
    /// The issuer's keys were not confirmed for so long that nobody trusts them.
    #[error("the issuer's keys are too old to be trusted")]
    KeysStale,
    /// No key of the issuer has this `kid`, or without one not exactly one fits.
    #[error("no key of the issuer fits the token")]
    UnknownKey,
    /// The key is of another type or for another algorithm.
    #[error("the key that the token names is not for its algorithm")]
    KeyMismatch,
    /// The signature does not hold.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A claim is missing or of the wrong type.
    #[error("the token's claim `{0}` is missing or of the wrong type")]
    InvalidClaim(&'static str),
    /// None of its audiences is accepted.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is valid for longer than the issuer's `max_lifetime`.
    #[error("the token is valid for longer than is accepted")]
    LifetimeTooLong,
    /// Its `typ` is not accepted, or it is an ID token.
    #[error("the token is of a type that is not accepted")]
    WrongType,
    /// It is bound to a key (`cnf`) in a way that cannot be checked, or that nobody checks here.
    #[error("the token is bound to a key in a way that cannot be checked")]
    SenderConstrained,
    /// It is bound to another certificate than that of the connection, or the connection has none. (RFC 8705 3)
    #[error("the token is bound to another certificate")]
    WrongCertificate,
    /// It came where its issuer's tokens are not taken from.
    #[error("the token came where those of its issuer are not accepted")]
    WrongLocation,
}

impl TokenError {
    /// A stable code for logs, metrics and audit, for example `token_expired`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ambiguous => "token_ambiguous",
            Self::TooLarge => "token_too_large",
            Self::Malformed(_) => "token_malformed",
            Self::ForbiddenHeader(_) => "token_forbidden_header",
            Self::ForbiddenAlgorithm => "token_forbidden_algorithm",
            Self::UnknownIssuer => "token_unknown_issuer",
            Self::AlgorithmNotAccepted => "token_algorithm_not_accepted",
            Self::NoKeys => "token_no_keys",
            Self::KeysStale => "token_keys_stale",
            Self::WrongLocation => "token_wrong_location",
            Self::WrongCertificate => "token_wrong_certificate",
            Self::UnknownKey => "token_unknown_key",
            Self::KeyMismatch => "token_key_mismatch",
            Self::BadSignature => "token_bad_signature",
            Self::InvalidClaim(_) => "token_invalid_claim",
            Self::WrongAudience => "token_wrong_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::LifetimeTooLong => "token_lifetime_too_long",
            Self::WrongType => "token_wrong_type",
            Self::SenderConstrained => "token_sender_constrained",
        }
    }
}
