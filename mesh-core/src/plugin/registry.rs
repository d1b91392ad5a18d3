//! All kinds of a mesh, and what to say about one that is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Context, Exporter, Factory, Kinds, Plugin, builtin};
use crate::audit::AuditSink;
use crate::balance::Picker;
use crate::config::{BalancePolicy, Errors, Place, PlugConfig, nearest, suggestion};
use crate::discover::Resolve;
use crate::fetch::Fetch;
use crate::health::HealthCheck;
use crate::identity::IdentitySource;
use crate::token::{KeySource, TokenSource};

/// Kinds that are known to exist elsewhere, and where.
const ELSEWHERE: [(&str, &str); 13] = [
    ("dev_ca", "feature `dev-ca` of mesh-core"),
    ("otlp", "feature `otel` of mesh-tower: register it with `.with(otlp.plugin())` of `mesh_tower::otel::Otlp`"),
    ("grpc", "crate `mesh-tonic`: register it with `.with(mesh_tonic::health::plugin())`"),
    ("dns", "feature `dns` of mesh-core, which mesh-tower has too"),
    ("spire", "a plugin for the SPIFFE Workload API, crate `mesh-spiffe`"),
    ("workload_api", "a plugin for the SPIFFE Workload API, crate `mesh-spiffe`"),
    ("kubernetes", "a Kubernetes plugin, crate `mesh-kubernetes`"),
    ("consul", "a Consul plugin, crate `mesh-consul`"),
    ("etcd", "an etcd plugin, crate `mesh-etcd`"),
    ("xds", "an xDS plugin, crate `mesh-xds`"),
    ("eds", "an xDS plugin, crate `mesh-xds`"),
    ("vault", "a plugin for Vault"),
    ("redis", "a Redis plugin, crate `mesh-redis`"),
];

/// Every kind that a mesh knows.
///
/// A kind that nobody registered is an error that names the crate that has it.
#[derive(Debug)]
pub struct Registry {
    identity_sources: Family<Arc<dyn IdentitySource>>,
    resolvers: Family<Arc<dyn Resolve>>,
    key_sources: Family<Arc<dyn KeySource>>,
    token_sources: Family<Arc<dyn TokenSource>>,
    health_checks: Family<Arc<dyn HealthCheck>>,
    audit_sinks: Family<Box<dyn AuditSink>>,
    exporters: Family<Arc<dyn Exporter>>,
    balancers: Family<Arc<dyn Picker>>,
    fetch: Option<(&'static str, Arc<dyn Fetch>)>,
}

impl Registry {
    /// The kinds of this crate and those of `plugins`.
    ///
    /// Two of one name are a problem: neither can be meant.
    pub fn new(plugins: &[Plugin], errors: &mut Errors) -> Self {
        let mut registry = Self {
            identity_sources: Family::new("identity source"),
            resolvers: Family::new("resolver"),
            key_sources: Family::new("key source"),
            token_sources: Family::new("token source"),
            health_checks: Family::new("health check"),
            audit_sinks: Family::new("audit sink"),
            exporters: Family::new("exporter"),
            balancers: Family::new("balancing policy"),
            fetch: None,
        };
        for plugin in std::iter::once(&builtin::plugin()).chain(plugins) {
            registry.identity_sources.add(plugin.name, &plugin.identity_sources, errors);
            registry.resolvers.add(plugin.name, &plugin.resolvers, errors);
            registry.key_sources.add(plugin.name, &plugin.key_sources, errors);
            registry.token_sources.add(plugin.name, &plugin.token_sources, errors);
            registry.health_checks.add(plugin.name, &plugin.health_checks, errors);
            registry.audit_sinks.add(plugin.name, &plugin.audit_sinks, errors);
            registry.exporters.add(plugin.name, &plugin.exporters, errors);
            registry.balancers.add(plugin.name, &plugin.balancers, errors);
            for name in BalancePolicy::NAMES.into_iter().filter(|name| plugin.balancers.contains_key(name)) {
                let message =
                    format!("{} registers the balancing policy `{name}`, which there is already", plugin.name);
                errors.push(&Place::code(), message);
            }
            match (&registry.fetch, &plugin.fetch) {
                (Some((first, _)), Some(_)) => {
                    let message = format!("both {first} and {} fetch over HTTP: register one of them", plugin.name);
                    errors.push(&Place::code(), message);
                }
                (None, Some(fetch)) => registry.fetch = Some((plugin.name, Arc::clone(fetch))),
                (_, None) => {}
            }
        }
        registry
    }

