//! An issuer's keys as they are now, and where revisions of them come from.

mod lookup;

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

use super::{Jwks, JwksError, TokenError};
pub(crate) use lookup::KeyLookups;
pub use lookup::PendingKeys;

use crate::identity::Looked;
use crate::snapshot::Snapshot;

/// What a source of keys has to say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum KeyUpdate {
    /// The set as it is from now on.
    Keys(Arc<Jwks>),
    /// The source was asked, and the set is still the same.
    Unchanged,
    /// The source could not be asked, or what it said is no key set.
    ///
    /// The last good set stays in force.
    Failed(JwksError),
    /// It failed for so long that the last good set counts no more.
    Stale(JwksError),
}

/// News of one issuer's keys.
pub type KeyUpdates = Pin<Box<dyn Stream<Item = KeyUpdate> + Send>>;

/// Where an issuer's keys come from: a file, a URL.
pub trait KeySource: std::fmt::Debug + Send + Sync + 'static {
    /// Streams the current set at once and every later one. Must not end.
    fn watch(&self) -> KeyUpdates;

    /// Asks the source to look now instead of at its next turn; what it finds comes through [`watch`](Self::watch).
    ///
    /// The future ends when it has looked and what was found has been taken from the stream; dropping it changes
    /// nothing. [`Looks`](crate::identity::Looks) does both. Default: there is nothing to look at. Callers limit how
    /// often they ask.
    fn refresh(&self) -> Looked {
        Box::pin(ready(()))
    }
}

/// The keys of one issuer: replaced by whoever watches its source, read by a [`TokenVerifier`](super::TokenVerifier).
#[derive(Debug, Clone)]
pub struct IssuerKeys {
    /// The set, or why there is none: [`TokenError::NoKeys`] until the first came, [`TokenError::KeysStale`] when the
    /// last is too old.
    pub set: Snapshot<Result<Arc<Jwks>, TokenError>>,
    pub(super) lookups: Option<Arc<KeyLookups>>,
}

impl IssuerKeys {
    /// These keys, which nothing replaces but the caller.
    pub fn new(keys: Arc<Jwks>) -> Self {
        Self { set: Snapshot::new(Ok(keys)), lookups: None }
    }

    /// No keys: nobody's token passes.
    pub fn none() -> Self {
        Self { set: Snapshot::new(Err(TokenError::NoKeys)), lookups: None }
    }

    /// The same, and a token with a key that is not among them makes somebody look.
    pub(crate) fn looked_up(self, lookups: Arc<KeyLookups>) -> Self {
        Self { lookups: Some(lookups), ..self }
    }
}
