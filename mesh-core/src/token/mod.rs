//! JWTs of accepted issuers: parsed strictly, verified, turned into claims.

mod jwks;
mod parse;
mod source;
mod verify;

pub use jwks::{Jwks, JwksError, KeySource, KeyUpdates};
pub use source::{TokenError as TokenSourceError, TokenSource};
pub use verify::{TokenError, TokenVerifier, VerifiedToken};
