//! Registered kinds: everything that a configuration can name and a crate can add.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditSink;
use crate::clock::WallClock;
use crate::config::{Errors, Node, PlugConfig, Workload};
use crate::discover::Resolve;
use crate::identity::{IdentitySource, TrustDomain};
use crate::rng::Rng;
use crate::token::{KeySource, TokenSource};

/// What a factory may use beside its settings.
#[derive(Debug, Clone)]
pub struct Context {
    /// Relative paths in settings start here.
    pub base_dir: Arc<Path>,
    /// Who this process is.
    pub workload: Arc<Workload>,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Calendar time.
    pub clock: Arc<dyn WallClock>,
    /// Randomness.
    pub rng: Rng,
    /// How often watched files are compared.
    pub poll_interval: Duration,
}

type Factory<T> = Arc<dyn Fn(&Node, &Context, &mut Errors) -> Option<T> + Send + Sync>;

/// The factories that one crate adds to a mesh.
#[derive(Clone)]
pub struct Plugin {
    name: &'static str,
    identity_sources: BTreeMap<&'static str, Factory<Arc<dyn IdentitySource>>>,
    resolvers: BTreeMap<&'static str, Factory<Arc<dyn Resolve>>>,
    key_sources: BTreeMap<&'static str, Factory<Arc<dyn KeySource>>>,
    token_sources: BTreeMap<&'static str, Factory<Arc<dyn TokenSource>>>,
    audit_sinks: BTreeMap<&'static str, Factory<Box<dyn AuditSink>>>,
    exporters: BTreeMap<&'static str, Factory<Box<dyn Exporter>>>,
}

/// Something that takes spans out of the process; started with the mesh. See `mesh_tower::otel`.
pub trait Exporter: std::fmt::Debug + Send + Sync + 'static {}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every kind that a mesh knows. A kind that nobody registered is an error that names the crate that has it.
#[derive(Debug, Default)]
pub struct Registry {
    plugins: Vec<Plugin>,
}

impl Registry {
    /// Builds the source that `config` names.
    pub fn identity_source(
        &self,
        config: &PlugConfig,
        context: &Context,
        errors: &mut Errors,
    ) -> Option<Arc<dyn IdentitySource>> {
        let _ = (config, context, errors, &self.plugins);
        unimplemented!()
    }
}
