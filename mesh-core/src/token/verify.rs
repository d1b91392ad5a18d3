//! From a compact token to claims that may be believed.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::binding::Binding;
use super::cache::{Entry, Proved, TokenCache};
use super::location::{Location, Locations};
use super::parse::{Unverified, string};
use super::{IssuerKeys, PendingKeys, TokenError, VerifiedToken};
use crate::config::IssuerConfig;
use crate::identity::SpiffeId;

/// All accepted issuers with their live keys.
#[derive(Debug, Clone, Default)]
pub struct TokenVerifier {
    issuers: Vec<Issuer>,
    locations: Arc<Locations>,
    /// For these issuers and no others.
    cache: Arc<TokenCache>,
    /// Of names of keys that nobody knows: seeded, so that nobody can make two of them one.
    hasher: RandomState,
}

/// One issuer: its rules, and its keys as they are now.
#[derive(Debug, Clone)]
struct Issuer {
    config: IssuerConfig,
    /// Whose JWT-SVIDs these are, where they are.
    trust_domain: Option<Box<str>>,
    keys: IssuerKeys,
}

/// Where a token was found, and what proves that its sender may use it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// Where it was. Default: in `Authorization: Bearer`.
    pub location: Location,
    /// The SHA-256 of the certificate of the connection that it came over, if it had one:
    /// [`VerifiedSvid::fingerprint`](crate::identity::VerifiedSvid::fingerprint).
    pub certificate: Option<&'a [u8; 32]>,
}

/// Why a token is refused, and whether waiting may help.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub error: TokenError,
    /// A lookup of the key that it names: if it ends in time, the token may be judged once more.
    pub keys: Option<PendingKeys>,
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self { error, keys: None }
    }
}

impl TokenVerifier {
    /// Accepts tokens of one more issuer.
    pub fn with(mut self, config: IssuerConfig, keys: IssuerKeys) -> Self {
        let trust_domain = config.trust_domain().map(Into::into);
        self.issuers.push(Issuer { config, trust_domain, keys });
        let locations = Locations::of(self.issuers.iter().map(|issuer| &issuer.config));
        Self { issuers: self.issuers, locations: Arc::new(locations), cache: Arc::default(), hasher: self.hasher }
    }

    /// Where tokens are looked for, and which headers claims are written to.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// The rules of the issuer of a token that was accepted.
    pub fn issuer(&self, token: &VerifiedToken) -> Option<&IssuerConfig> {
        self.issuers.iter().map(|issuer| &issuer.config).find(|config| *config.issuer == *token.issuer)
    }

    /// Judges a compact JWS from `Authorization: Bearer` that came over no certificate; see
    /// [`judge`](Self::judge).
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<VerifiedToken>, TokenError> {
        self.judge(token, Presented::default(), now).map_err(|refused| refused.error)
    }

    /// Judges a compact JWS.
    ///
    /// Nothing but `iss`, `alg` and `kid`, for JWT-SVIDs the trust domain of `sub`, is used before the signature holds.
    ///
    /// Fails closed: what is missing, doubled, of the wrong type or not understood is an error. A token that was accepted
    /// in the last minutes, under the same keys, costs a comparison. A token with a key that nobody knows makes somebody
    /// look for it, at most every 30 s for each issuer.
    pub fn judge(&self, token: &str, presented: Presented<'_>, now: SystemTime) -> Result<Arc<VerifiedToken>, Refused> {
        let generation = |issuer: usize| self.issuers.get(issuer).map(|issuer| issuer.keys.set.generation());
        let Proved { verified, issuer, binding } = match self.cache.find(token, now, generation) {
            Some(found) => found,
            None => self.check(token, now)?,
        };
        // What depends on how the token came is asked each time.
        if !self.locations.allow(issuer, presented.location) {
            return Err(TokenError::WrongLocation.into());
        }
        binding.check(presented.certificate)?;
        Ok(verified)
    }

    fn check(&self, token: &str, now: SystemTime) -> Result<Proved, Refused> {
        let unverified = Unverified::parse(token)?;
        let (index, issuer) = self.find(&unverified)?;
        // Before any key is looked up: a key never decides which algorithms it is good for. (RFC 8725 3.1)
        if !issuer.config.algorithms.iter().any(|name| name == unverified.algorithm.name()) {
            return Err(TokenError::AlgorithmNotAccepted.into());
        }
        if issuer.trust_domain.is_some() {
            unverified.check_jwt_svid_header()?;
        }
        let snapshot = issuer.keys.set.load();
        let keys = snapshot.value().as_ref().map_err(|error| *error)?;
        let key = match keys.find(unverified.key_id.as_deref(), unverified.algorithm) {
            Err(TokenError::UnknownKey) => return Err(self.look_up(issuer, unverified.key_id.as_deref())),
            found => found?,
        };
        if !key.verify(unverified.algorithm, unverified.signed, &unverified.signature) {
            return Err(TokenError::BadSignature.into());
        }
        let binding = Binding::of(&unverified.claims)?;
        let verified = Arc::new(issuer.believe(unverified, now)?);
        self.cache.insert(Entry {
            token: token.into(),
            verified: Arc::clone(&verified),
            issuer: index,
            binding,
            generation: snapshot.generation(),
            since: now,
            until: verified.expires.checked_add(issuer.config.leeway).unwrap_or(verified.expires),
        });
        Ok(Proved { verified, issuer: index, binding })
    }

