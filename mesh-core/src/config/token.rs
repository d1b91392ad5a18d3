//! `tokens:` - whose JWTs are accepted, and by which keys.

use std::time::Duration;

use super::PlugConfig;

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
    /// Accepted signature algorithms, exact. Default: RS256, PS256, ES256, ES384, EdDSA. `none` and HS* are never
    /// accepted.
    pub algorithms: Vec<String>,
    /// Tolerated clock difference for `exp` and `nbf`. Default 30 s, range 0 to 60 s.
    pub leeway: Duration,
    /// Longest accepted `exp - iat` (or `exp - now` without `iat`). Default 24 h, range 1 s to 366 days.
    pub max_lifetime: Duration,
    /// Accepted `typ` headers, case-insensitive and without `application/`; a token without `typ` counts as `JWT`.
    /// Default: `JWT` and `at+jwt`.
    pub types: Vec<String>,
}
