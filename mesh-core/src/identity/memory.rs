//! An identity that the program itself provides and replaces.

use std::fmt;

use tokio::sync::watch;

use super::{Identity, IdentityError, IdentitySource, IdentityUpdates};
use crate::stream::unfold;

/// Identity from code: for tests, and for programs that get their SVID in a way of their own.
///
/// ```
/// # use std::sync::Arc;
/// # use mesh_core::identity::{Identity, MemorySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid, SvidError};
/// # fn example(chain: &[u8], key: &[u8], bundle: TrustBundle) -> Result<(), SvidError> {
/// let svid = Arc::new(X509Svid::from_pem(chain, key)?);
/// let bundles = Arc::new(TrustBundleSet::of(bundle));
/// let source = MemorySource::new(Identity { svids: vec![svid.clone()], bundles: bundles.clone() });
/// // later, with a newer SVID
/// source.rotate(Identity { svids: vec![svid], bundles });
/// # Ok(())
/// # }
/// ```
///
/// Clones share one identity. A watcher that is slow sees the latest revision, not every one.
#[derive(Clone)]
pub struct MemorySource {
    current: watch::Sender<Current>,
}

struct Current {
    identity: Identity,
    failure: Option<String>,
}

impl MemorySource {
    /// A source that yields `identity` at once.
    pub fn new(identity: Identity) -> Self {
        Self { current: watch::Sender::new(Current { identity, failure: None }) }
    }

    /// Replaces the identity, for everyone who watches.
    pub fn rotate(&self, identity: Identity) {
        self.current.send_modify(|current| *current = Current { identity, failure: None });
    }

    /// Reports a hiccup: watchers keep what they have.
    pub fn fail(&self, message: impl Into<String>) {
        self.current.send_modify(|current| current.failure = Some(message.into()));
    }
}

impl IdentitySource for MemorySource {
    fn watch(&self) -> IdentityUpdates {
        let state = (self.current.subscribe(), true);
        unfold(state, |(mut receiver, first)| async move {
            if !first && receiver.changed().await.is_err() {
                // The source is gone, and nobody can rotate any more; the stream must not end.
                std::future::pending::<()>().await;
            }
            let update = match &*receiver.borrow_and_update() {
                Current { failure: Some(message), .. } if !first => {
                    Err(IdentityError { source_kind: "memory", message: message.clone() })
                }
                Current { identity, .. } => Ok(identity.clone()),
            };
            (update, (receiver, false))
        })
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::identity::testkit::Ca;

    #[tokio::test]
    async fn watchers_get_the_current_revision_and_each_rotation() {
        let ca = Ca::root("root");
        let identity = || Identity {
            svids: vec![Arc::new(ca.svid("spiffe://td/ns/shop/sa/web"))],
            bundles: Arc::new(ca.trust("td")),
        };
        let serial = |update: Option<Result<Identity, IdentityError>>| {
            update.unwrap().unwrap().svid().unwrap().serial().to_owned()
        };
        let (first, second) = (identity(), identity());
        let serials = [&first, &second].map(|i| i.svid().unwrap().serial().to_owned());
        let source = MemorySource::new(first);
        let mut updates = source.watch();
        assert_eq!(serial(updates.next().await), serials[0]);
        assert!(updates.next().now_or_never().is_none(), "one revision is yielded once");
        source.rotate(second);
        assert_eq!(serial(updates.next().await), serials[1]);
        assert_eq!(serial(source.watch().next().await), serials[1], "a late watcher starts with the current one");
        source.fail("no network");
        assert_eq!(updates.next().await.unwrap().unwrap_err().to_string(), "memory: no network");
        assert_eq!(serial(source.watch().next().await), serials[1], "and so does one that comes after a hiccup");
        drop(source);
        assert!(updates.next().now_or_never().is_none(), "the stream must not end");
    }
}