    /// Makes the policy of the program's own that a cluster is balanced by.
    ///
    /// Or notes why it cannot; nothing to make of one that this crate brings.
    pub fn balancer(&self, config: &BalancePolicy, context: &Context, errors: &mut Errors) -> Option<Arc<dyn Picker>> {
        let BalancePolicy::Custom(plug) = config else { return None };
        if self.balancers.kinds.contains_key(plug.kind.as_str()) {
            return self.balancers.build(plug, context, errors);
        }
        let known = BalancePolicy::NAMES.into_iter().chain(self.balancers.kinds.keys().copied());
        let hint = suggestion(&plug.kind, known);
        let message = format!(
            "no balancing policy `{}` is registered{hint}; one of your own is registered with `MeshBuilder::balancer`",
            plug.kind
        );
        errors.push(&plug.settings.place, message);
        None
    }

    /// What fetches documents over HTTP, if a plugin brought it.
    pub fn fetch(&self) -> Option<&Arc<dyn Fetch>> {
        self.fetch.as_ref().map(|(_, fetch)| fetch)
    }
}

macro_rules! build {
    ($($method:ident, $field:ident, $made:ty;)*) => {
        impl Registry {$(
            /// Makes what `config` names, or notes why it cannot.
            pub fn $method(&self, config: &PlugConfig, context: &Context, errors: &mut Errors) -> Option<$made> {
                self.$field.build(config, context, errors)
            }
        )*}
    };
}

build! {
    identity_source, identity_sources, Arc<dyn IdentitySource>;
    resolver, resolvers, Arc<dyn Resolve>;
    key_source, key_sources, Arc<dyn KeySource>;
    token_source, token_sources, Arc<dyn TokenSource>;
    health_check, health_checks, Arc<dyn HealthCheck>;
    audit_sink, audit_sinks, Box<dyn AuditSink>;
    exporter, exporters, Arc<dyn Exporter>;
}

/// The kinds that can stand in one place of the configuration.
struct Family<T> {
    what: &'static str,
    kinds: BTreeMap<&'static str, (&'static str, Factory<T>)>,
}

impl<T> Family<T> {
    fn new(what: &'static str) -> Self {
        Self { what, kinds: BTreeMap::new() }
    }

    fn add(&mut self, plugin: &'static str, kinds: &Kinds<T>, errors: &mut Errors) {
        for (kind, factory) in kinds {
            if let Some((first, _)) = self.kinds.get(kind) {
                let message = format!("{} `{kind}` is registered by both {first} and {plugin}", self.what);
                errors.push(&Place::code(), message);
                continue;
            }
            self.kinds.insert(kind, (plugin, Arc::clone(factory)));
        }
    }

    fn build(&self, config: &PlugConfig, context: &Context, errors: &mut Errors) -> Option<T> {
        let kind = config.kind.as_str();
        if let Some((_, factory)) = self.kinds.get(kind) {
            let before = errors.issues().len();
            let made = factory(&config.settings, context, errors);
            if made.is_none() && errors.issues().len() == before {
                errors.push(&config.settings.place, format!("{} `{kind}` refused its settings", self.what));
            }
            return made;
        }
        let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == kind);
        let hint = match (elsewhere, nearest(kind, self.kinds.keys().copied())) {
            (Some((_, place)), _) => format!("it comes with {place}"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => {
                let known: Vec<_> = self.kinds.keys().copied().collect();
                format!("known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })
            }
        };
        errors.push(&config.settings.place, format!("no {} of kind `{kind}` is registered; {hint}", self.what));
        None
    }
}

impl<T> std::fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}