    /// By the exact `iss`; else, for a JWT-SVID, which need not have one, by the trust domain of its subject.
    fn find(&self, token: &Unverified<'_>) -> Result<(usize, &Issuer), TokenError> {
        let named = |issuer: &Issuer| {
            issuer.trust_domain.is_none() && token.issuer.as_ref().is_some_and(|name| *name == issuer.config.issuer)
        };
        if let Some(found) = self.issuers.iter().enumerate().find(|(_, issuer)| named(issuer)) {
            return Ok(found);
        }
        if self.issuers.iter().any(|issuer| issuer.trust_domain.is_some())
            && let Some(id) = token.claims.get("sub").and_then(Value::as_str).and_then(|sub| SpiffeId::parse(sub).ok())
        {
            let signs = |issuer: &Issuer| issuer.trust_domain.as_deref() == Some(id.trust_domain());
            if let Some(found) = self.issuers.iter().enumerate().find(|(_, issuer)| signs(issuer)) {
                return Ok(found);
            }
        }
        Err(if token.issuer.is_some() { TokenError::UnknownIssuer } else { TokenError::InvalidClaim("iss") })
    }

    fn look_up(&self, issuer: &Issuer, key_id: Option<&str>) -> Refused {
        // Without a name nothing can be looked for: there is a choice of keys, or none that fits.
        let keys = issuer.keys.lookups.as_ref().zip(key_id);
        Refused {
            error: TokenError::UnknownKey,
            keys: keys.and_then(|(lookups, id)| lookups.ask(self.hasher.hash_one(id))),
        }
    }

    /// When an accepted token ends, leeway included: for what outlasts the request's head.
    ///
    /// `None` if it would be accepted no more whatever the time is: its issuer is gone, or meant for other audiences.
    /// Which of the issuer's keys had signed it is not remembered, so a key that was withdrawn does not end it.
    pub fn good_until(&self, token: &VerifiedToken) -> Option<SystemTime> {
        let config = self.issuer(token)?;
        config.is_meant(&token.audiences).then(|| token.expires.checked_add(config.leeway).unwrap_or(token.expires))
    }
}

/// Whether a token with these claims is one of `issuers` and their audiences.
///
/// Whatever signed it: for tools that ask what would be. An `aud` that was not given is not looked at.
pub fn accepts_claims(issuers: &[IssuerConfig], token: &VerifiedToken) -> Result<(), TokenError> {
    let named = |issuer: &&IssuerConfig| issuer.trust_domain().is_none() && *issuer.issuer == *token.issuer;
    let signs = |issuer: &&IssuerConfig| {
        let id = token.subject.as_deref().and_then(|subject| SpiffeId::parse(subject).ok());
        issuer.trust_domain().is_some_and(|domain| id.is_some_and(|id| id.trust_domain() == domain))
    };
    let found = issuers.iter().find(named).or_else(|| issuers.iter().find(signs)).ok_or(TokenError::UnknownIssuer)?;
    let meant = token.audiences.is_empty() || found.is_meant(&token.audiences);
    if meant { Ok(()) } else { Err(TokenError::WrongAudience) }
}

impl Issuer {
    /// Checks the claims of a token whose signature holds.
    fn believe(&self, token: Unverified<'_>, now: SystemTime) -> Result<VerifiedToken, TokenError> {
        let (config, claims) = (&self.config, token.claims);
        match self.trust_domain {
            Some(_) => check_jwt_svid_type(token.token_type.as_deref())?,
            None => config.check_type(token.token_type.as_deref(), &claims)?,
        }
        let audiences = match claims.get("aud") {
            None if config.dangerous_any_audience => Vec::new(),
            _ => audiences(&claims)?,
        };
        if !config.is_meant(&audiences) {
            return Err(TokenError::WrongAudience);
        }
        let expires = config.check_times(&claims, now)?;
        let subject = string(&claims, "sub", TokenError::InvalidClaim("sub"))?.map(Into::into);
        Ok(VerifiedToken { issuer: config.issuer.as_str().into(), subject, audiences, expires, claims })
    }
}

/// `JWT`, `JOSE` or nothing. (JWT-SVID 2.3)
fn check_jwt_svid_type(token_type: Option<&str>) -> Result<(), TokenError> {
    match token_type {
        None | Some("JWT" | "JOSE") => Ok(()),
        Some(_) => Err(TokenError::WrongType),
    }
}

impl IssuerConfig {
    /// Whether a token for these audiences is one for this service.
    fn is_meant(&self, audiences: &[String]) -> bool {
        self.dangerous_any_audience || audiences.iter().any(|audience| self.audiences.contains(audience))
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
