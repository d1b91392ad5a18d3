//! JWTs of accepted issuers: parsed strictly, verified, turned into claims.
//!
//! Most holes in JWT libraries lie before and after the signature: a token that chooses its own algorithm or key, two
//! parsers that read one token differently, a claim that is checked only if it is there. So the signature is left to a
//! library and everything around it is done here, and refuses what it does not know. (RFC 8725)
//!
//! | step | where |
//! |---|---|
//! | the one bearer token of a request | [`bearer`] |
//! | size, three parts, strict base64url and JSON, forbidden headers | `parse`, `json` |
//! | issuer, algorithm, key, signature, then claims | [`TokenVerifier`] |
//! | what was verified a moment ago | `cache` |
//! | an issuer's keys | [`Jwks`], from a [`KeySource`]: [`FileKeys`] |
//! | tokens for our own calls | [`TokenSource`]: [`FileToken`] |

mod algorithm;
mod cache;
mod error;
mod file;
mod json;
mod jwks;
mod parse;
mod source;
mod verified;
mod verify;
mod watch;

#[cfg(test)]
mod attacks;
#[cfg(test)]
pub(crate) mod testkit;

pub use error::TokenError;
pub use file::FileKeys;
pub use jwks::{Jwks, JwksError, KeySource, KeyUpdates};
pub use parse::bearer;
pub use source::{FileToken, TokenSource, TokenSourceError};
pub use verified::VerifiedToken;
pub use verify::TokenVerifier;
