//! Puts a mesh together and starts it.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::compile::Compiler;
use super::identity::Judge;
use super::origin::{Base, Loaded, Origin};
use super::refresh::Refresher;
use super::reload::Reload;
use super::{Authorizers, Inner, Mesh, StartError, extensions, tasks};
use crate::audit::{Audit, AuditOptions, AuditSink};
use crate::balance::Picker;
use crate::clock::{SystemClock, WallClock};
use crate::config::{Config, ConfigError, Errors, IssuerConfig, Node, PlugConfig};
use crate::identity::IdentitySource;
use crate::plugin::{Context, Plugin, Registry};
use crate::policy::{AuthorizationPolicy, ExternalAuthorizer};
use crate::rng::Rng;
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;

/// Where an agent serves identities. (SPIFFE Workload Endpoint 4)
const WORKLOAD_API: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Puts a mesh together from a file, from code, or from both; code wins.
#[derive(Debug, Default)]
pub struct MeshBuilder {
    origin: Origin,
    plugins: Vec<Plugin>,
    identity_source: Option<Arc<dyn IdentitySource>>,
    audit_sink: Option<Box<dyn AuditSink>>,
    authorizers: Authorizers,
    clock: Option<Arc<dyn WallClock>>,
    rng: Option<Rng>,
}

