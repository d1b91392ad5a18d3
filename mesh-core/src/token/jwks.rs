//! A set of public keys, and where revisions of it come from. (RFC 7517)

use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

/// A validated key set: public, asymmetric, unique `kid`s.
#[derive(Debug)]
pub struct Jwks {
    _private: (),
}

impl Jwks {
    /// Parses and checks a whole set; one bad key refuses the set.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let _ = json;
        unimplemented!()
    }
}

/// Revisions and hiccups of one issuer's keys. An error leaves the last good set in force.
pub type KeyUpdates = Pin<Box<dyn Stream<Item = Result<Arc<Jwks>, JwksError>> + Send>>;

/// Where an issuer's keys come from: a file, later a URL.
pub trait KeySource: std::fmt::Debug + Send + Sync + 'static {
    /// Streams the current set at once and every later one.
    fn watch(&self) -> KeyUpdates;
}

/// Why a key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwksError(pub String);
