//! The live mesh of one process: started once, cloned freely, handed to every layer.
//!
//! Configuration, policy and keys change while requests run. A request that saw half of a change could be judged by no
//! configuration that anybody wrote. So everything that a reload replaces is one [`Revision`], published whole and
//! pinned once per request.
//!
//! ```text
//!   mesh.yaml, policies ──poll──► Reading ──parse──► Loaded ──compile──► Revision ──publish──► Snapshot
//!                                    │                  │                    │
//!                                    └───── any problem: the last good revision stays, reload_error() says why
//! ```

mod builder;
mod check;
mod compile;
mod extensions;
mod identity;
mod keys;
mod origin;
mod refresh;
mod reload;
mod routeless;
mod tasks;

#[cfg(test)]
#[cfg(feature = "dev-ca")]
mod tests;

pub use builder::MeshBuilder;
pub use check::{CheckReport, ClusterReport, check, load};
pub use routeless::Routeless;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use futures_core::Stream;

use crate::audit::Audit;
use crate::balance::Picker;
use crate::clock::WallClock;
use crate::config::{BalancePolicy, ClusterConfig, Config, ConfigError, Errors, Place, Workload, suggestion};
use crate::discover::{Feed, Resolve, SnapshotFile};
use crate::health::HealthCheck;
use crate::identity::{Identity, SpiffeId, SvidError};
use crate::plugin::{Context, Exporter, Registry};
use crate::policy::{ExternalAuthorizer, PolicyEngine};
use crate::rng::Rng;
use crate::route::RouteTable;
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;
use crate::token::{TokenSource, TokenVerifier};

/// How long [`Mesh::shutdown`] waits for each of audit and exporter.
const FLUSH: Duration = Duration::from_secs(5);

/// One consistent set of everything that reload replaces; a request pins it once.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The validated configuration.
    pub config: Arc<Config>,
    /// The policies that select this workload.
    pub policy: Arc<PolicyEngine>,
    /// The accepted issuers.
    pub tokens: Arc<TokenVerifier>,
    /// The routes.
    pub routes: Arc<RouteTable>,
}

/// The mesh of one process.
///
/// Clones are handles; background work ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

/// A [`Mesh`] that may be gone.
///
/// For what is kept beside it and must not keep it alive.
#[derive(Debug, Clone)]
pub struct WeakMesh {
    inner: Weak<Inner>,
}

impl WeakMesh {
    /// The mesh, unless its last handle was dropped.
    pub fn upgrade(&self) -> Option<Mesh> {
        self.inner.upgrade().map(|inner| Mesh { inner })
    }
}

/// External authorizers by the name that policies call them.
type Authorizers = BTreeMap<Arc<str>, Arc<dyn ExternalAuthorizer>>;

/// Background tasks hold cells of this, never the whole: that would be a cycle.
#[derive(Debug)]
struct Inner {
    revision: Snapshot<Revision>,
    identity: Snapshot<Identity>,
    reload_error: Arc<ArcSwapOption<ConfigError>>,
    audit: Audit,
    exporter: Option<Arc<dyn Exporter>>,
    metrics: Arc<Metrics>,
    context: Context,
    registry: Arc<Registry>,
    authorizers: Arc<Authorizers>,
    routeless: routeless::Count,
    extensions: extensions::Extensions,
    refresher: refresh::Refresher,
    tasks: tasks::Tasks,
}

impl Mesh {
    /// Starts to put a mesh together.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// A handle that does not keep it alive.
    pub fn downgrade(&self) -> WeakMesh {
        WeakMesh { inner: Arc::downgrade(&self.inner) }
    }

