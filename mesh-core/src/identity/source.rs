//! Where SVIDs and bundles come from: a stream of whole revisions.

use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

use super::{Looked, TrustBundleSet, X509Svid};

/// One revision of everything a workload is and trusts, replaced as a whole.
#[derive(Debug, Clone)]
pub struct Identity {
    /// All SVIDs, the default one first. Never empty.
    pub svids: Vec<Arc<X509Svid>>,
    /// All bundles, that of the own trust domain included.
    pub bundles: Arc<TrustBundleSet>,
}

impl Identity {
    /// The SVID that is presented unless another is asked for.
    pub fn svid(&self) -> Option<&Arc<X509Svid>> {
        self.svids.first()
    }
}

/// Revisions and hiccups.
///
/// An error does not end the stream: the source keeps trying, the last revision stays in force.
pub type IdentityUpdates = Pin<Box<dyn Stream<Item = Result<Identity, IdentityError>> + Send>>;

/// A source of identity: files, a development CA, an agent.
pub trait IdentitySource: std::fmt::Debug + Send + Sync + 'static {
    /// Streams the current revision at once and every later one. Renewal happens inside the source.
    ///
    /// The stream must not end; ending counts as an error that lasts.
    fn watch(&self) -> IdentityUpdates;

    /// Asks the source to look now instead of at its next turn; what it finds comes through [`watch`](Self::watch).
    ///
    /// The future ends when it has looked and what was found has been taken from the stream; dropping it changes
    /// nothing. [`Looks`](super::Looks) does both. Default: there is nothing to look at, and it ends at once. Callers
    /// limit how often they ask: [`Mesh::refresh_identity`](crate::Mesh::refresh_identity).
    fn refresh(&self) -> Looked {
        Box::pin(std::future::ready(()))
    }
}

/// Why a source has no new revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_kind}: {message}")]
pub struct IdentityError {
    /// The kind of source, for example `files`.
    pub source_kind: &'static str,
    /// What was wrong, where, and what to do.
    pub message: String,
}
