//! An identity that the program itself provides and replaces.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;

use super::{Identity, IdentityError, IdentitySource, IdentityUpdates, Looked, Looks};
use crate::stream::unfold;

/// Identity from code.
///
/// For tests, and for programs that get their SVID in a way of their own.
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
    looks: Looks,
}

struct Current {
    identity: Identity,
    failure: Option<String>,
    offered: Option<Identity>,
}

impl MemorySource {
    /// A source that yields `identity` at once.
    pub fn new(identity: Identity) -> Self {
        let current = Current { identity, failure: None, offered: None };
        Self { current: watch::Sender::new(current), looks: Looks::default() }
    }

    /// Replaces the identity, for everyone who watches.
    pub fn rotate(&self, identity: Identity) {
        self.current.send_modify(|current| *current = Current { identity, failure: None, offered: None });
    }

    /// Lays `identity` ready for the next refresh.
    ///
    /// As a file that is read at its turn would be; nobody is told before.
    pub fn offer(&self, identity: Identity) {
        self.current.send_if_modified(|current| {
            current.offered = Some(identity);
            false
        });
    }

    /// Reports a hiccup: watchers keep what they have.
    pub fn fail(&self, message: impl Into<String>) {
        self.current.send_modify(|current| current.failure = Some(message.into()));
    }
}

impl IdentitySource for MemorySource {
    fn watch(&self) -> IdentityUpdates {
        let state = (self.current.subscribe(), self.looks.watcher(), true);
        unfold(state, |(mut receiver, mut watcher, first)| async move {
            if !first {
                loop {
                    tokio::select! {
                        biased;
                        changed = receiver.changed() => match changed {
                            Ok(()) => break,
                            // The source is gone, and nobody can rotate any more; the stream must not end.
                            Err(_) => std::future::pending().await,
                        },
                        () = watcher.wait(Duration::MAX) => {}
                    }
                }
            }
            let update = match &*receiver.borrow_and_update() {
                Current { failure: Some(message), .. } if !first => {
                    Err(IdentityError { source_kind: "memory", message: message.clone() })
                }
                Current { identity, .. } => Ok(identity.clone()),
            };
            (update, (receiver, watcher, false))
        })
    }

    /// Takes over what was [offered](MemorySource::offer).
    fn refresh(&self) -> Looked {
        self.current.send_if_modified(|current| {
            let Some(identity) = current.offered.take() else { return false };
            *current = Current { identity, failure: None, offered: None };
            true
        });
        self.looks.ask()
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
