//! The live mesh of one process: started once, cloned freely, handed to every layer.

use std::any::Any;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use crate::audit::{Audit, AuditSink};
use crate::clock::WallClock;
use crate::config::{Config, ConfigError, Workload};
use crate::discover::Resolve;
use crate::identity::{Identity, IdentitySource};
use crate::plugin::Plugin;
use crate::policy::{AuthorizationPolicy, PolicyEngine};
use crate::rng::Rng;
use crate::route::RouteTable;
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;
use crate::token::{TokenSource, TokenVerifier};

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

/// The mesh of one process. Clones are handles; background work ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Mesh {
    _private: (),
}

impl Mesh {
    /// Starts to put a mesh together.
    pub fn builder() -> MeshBuilder {
        MeshBuilder { _private: () }
    }

    /// Who this process is; fixed for its life.
    pub fn workload(&self) -> &Arc<Workload> {
        unimplemented!()
    }

    /// Configuration, policy, tokens and routes as they are now.
    pub fn revision(&self) -> &Snapshot<Revision> {
        unimplemented!()
    }

    /// SVIDs and bundles as they are now.
    pub fn identity(&self) -> &Snapshot<Identity> {
        unimplemented!()
    }

    /// Where audit records go.
    pub fn audit(&self) -> &Audit {
        unimplemented!()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        unimplemented!()
    }

    /// Calendar time.
    pub fn clock(&self) -> &Arc<dyn WallClock> {
        unimplemented!()
    }

    /// Randomness for sampling and jitter.
    pub fn rng(&self) -> &Rng {
        unimplemented!()
    }

    /// Why the last reload was refused, while the last good configuration stays in force; `None` after a good one.
    pub fn reload_error(&self) -> Option<Arc<ConfigError>> {
        unimplemented!()
    }

    /// Builds the resolver of a configured cluster.
    pub fn resolver(&self, cluster: &str) -> Result<Arc<dyn Resolve>, ConfigError> {
        let _ = cluster;
        unimplemented!()
    }

    /// Builds the token source of a configured cluster, if it has one.
    pub fn token_source(&self, cluster: &str) -> Result<Option<Arc<dyn TokenSource>>, ConfigError> {
        let _ = cluster;
        unimplemented!()
    }

    /// The one `T` of this mesh, made by `init` at first use. For crates that keep state of their own beside a mesh.
    pub fn extension<T: Any + Send + Sync>(&self, init: impl FnOnce() -> T) -> Arc<T> {
        let _ = init;
        unimplemented!()
    }

    /// Runs a background task that ends when the last handle of this mesh is dropped; a panic is logged and counted.
    ///
    /// The future must not own a `Mesh`, which would keep it alive for ever: take what it needs out of it first.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let _ = (name, task);
        unimplemented!()
    }
}

/// Puts a mesh together from a file, from code, or from both; code wins.
#[derive(Debug)]
pub struct MeshBuilder {
    _private: (),
}

impl MeshBuilder {
    /// Reads and watches this file.
    pub fn config_file(self, path: impl Into<PathBuf>) -> Self {
        let _ = path.into();
        unimplemented!()
    }

    /// Starts from this configuration instead of a file.
    pub fn config(self, config: Config) -> Self {
        let _ = config;
        unimplemented!()
    }

    /// Changes the configuration after the file was read, at start and at each reload.
    pub fn edit(self, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let _ = edit;
        unimplemented!()
    }

    /// Adds the kinds of another crate.
    pub fn with(self, plugin: Plugin) -> Self {
        let _ = plugin;
        unimplemented!()
    }

    /// Adds policies given in code to those in files.
    pub fn policies(self, policies: Vec<AuthorizationPolicy>) -> Self {
        let _ = policies;
        unimplemented!()
    }

    /// Uses this identity source instead of the configured one.
    pub fn identity_source(self, source: Arc<dyn IdentitySource>) -> Self {
        let _ = source;
        unimplemented!()
    }

    /// Uses this audit sink instead of the configured one.
    pub fn audit_sink(self, sink: Box<dyn AuditSink>) -> Self {
        let _ = sink;
        unimplemented!()
    }

    /// Uses this clock for certificates and tokens.
    pub fn clock(self, clock: Arc<dyn WallClock>) -> Self {
        let _ = clock;
        unimplemented!()
    }

    /// Uses this randomness for sampling and jitter.
    pub fn rng(self, rng: Rng) -> Self {
        let _ = rng;
        unimplemented!()
    }

    /// Validates everything, waits for the first identity (10 s at most) and starts to watch files.
    ///
    /// Fails closed: without a valid configuration and an identity there is no mesh.
    pub async fn start(self) -> Result<Mesh, StartError> {
        unimplemented!()
    }
}

/// Why a mesh did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No identity came.
    #[error("no identity after {waited:?}: {message}")]
    Identity {
        /// How long was waited.
        waited: std::time::Duration,
        /// What the source said last, and what to do.
        message: String,
    },
}
