//! From a compact token to claims that may be believed.

use std::sync::Arc;
use std::time::SystemTime;

use super::Jwks;
use crate::config::IssuerConfig;
use crate::snapshot::Snapshot;

/// What a token proved.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// `iss`
    pub issuer: Arc<str>,
    /// `sub`
    pub subject: Option<Arc<str>>,
    /// `aud`
    pub audiences: Vec<String>,
    /// `exp`
    pub expires: SystemTime,
    /// Every claim.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// All accepted issuers with their live keys.
#[derive(Debug, Clone, Default)]
pub struct TokenVerifier {
    issuers: Vec<Issuer>,
}

/// One issuer: its rules, and its keys as they are now (`None` until the first set arrived).
#[derive(Debug, Clone)]
pub struct Issuer {
    config: IssuerConfig,
    keys: Snapshot<Option<Arc<Jwks>>>,
}

impl TokenVerifier {
    /// Accepts tokens of one more issuer.
    pub fn with(mut self, config: IssuerConfig, keys: Snapshot<Option<Arc<Jwks>>>) -> Self {
        self.issuers.push(Issuer { config, keys });
        self
    }

    /// Judges a compact JWS. Nothing but `iss`, `alg` and `kid` is used before the signature holds.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<VerifiedToken>, TokenError> {
        let _ = (token, now);
        unimplemented!()
    }
}

/// Why a token is refused. Never carries the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not three base64url parts.
    #[error("not a compact JWS")]
    Malformed,
}

impl TokenError {
    /// A stable code, for example `token_expired`.
    pub fn reason(&self) -> &'static str {
        unimplemented!()
    }
}