    /// Who this process is; fixed for its life.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.inner.context.workload
    }

    /// Configuration, policy, tokens and routes as they are now.
    pub fn revision(&self) -> &Snapshot<Revision> {
        &self.inner.revision
    }

    /// Whom CUSTOM policies ask under this name.
    pub fn authorizer(&self, name: &str) -> Option<&Arc<dyn ExternalAuthorizer>> {
        self.inner.authorizers.get(name)
    }

    /// Says that something is served here whose routes nobody knows, until the guard is dropped.
    ///
    /// While there is one, a policy that names a `route` is a problem of the configuration: its DENY rules would match
    /// everything, its ALLOW rules nothing.
    ///
    /// # Errors
    ///
    /// The policies in force that name a route.
    pub fn without_routes(&self) -> Result<Routeless, ConfigError> {
        // Counted first, looked at second: a reload in between sees the one or is seen by the other.
        let guard = self.inner.routeless.guard();
        let mut errors = Errors::default();
        routeless::refuse(&self.revision().load().policy, &mut errors);
        errors.finish(Some(guard))
    }

    /// SVIDs and bundles as they are now.
    pub fn identity(&self) -> &Snapshot<Identity> {
        &self.inner.identity
    }

    /// Has the source of identity look now, not at its next turn.
    ///
    /// For who met a peer whose issuer nobody knows.
    ///
    /// Looks begin at least 1 s apart, whoever asks; those who ask meanwhile share the next one. The future ends when a
    /// newer identity is in force, when the source has looked, or 2 s after the look began; it is `true` if a newer
    /// identity came since this call. Dropping it does not withdraw the wish, so a server may ask without waiting. A
    /// mesh that ends meanwhile found nothing. Counted in `mesh_identity_refreshes_total`. Needs a Tokio runtime.
    pub fn refresh_identity(&self) -> impl Future<Output = bool> + Send + use<> {
        self.inner.refresher.refresh(&self.inner.tasks)
    }

    /// Where audit records go.
    pub fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// What takes spans out of the process, if anything is configured.
    pub fn exporter(&self) -> Option<&Arc<dyn Exporter>> {
        self.inner.exporter.as_ref()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Calendar time.
    pub fn clock(&self) -> &Arc<dyn WallClock> {
        &self.inner.context.clock
    }

    /// Randomness for sampling and jitter.
    pub fn rng(&self) -> &Rng {
        &self.inner.context.rng
    }

    /// Why the last reload was refused, while the last good configuration stays in force.
    ///
    /// `None` after a good one.
    pub fn reload_error(&self) -> Option<Arc<ConfigError>> {
        self.inner.reload_error.load_full()
    }

    /// Whether this process can prove who it is, now.
    ///
    /// Fails closed: an expired SVID is not ready.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.readiness()()
    }

    /// [`ready`](Self::ready) for background work: asking it later does not keep this mesh alive.
    pub fn readiness(&self) -> impl Fn() -> Result<(), NotReady> + Send + Sync + use<> {
        let (identity, clock) = (self.identity().clone(), Arc::clone(self.clock()));
        move || identity::validity(&identity.load(), clock.now())
    }

    /// Builds the resolver of a configured cluster.
    pub fn resolver(&self, cluster: &str) -> Result<Arc<dyn Resolve>, ConfigError> {
        self.build(cluster, |config, context, errors| self.inner.registry.resolver(&config.discover, context, errors))
    }

    /// What a configured cluster follows.
    ///
    /// Its resolver, with a snapshot on disk where `discovery.snapshot_dir` is set. A `static` cluster needs none.
    pub fn feed(&self, cluster: &str) -> Result<Feed, ConfigError> {
        self.build(cluster, |config, context, errors| {
            let feed = Feed::from(self.inner.registry.resolver(&config.discover, context, errors)?);
            let discovery = &self.inner.revision.load().config.discovery;
            Some(match &discovery.snapshot_dir {
                Some(dir) if config.discover.kind != "static" => feed.snapshot(SnapshotFile::new(
                    context.base_dir.join(dir),
                    cluster,
                    &config.discover,
                    discovery.snapshot_max_age,
                    Arc::clone(&context.clock),
                )),
                _ => feed,
            })
        })
    }

    /// Builds the token source of a configured cluster, if it has one.
    pub fn token_source(&self, cluster: &str) -> Result<Option<Arc<dyn TokenSource>>, ConfigError> {
        self.build(cluster, |config, context, errors| match &config.token {
            Some(token) => self.inner.registry.token_source(token, context, errors).map(Some),
            None => Some(None),
        })
    }

    /// Builds what balances a configured cluster, if its policy is one that the program brings.
    pub fn balancer(&self, cluster: &str) -> Result<Option<Arc<dyn Picker>>, ConfigError> {
        self.build(cluster, |config, context, errors| match &config.balance.policy {
            policy @ BalancePolicy::Custom(_) => self.inner.registry.balancer(policy, context, errors).map(Some),
            _ => Some(None),
        })
    }

    /// Builds the health check of a configured cluster, if it has one.
    pub fn health_check(&self, cluster: &str) -> Result<Option<Arc<dyn HealthCheck>>, ConfigError> {
        self.build(cluster, |config, context, errors| match &config.health_check {
            Some(own) => self.inner.registry.health_check(&own.check, context, errors).map(Some),
            None => Some(None),
        })
    }

    fn build<T>(
        &self,
        cluster: &str,
        build: impl FnOnce(&ClusterConfig, &Context, &mut Errors) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let revision = self.inner.revision.load();
        let mut errors = Errors::default();
        let Some(config) = revision.config.clusters.get(cluster) else {
            let hint = suggestion(cluster, revision.config.clusters.keys().map(String::as_str));
            errors.push(&Place::code().field("clusters"), format!("no cluster is called `{cluster}`{hint}"));
            return errors.finish(None);
        };
        let context = Context { poll_interval: revision.config.poll_interval, ..self.inner.context.clone() };
        let made = build(config, &context, &mut errors);
        errors.finish(made)
    }

    /// The one `T` of this mesh, made by `init` at first use.
    ///
    /// For crates that keep state of their own beside a mesh.
    ///
    /// A `T` that owns a `Mesh` would keep it alive for ever. `init` may ask for other types, not for its own.
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce() -> T) -> Arc<T> {
        self.inner.extensions.of(init)
    }

    /// Runs a background task that ends when the last handle of this mesh is dropped.
    ///
    /// A panic is logged and counted.
    ///
    /// The future must not own a `Mesh`, which would keep it alive for ever: take what it needs out of it first.
    /// Needs a Tokio runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(name, task);
    }

    /// Sends what audit and exporter still hold, and ends the audit trail.
    ///
    /// 5 s each at most. Call it after the last server has drained.
    ///
    /// Cancel safe; what was not sent by then may be lost.
    pub async fn shutdown(&self) {
        if tokio::time::timeout(FLUSH, self.inner.audit.stop()).await.is_err() {
            tracing::warn!("audit records could not be written in time");
        }
        if let Some(exporter) = &self.inner.exporter
            && tokio::time::timeout(FLUSH, exporter.flush()).await.is_err()
        {
            tracing::warn!("spans could not be exported in time");
        }
    }
}

