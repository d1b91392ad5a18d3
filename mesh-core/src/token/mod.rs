//! JWTs of accepted issuers: parsed strictly, verified, turned into claims.
//!
//! Most holes in JWT libraries lie before and after the signature: a token that chooses its own algorithm or key, two
//! parsers that read one token differently, a claim that is checked only if it is there. So the signature is left to a
//! library and everything around it is done here, and refuses what it does not know. (RFC 8725)
//!
//! | step | where |
//! |---|---|
//! | the one token of a request | [`bearer`], [`Locations`] |
//! | size, three parts, strict base64url and JSON, forbidden headers | `parse`, `json` |
//! | issuer, algorithm, key, signature, then claims | [`TokenVerifier`] |
//! | what was verified a moment ago | `cache` |
//! | an issuer's keys | [`IssuerKeys`], from a [`KeySource`]: [`FileKeys`], [`InlineKeys`], [`FetchedKeys`] |
//! | tokens for our own calls | [`TokenSource`]: [`FileToken`], [`LocalKey`] |

mod algorithm;
mod binding;
mod cache;
mod error;
mod fetched;
mod file;
mod inline;
mod json;
mod jwks;
mod jws;
mod keys;
mod local_key;
mod location;
mod parse;
mod roca;
mod signing_key;
mod source;
mod verified;
mod verify;
mod watch;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod profiles;
#[cfg(test)]
pub(crate) mod testkit;

pub use error::TokenError;
pub(crate) use fetched::check_url;
pub use fetched::{FetchedKeys, FetchedKeysConfig};
pub use file::FileKeys;
pub use inline::InlineKeys;
pub use json::StrictJson;
pub(crate) use json::parse_object;
pub use jwks::Jwks;
pub use jwks::JwksError;
pub use jws::JwsKey;
pub(crate) use keys::KeyLookups;
pub use keys::PendingKeys;
pub use keys::{IssuerKeys, KeySource, KeyUpdate, KeyUpdates};
pub use local_key::{LocalKey, LocalKeyConfig};
pub use location::{Location, Locations, cookie_pair};
pub use parse::bearer;
pub use source::{FileToken, TokenSource, TokenSourceError};
pub use verified::VerifiedToken;
pub use verify::{Presented, Refused, TokenVerifier, accepts_claims};
