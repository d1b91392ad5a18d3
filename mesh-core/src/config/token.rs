//! `tokens:` - whose JWTs are accepted, and by which keys.

use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};

/// One issuer of JWTs. A token is only ever checked with the keys of the issuer it names.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IssuerConfig {
    /// The exact `iss`.
    pub issuer: String,
    /// Accepted audiences: a token must carry at least one. Never empty.
    pub audiences: Vec<String>,
    /// Where the keys are: `{ file: keys.json }`.
    pub jwks: PlugConfig,
    /// Accepted signature algorithms, exact. Default: RS256, PS256, ES256, ES384, EdDSA; RS384, RS512, PS384 and PS512
    /// can be chosen. `none` and HS* are never accepted.
    pub algorithms: Vec<String>,
    /// Tolerated clock difference for `exp` and `nbf`. Default 30 s, range 0 to 60 s.
    pub leeway: Duration,
    /// Longest accepted `exp - iat` (or `exp - now` without `iat`). Default 24 h, range 1 s to 366 days.
    pub max_lifetime: Duration,
    /// Accepted `typ` headers, case-insensitive and without `application/`; a token without `typ` counts as `JWT`.
    /// Default: `JWT` and `at+jwt`.
    pub types: Vec<String>,
}

/// Every algorithm that can be accepted: asymmetric ones only.
const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

impl IssuerConfig {
    /// An issuer with every default.
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>, jwks: PlugConfig) -> Self {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self {
            issuer: issuer.into(),
            audiences,
            jwks,
            algorithms: words(&["RS256", "PS256", "ES256", "ES384", "EdDSA"]),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(24 * 3600),
            types: words(&["JWT", "at+jwt"]),
        }
    }

    pub(super) fn check(&self, at: &mut Checker<'_>) {
        if self.issuer.is_empty() {
            at.error("issuer", "the issuer cannot be empty");
        }
        let lists = [("audiences", &self.audiences), ("algorithms", &self.algorithms), ("types", &self.types)];
        for (field, list) in lists {
            if list.is_empty() && !at.has_gaps(field, 0) {
                at.error(field, "at least one is required");
            }
            for (index, _) in list.iter().enumerate().filter(|(_, item)| item.is_empty()) {
                at.error(&format!("{field}[{index}]"), "cannot be empty");
            }
        }
        for (index, algorithm) in self.algorithms.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if !ALGORITHMS.contains(&algorithm.as_str()) {
                let message = format!("`{algorithm}` is never accepted; use one of {}", ALGORITHMS.join(", "));
                at.error(&format!("algorithms[{index}]"), message);
            }
        }
        at.range("leeway", self.leeway, Duration::ZERO..=Duration::from_secs(60));
        at.range("max_lifetime", self.max_lifetime, Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600));
    }
}

impl Decode for IssuerConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let issuer = fields.required::<String>("issuer");
        let (audiences, jwks) = (fields.required("audiences"), fields.required("jwks"));
        let (algorithms, types) = (fields.optional("algorithms"), fields.optional("types"));
        let (leeway, max_lifetime) = (fields.optional("leeway"), fields.optional("max_lifetime"));
        fields.finish();
        let default = Self::new(issuer?, audiences?, jwks?);
        Some(Self {
            algorithms: algorithms.unwrap_or(default.algorithms),
            leeway: leeway.unwrap_or(default.leeway),
            max_lifetime: max_lifetime.unwrap_or(default.max_lifetime),
            types: types.unwrap_or(default.types),
            ..default
        })
    }
}