/// The next item of a boxed stream. Cancel safe.
async fn next<T>(stream: &mut Pin<Box<dyn Stream<Item = T> + Send>>) -> Option<T> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

/// Why a mesh did not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No identity came.
    #[error("no identity after {waited:?}: {message}")]
    Identity {
        /// How long was waited.
        waited: Duration,
        /// What the source said last, and what to do.
        message: String,
    },
}

impl std::fmt::Debug for StartError {
    /// As for people: it is what `main` shows of an error that it returns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why a process cannot prove who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// There is no SVID.
    #[error("no SVID")]
    NoIdentity,
    /// The SVID begins later.
    #[error("the SVID of {id} is not valid before {}: is the clock right?", crate::mesh::rfc3339(*not_before))]
    NotYetValid {
        /// Whose.
        id: SpiffeId,
        /// When it begins.
        not_before: SystemTime,
    },
    /// The SVID has ended, and no newer one came.
    #[error("the SVID of {id} expired at {}: its source does not renew it", crate::mesh::rfc3339(*not_after))]
    Expired {
        /// Whose.
        id: SpiffeId,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The own bundles no longer vouch for the SVID, so that peers refuse it.
    #[error("the trust bundle does not vouch for the own SVID of {id}: {error}")]
    Unvouched {
        /// Whose.
        id: SpiffeId,
        /// What a peer with our bundles says of it.
        error: SvidError,
    },
}

impl NotReady {
    /// A stable code, for example `expired`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no_svid",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Expired { .. } => "expired",
            Self::Unvouched { error, .. } => error.reason(),
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(time).format(&format).unwrap_or_else(|_| "a time out of range".to_owned())
}
