//! From a compact token to claims that may be believed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::cache::{Entry, TokenCache};
use super::parse::{Unverified, string};
use super::{Jwks, TokenError, VerifiedToken};
use crate::config::IssuerConfig;
use crate::snapshot::Snapshot;

/// All accepted issuers with their live keys.
#[derive(Debug, Clone, Default)]
pub struct TokenVerifier {
    issuers: Vec<Issuer>,
    /// For these issuers and no others.
    cache: Arc<TokenCache>,
}

/// One issuer: its rules, and its keys as they are now (`None` until the first set arrived).
#[derive(Debug, Clone)]
struct Issuer {
    config: IssuerConfig,
    keys: Snapshot<Option<Arc<Jwks>>>,
}

impl TokenVerifier {
    /// Accepts tokens of one more issuer.
    pub fn with(mut self, config: IssuerConfig, keys: Snapshot<Option<Arc<Jwks>>>) -> Self {
        self.issuers.push(Issuer { config, keys });
        Self { issuers: self.issuers, cache: Arc::default() }
    }

    /// Judges a compact JWS. Nothing but `iss`, `alg` and `kid` is used before the signature holds.
    ///
    /// Fails closed: what is missing, doubled, of the wrong type or not understood is an error. A token that was accepted
    /// in the last minutes, under the same keys, costs a comparison.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<VerifiedToken>, TokenError> {
        let generation = |issuer: usize| self.issuers.get(issuer).map(|issuer| issuer.keys.generation());
        if let Some(verified) = self.cache.find(token, now, generation) {
            return Ok(verified);
        }
        let unverified = Unverified::parse(token)?;
        let (index, issuer) = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| issuer.config.issuer == unverified.issuer)
            .ok_or(TokenError::UnknownIssuer)?;
        // Before any key is looked up: a key never decides which algorithms it is good for. (RFC 8725 3.1)
        if !issuer.config.algorithms.iter().any(|name| name == unverified.algorithm.name()) {
            return Err(TokenError::AlgorithmNotAccepted);
        }
        let snapshot = issuer.keys.load();
        let keys = snapshot.value().as_ref().ok_or(TokenError::NoKeys)?;
        let key = keys.find(unverified.key_id.as_deref(), unverified.algorithm)?;
        if !key.verify(unverified.algorithm, unverified.signed, &unverified.signature) {
            return Err(TokenError::BadSignature);
        }
        let verified = Arc::new(issuer.config.believe(unverified, now)?);
        self.cache.insert(Entry {
            token: token.into(),
            verified: Arc::clone(&verified),
            issuer: index,
            generation: snapshot.generation(),
            since: now,
            until: verified.expires.checked_add(issuer.config.leeway).unwrap_or(verified.expires),
        });
        Ok(verified)
    }

    /// When a token that was accepted ends, its issuer's leeway included: for what outlasts the request's head.
    ///
    /// `None` if it would be accepted no more whatever the time is: its issuer is gone, or meant for other audiences.
    /// Which of the issuer's keys had signed it is not remembered, so a key that was withdrawn does not end it.
    pub fn good_until(&self, token: &VerifiedToken) -> Option<SystemTime> {
        let Issuer { config, .. } = self.issuers.iter().find(|issuer| *issuer.config.issuer == *token.issuer)?;
        let meant = token.audiences.iter().any(|audience| config.audiences.contains(audience));
        meant.then(|| token.expires.checked_add(config.leeway).unwrap_or(token.expires))
    }
}

impl IssuerConfig {
    /// Checks the claims of a token whose signature holds.
    fn believe(&self, token: Unverified<'_>, now: SystemTime) -> Result<VerifiedToken, TokenError> {
        let claims = token.claims;
        self.check_type(token.token_type.as_deref(), &claims)?;
        let audiences = audiences(&claims)?;
        if !audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(TokenError::WrongAudience);
        }
        let expires = self.check_times(&claims, now)?;
        let subject = string(&claims, "sub", TokenError::InvalidClaim("sub"))?;
        Ok(VerifiedToken { issuer: token.issuer.into(), subject: subject.map(Into::into), audiences, expires, claims })
    }

    /// One kind of token must not pass for another. (RFC 8725 3.11, 3.12)
    fn check_type(&self, token_type: Option<&str>, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let name = token_type.unwrap_or("JWT").to_ascii_lowercase();
        let name = name.strip_prefix("application/").unwrap_or(&name);
        if !self.types.iter().any(|accepted| accepted.eq_ignore_ascii_case(name)) {
            return Err(TokenError::WrongType);
        }
        // Hashes of what was issued beside it: only ID tokens have them. (OIDC Core 3.1.3.6, 3.3.2.11)
        if ["at_hash", "c_hash"].into_iter().any(|name| claims.contains_key(name)) {
            return Err(TokenError::WrongType);
        }
        // Taking a bound token as a bearer token would undo the binding. (RFC 7800 3.1)
        if claims.contains_key("cnf") {
            return Err(TokenError::SenderConstrained);
        }
        Ok(())
    }

    fn check_times(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, TokenError> {
        let expires = time(claims, "exp")?.ok_or(TokenError::InvalidClaim("exp"))?;
        let issued = time(claims, "iat")?;
        // RFC 7519 4.1.4: "on or after" the expiry it must not be accepted.
        if now >= expires.checked_add(self.leeway).ok_or(TokenError::InvalidClaim("exp"))? {
            return Err(TokenError::Expired);
        }
        let latest_begin = now.checked_add(self.leeway).ok_or(TokenError::NotYetValid)?;
        if [time(claims, "nbf")?, issued].into_iter().flatten().any(|begin| begin > latest_begin) {
            return Err(TokenError::NotYetValid);
        }
        // An expiry before the issue has no lifetime to compare; it has expired, or is nonsense.
        let lifetime = expires.duration_since(issued.unwrap_or(now).min(expires)).unwrap_or_default();
        if lifetime > self.max_lifetime {
            return Err(TokenError::LifetimeTooLong);
        }
        Ok(expires)
    }
}

/// A string or a list of strings, and at least one. (RFC 7519 4.1.3)
fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    let invalid = TokenError::InvalidClaim("aud");
    let list = match claims.get("aud") {
        Some(Value::String(audience)) => vec![audience.clone()],
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(invalid)).collect::<Result<_, _>>()?
        }
        _ => return Err(invalid),
    };
    if list.is_empty() { Err(invalid) } else { Ok(list) }
}

/// Seconds since the epoch, maybe with a fraction; up to the year 9999. (RFC 7519 2, NumericDate)
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, TokenError> {
    const LATEST: f64 = 253_402_300_799.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds));
    let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    since.and_then(|since| UNIX_EPOCH.checked_add(since)).map(Some).ok_or(TokenError::InvalidClaim(name))
}
