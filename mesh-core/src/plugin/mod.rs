//! Registered kinds: everything that a configuration can name and a crate can add.
//!
//! A mesh that knew every identity agent, service registry and key server by itself would carry all their clients. So
//! each `kind` in the configuration is a factory that some crate registers, with a schema of its own; a kind that nobody
//! registered is an error that names the crate that has it.
//!
//! ```
//! use std::sync::Arc;
//! use mesh_core::config::Decode;
//! use mesh_core::discover::{Endpoint, Resolve, StaticResolver};
//!
//! let plugin = mesh_core::Plugin::new("my-registry").resolver("loopback", |settings, _context, errors| {
//!     let port = u16::decode(settings, errors)?;
//!     let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
//!     Some(Arc::new(StaticResolver::new(vec![Endpoint::new(address)])) as Arc<dyn Resolve>)
//! });
//! let builder = mesh_core::Mesh::builder().with(plugin);     // clusters: { x: { discover: { loopback: 8443 } } }
//! # let _ = builder;
//! ```

mod builtin;
mod context;
mod registry;

pub use context::Context;
pub use registry::Registry;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::audit::AuditSink;
use crate::balance::Picker;
use crate::config::{Errors, Node};
use crate::discover::Resolve;
use crate::fetch::Fetch;
use crate::health::HealthCheck;
use crate::identity::IdentitySource;
use crate::token::{KeySource, TokenSource};

type Factory<T> = Arc<dyn Fn(&Node, &Context, &mut Errors) -> Option<T> + Send + Sync>;

type Kinds<T> = BTreeMap<&'static str, Factory<T>>;

/// The factories that one crate adds to a mesh.
#[derive(Clone)]
pub struct Plugin {
    name: &'static str,
    identity_sources: Kinds<Arc<dyn IdentitySource>>,
    resolvers: Kinds<Arc<dyn Resolve>>,
    key_sources: Kinds<Arc<dyn KeySource>>,
    token_sources: Kinds<Arc<dyn TokenSource>>,
    health_checks: Kinds<Arc<dyn HealthCheck>>,
    audit_sinks: Kinds<Box<dyn AuditSink>>,
    exporters: Kinds<Arc<dyn Exporter>>,
    balancers: Kinds<Arc<dyn Picker>>,
    fetch: Option<Arc<dyn Fetch>>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $method:ident, $field:ident, $made:ty;)*) => {
        impl Plugin {$(
            $(#[$doc])*
            ///
            /// The factory is called at start and at every reload, also only to check: it must neither block nor do
            /// anything that is visible outside the process.
            pub fn $method(
                mut self,
                kind: &'static str,
                factory: impl Fn(&Node, &Context, &mut Errors) -> Option<$made> + Send + Sync + 'static,
            ) -> Self {
                self.$field.insert(kind, Arc::new(factory));
                self
            }
        )*}
    };
}

kinds! {
    /// Adds a kind of `identity.source`.
    identity_source, identity_sources, Arc<dyn IdentitySource>;
    /// Adds a kind of `clusters.*.discover`.
    resolver, resolvers, Arc<dyn Resolve>;
    /// Adds a kind of `tokens[*].jwks`.
    key_source, key_sources, Arc<dyn KeySource>;
    /// Adds a kind of `clusters.*.token`.
    token_source, token_sources, Arc<dyn TokenSource>;
    /// Adds a kind of `clusters.*.health_check.check`.
    health_check, health_checks, Arc<dyn HealthCheck>;
    /// Adds a kind of `audit.sink`.
    audit_sink, audit_sinks, Box<dyn AuditSink>;
    /// Adds a kind of `telemetry.exporter`.
    exporter, exporters, Arc<dyn Exporter>;
    /// Adds a `clusters.*.balance.policy`; it decodes `balance.settings`.
    balancer, balancers, Arc<dyn Picker>;
}

impl Plugin {
    /// A plugin without any kind yet.
    ///
    /// The name is that of the crate; errors show it.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            identity_sources: Kinds::new(),
            resolvers: Kinds::new(),
            key_sources: Kinds::new(),
            token_sources: Kinds::new(),
            health_checks: Kinds::new(),
            audit_sinks: Kinds::new(),
            exporters: Kinds::new(),
            balancers: Kinds::new(),
            fetch: None,
        }
    }

    /// Brings what fetches documents over HTTP, for the kinds of all plugins.
    ///
    /// A mesh has one.
    pub fn fetch(mut self, fetch: Arc<dyn Fetch>) -> Self {
        self.fetch = Some(fetch);
        self
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Something that takes spans out of the process.
///
/// Made once at start, from its settings and [`Context`]; kept by the mesh until the last handle is dropped. The crate
/// that registers it finds its own type again through [`Mesh::exporter`](crate::Mesh::exporter) and
/// [`Any`]: `(exporter as Arc<dyn Any + Send + Sync>).downcast::<Otlp>()`. Its background work belongs into
/// [`Mesh::spawn`](crate::Mesh::spawn) or to itself, ending when it is dropped.
pub trait Exporter: Any + std::fmt::Debug + Send + Sync {
    /// Begins to export; called once, when everything else of the mesh was found right. A check never calls it. Fails
    /// open: what cannot begin is logged, and the mesh goes on without.
    fn start(&self) {}

    /// Sends what waits; [`Mesh::shutdown`](crate::Mesh::shutdown) calls it and waits 5 s at most. Fails open: what
    /// cannot be sent is lost and counted by the exporter.
    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