impl MeshBuilder {
    /// Reads and watches this file, instead of an earlier [`config`](Self::config).
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.origin.base = Base::File(path.into());
        self
    }

    /// Starts from this configuration instead of a file. Its policy files are watched.
    pub fn config(mut self, config: Config) -> Self {
        self.origin.base = Base::Code(Box::new(config));
        self
    }

    /// Changes the configuration after the file was read, at start and at each reload.
    ///
    /// Without a file it is called by [`start`](Self::start) itself, and should not block.
    pub fn edit(mut self, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.origin.edits.push(Arc::new(edit));
        self
    }

    /// Adds the kinds of another crate.
    pub fn with(mut self, plugin: Plugin) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// Adds policies given in code to those in files.
    pub fn policies(mut self, policies: Vec<AuthorizationPolicy>) -> Self {
        self.origin.policies.extend(policies);
        self
    }

    /// Accepts the tokens of one more issuer.
    ///
    /// Where configuration or documents have it already, only the keys change: the rest is what they say.
    ///
    /// Added after all [edits](Self::edit); at start and at each reload.
    pub fn issuer(mut self, issuer: IssuerConfig) -> Self {
        self.origin.issuers.push(issuer);
        self
    }

    /// Lets CUSTOM policies ask `authorizer` under this name.
    ///
    /// A later one takes the place of an earlier one.
    ///
    /// A policy that names somebody who is not registered denies what it would ask about.
    pub fn authorizer(mut self, name: impl Into<Arc<str>>, authorizer: impl ExternalAuthorizer + 'static) -> Self {
        self.authorizers.insert(name.into(), Arc::new(authorizer));
        self
    }

    /// Adds a balancing policy of the program's own: a [`Picker`](crate::balance::Picker).
    ///
    /// `balance: { policy: NAME, settings: ... }` asks `factory` for it, at start and at every reload, also only to check.
    /// A policy that nobody registered is an error that says so.
    pub fn balancer(
        self,
        name: &'static str,
        factory: impl Fn(&Node, &Context, &mut Errors) -> Option<Arc<dyn Picker>> + Send + Sync + 'static,
    ) -> Self {
        self.with(Plugin::new("the program").balancer(name, factory))
    }

    /// Uses this identity source instead of the configured one.
    pub fn identity_source(mut self, source: Arc<dyn IdentitySource>) -> Self {
        self.identity_source = Some(source);
        self
    }

    /// Uses this audit sink instead of the configured one.
    pub fn audit_sink(mut self, sink: Box<dyn AuditSink>) -> Self {
        self.audit_sink = Some(sink);
        self
    }

    /// Uses this clock for certificates and tokens.
    pub fn clock(mut self, clock: Arc<dyn WallClock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Uses this randomness for sampling and jitter.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = Some(rng);
        self
    }

    /// Validates everything, waits for the first identity and starts to watch files.
    ///
    /// The wait is 10 s at most.
    ///
    /// Fails closed: without a valid configuration, the first keys of every issuer and an identity there is no mesh.
    /// Cancel safe: a dropped start leaves nothing running.
    pub async fn start(self) -> Result<Mesh, StartError> {
        let Self { origin, plugins, identity_source, audit_sink, authorizers, clock, rng } = self;
        let origin = Arc::new(origin);
        let reading = origin.clone().read_in_background(None, Vec::new()).await;
        let loaded = origin.load(&reading)?;

        let mut errors = Errors::default();
        let registry = Arc::new(Registry::new(&plugins, &mut errors));
        let context = context(&origin, &loaded.config, clock, rng, &registry);
        let config = &loaded.config;
        let source = match identity_source {
            Some(source) => Some(source),
            None => registry.identity_source(&config.identity.source, &context, &mut errors),
        };
        let sink = match audit_sink {
            Some(sink) => Some(sink),
            None => {
                let configured =
                    config.audit.sink.clone().unwrap_or_else(|| PlugConfig::new("log", &serde_json::Value::Null));
                registry.audit_sink(&configured, &context, &mut errors)
            }
        };
        let audit_options = AuditOptions::of(&config.audit, &context.base_dir, loaded.root.as_ref(), &mut errors);
        let exporter =
            config.telemetry.exporter.as_ref().and_then(|config| registry.exporter(config, &context, &mut errors));
        let metrics = Arc::new(Metrics::default());
        let (registry_, context_) = (Arc::clone(&registry), context.clone());
        let authorizers = Arc::new(authorizers);
        let mut compiler = Compiler::new(registry_, context_, Arc::clone(&metrics), Arc::clone(&authorizers));
        let compiled = compiler.compile(&loaded, None, &mut errors).await;
        let (revision, source, sink) = errors.finish(compiled.zip(source).zip(sink).map(|((r, i), s)| (r, i, s)))?;

        let judge = Judge {
            domain: context.trust_domain.clone(),
            clock: Arc::clone(&context.clock),
            metrics: Arc::clone(&metrics),
        };
        let mut updates = source.watch();
        let identity = Snapshot::new(judge.first(&mut updates).await?);
        let revision = Snapshot::new(revision);
        let routeless = compiler.routeless.clone();
        metrics.runtime.config_generation.set(1);

        let tasks = tasks::Tasks::new(Arc::clone(&metrics));
        let refresher = Refresher::new(Arc::clone(&source), identity.clone(), Arc::clone(&metrics));
        let cell = identity.clone();
        tasks.spawn("identity", async move {
            // The source may do its work itself: it lives as long as its stream.
            let _source = source;
            judge.follow(updates, cell).await;
        });
        let reload_error = Arc::new(ArcSwapOption::empty());
        let audit_options = AuditOptions {
            identity: Some(identity.clone()),
            clock: Arc::clone(&context.clock),
            rng: context.rng.fork(),
            ..audit_options
        };
        let audit = Audit::start(sink, audit_options, Arc::clone(&metrics));
        let trail = audit.clone();
        let (revision_, error) = (revision.clone(), Arc::clone(&reload_error));
        let reload = Reload { origin, compiler, revision: revision_, error, audit: trail };
        reload.loaded(1);
        tasks.spawn("reload", reload.run(reading));

        if let Some(exporter) = &exporter {
            exporter.start();
        }
        let extensions = extensions::Extensions::default();
        let inner = Inner {
            revision,
            identity,
            reload_error,
            audit,
            exporter,
            metrics,
            context,
            registry,
            authorizers,
            routeless,
            extensions,
            refresher,
            tasks,
        };
        Ok(Mesh { inner: Arc::new(inner) })
    }

    /// What this builder was told, for a check that starts nothing.
    pub(super) async fn load(self) -> Result<(Loaded, Registry, Context), ConfigError> {
        let origin = Arc::new(self.origin);
        let reading = origin.clone().read_in_background(None, Vec::new()).await;
        let loaded = origin.load(&reading);
        let mut errors = Errors::default();
        let registry = Registry::new(&self.plugins, &mut errors);
        let loaded = loaded.map_err(|error| errors.extend(&error)).ok();
        let loaded = errors.finish(loaded)?;
        let context = context(&origin, &loaded.config, self.clock, self.rng, &registry);
        Ok((loaded, registry, context))
    }
}

fn context(
    origin: &Origin,
    config: &Config,
    clock: Option<Arc<dyn WallClock>>,
    rng: Option<Rng>,
    registry: &Registry,
) -> Context {
    Context {
        base_dir: origin.base_dir().into(),
        workload: Arc::new(config.workload.clone()),
        trust_domain: config.identity.trust_domain.clone(),
        clock: clock.unwrap_or_else(|| Arc::new(SystemClock)),
        rng: rng.unwrap_or_else(Rng::from_entropy),
        poll_interval: config.poll_interval,
        workload_api: std::env::var(WORKLOAD_API).ok().filter(|socket| !socket.is_empty()),
        fetch: registry.fetch().cloned(),
        issuer: None,
    }
}
