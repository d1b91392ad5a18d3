//! Judges a configuration without starting anything, for `mesh check` and `mesh explain`.

use std::path::Path;
use std::time::Duration;

use super::compile::check_clusters;
use super::origin::{Base, Origin};
use super::{MeshBuilder, keys};
use crate::config::{Config, ConfigError, ConfigIssue, Errors};
use crate::discover::Update;
use crate::policy::{AuthorizationPolicy, EngineOptions, PolicyEngine};

/// How long a resolver may take to say something.
const FIRST_ENDPOINTS: Duration = Duration::from_secs(10);

/// What a good configuration amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Policies in all files, and those that bindings are compiled to.
    pub policies: usize,
    /// Those that select this workload.
    pub selected: usize,
    /// Accepted issuers, all with keys.
    pub issuers: Vec<String>,
    /// What can be called.
    pub clusters: Vec<ClusterReport>,
    /// Settings that are weaker than their default, and roles that nobody has.
    pub warnings: Vec<ConfigIssue>,
}

/// What is known of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterReport {
    /// Its name.
    pub name: String,
    /// Endpoints that its resolver knows now.
    pub endpoints: usize,
}

/// Reads a `mesh.yaml` and the policies it names, and judges both. Blocks on the disk.
///
/// All problems of both come at once. Kinds are not looked at: [`check`] knows them.
pub fn load(path: impl AsRef<Path>) -> Result<(Config, Vec<AuthorizationPolicy>), ConfigError> {
    let origin = Origin { base: Base::File(path.as_ref().to_owned()), ..Origin::default() };
    let loaded = origin.load(&origin.read(None, &[]))?;
    Ok((loaded.config, loaded.policies))
}

/// Judges a `mesh.yaml` as a start would, and starts nothing.
///
/// With its policies, key sets and endpoint files.
///
/// The kinds of other crates are known only to [`MeshBuilder::check`]. Identity is not asked for: that needs the
/// workload's own place to run.
pub async fn check(path: impl AsRef<Path>) -> Result<CheckReport, ConfigError> {
    MeshBuilder::default().config_file(path.as_ref()).check().await
}

impl MeshBuilder {
    /// Judges what [`start`](Self::start) would start, with the kinds of all plugins; see [`check`].
    pub async fn check(self) -> Result<CheckReport, ConfigError> {
        let (loaded, registry, context) = self.load().await?;
        let config = &loaded.config;
        let (mut errors, now) = (Errors::default(), context.clock.now());
        config.check_at(now, loaded.root.as_ref(), &mut errors);
        drop(registry.identity_source(&config.identity.source, &context, &mut errors));
        if let Some(sink) = &config.audit.sink {
            drop(registry.audit_sink(sink, &context, &mut errors));
        }
        config.audit.keys(&context.base_dir, loaded.root.as_ref(), &mut errors);
        if let Some(exporter) = &config.telemetry.exporter {
            drop(registry.exporter(exporter, &context, &mut errors));
        }
        check_clusters(config, &registry, &context, &mut errors);
        for token in &config.tokens {
            let context = keys::of_issuer(&context, &token.issuer);
            if let Some(source) = registry.key_source(&token.jwks, &context, &mut errors)
                && let Err((place, message)) = keys::first_keys(&mut source.watch(), &token.jwks.settings).await
            {
                errors.push(&place, message);
            }
        }
        let mut clusters = Vec::new();
        for (name, cluster) in &config.clusters {
            // Settings that are wrong have been noted above.
            let Some(resolver) = registry.resolver(&cluster.discover, &context, &mut Errors::default()) else {
                continue;
            };
            let place = &cluster.discover.settings.place;
            match tokio::time::timeout(FIRST_ENDPOINTS, super::next(&mut resolver.watch())).await {
                Ok(Some(Update::Endpoints(found))) => {
                    clusters.push(ClusterReport { name: name.clone(), endpoints: found.endpoints.len() });
                }
                Ok(Some(Update::Stale(error))) => errors.push(place, format!("no endpoints: {error}")),
                Ok(Some(Update::Gone)) => errors.push(place, "no endpoints: the service is gone"),
                Ok(None) => errors.push(place, "no endpoints: the resolver ended"),
                Err(_) => errors.push(place, format!("no endpoints within {FIRST_ENDPOINTS:?}")),
            }
        }
        let mut warnings = config.opt_ins(now, loaded.root.as_ref());
        warnings.extend(config.unbound_roles(loaded.root.as_ref()));
        let engine = PolicyEngine::compile(&loaded.policies, &config.workload, &EngineOptions::of(config));
        errors.finish(Some(CheckReport {
            policies: loaded.policies.len(),
            selected: engine.len(),
            issuers: config.tokens.iter().map(|token| token.issuer.clone()).collect(),
            clusters,
            warnings,
        }))
    }
}
