//! From a service to its endpoints: a stream of whole sets.
//!
//! Where a service runs changes while it is called, and the one who knows may be unreachable just when it matters. So a
//! resolver never fails: it yields whole sets, and says when it cannot see; what is in force then stays in force.
//!
//! | kind | source |
//! |---|---|
//! | `static` | [`StaticResolver`]: the configuration itself |
//! | `file` | [`FileResolver`]: a watched file that somebody else writes |
//! | `dns` | `DnsResolver` (feature `dns`): A and AAAA, or SRV records |
//!
//! What is believed of a set that suddenly lacks many endpoints is no resolver's business: see
//! [`HoldConfig`](crate::config::HoldConfig).

#[cfg(feature = "dns")]
mod dns;
mod endpoint;
mod file;
mod fixed;
mod hold;
mod set;
mod snapshot;

#[cfg(feature = "dns")]
pub use dns::{DnsConfig, DnsResolver, Family, RecordKind};
pub use endpoint::{Endpoint, EndpointKey};
pub use file::FileResolver;
pub use fixed::StaticResolver;
pub(crate) use hold::{Hold, Verdict};
pub use set::EndpointSet;
pub(crate) use snapshot::Snapshot;
pub use snapshot::{Feed, SnapshotFile};

use std::pin::Pin;

use futures_core::Stream;

/// What a resolver knows now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// The whole set, replacing the last. Endpoints keep their state by key. One that lacks many, or names nobody, is held
    /// until it is confirmed: see [`HoldConfig`](crate::config::HoldConfig).
    Endpoints(EndpointSet),
    /// The source cannot be read; the last set stays in force. It says nothing of a set that is held: its time runs anew.
    Stale(ResolveError),
    /// The service is known to be gone: the set becomes empty.
    Gone,
}

/// Revisions of one service's endpoints.
pub type Updates = Pin<Box<dyn Stream<Item = Update> + Send>>;

/// Finds the endpoints of one cluster.
pub trait Resolve: std::fmt::Debug + Send + Sync + 'static {
    /// Streams the current set at once and every later one.
    ///
    /// After [`Update::Stale`] the set comes again, also if it is the same.
    fn watch(&self) -> Updates;

    /// No endpoint can be reached: a source that is asked, rather than one that tells, should be asked soon. (gRPC)
    ///
    /// Called by the task that follows the resolver, perhaps often: it must not block, and the resolver itself bounds how
    /// often it asks. Default: nothing.
    fn resolve_now(&self) {}
}

/// Why endpoints could not be read. Routing goes on with the last good set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolveError(pub String);

#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::clock::SystemClock;
    use crate::config::Workload;
    use crate::plugin::Context;
    use crate::rng::Rng;

    pub(crate) fn context(base_dir: &Path) -> Context {
        Context {
            base_dir: base_dir.into(),
            workload: Arc::new(Workload::new("orders", "shop")),
            trust_domain: "shop.example".parse().unwrap(),
            clock: Arc::new(SystemClock),
            rng: Rng::seeded(1),
            poll_interval: Duration::from_millis(50),
            workload_api: None,
            fetch: None,
            issuer: None,
        }
    }
}
