//! From a loaded configuration to a [`Revision`]; the same at start and at every reload.

use std::sync::Arc;

use super::keys::KeyRing;
use super::origin::Loaded;
use super::{Authorizers, Revision, routeless};
use crate::config::{Config, Errors, NoPolicy};
use crate::plugin::{Context, Registry};
use crate::policy::{EngineOptions, PolicyEngine};
use crate::route::RouteTable;
use crate::telemetry::Metrics;

/// Compiles revisions, and keeps what lives on from one to the next.
#[derive(Debug)]
pub(super) struct Compiler {
    registry: Arc<Registry>,
    pub(super) context: Context,
    pub(super) metrics: Arc<Metrics>,
    authorizers: Arc<Authorizers>,
    pub(super) routeless: routeless::Count,
    keys: KeyRing,
}

impl Compiler {
    pub(super) fn new(
        registry: Arc<Registry>,
        context: Context,
        metrics: Arc<Metrics>,
        authorizers: Arc<Authorizers>,
    ) -> Self {
        Self {
            registry,
            context,
            metrics,
            authorizers,
            routeless: routeless::Count::default(),
            keys: KeyRing::default(),
        }
    }

    /// A whole revision, or a note of everything that is wrong. Nothing is kept of one that failed.
    pub(super) async fn compile(
        &mut self,
        loaded: &Loaded,
        previous: Option<&Revision>,
        errors: &mut Errors,
    ) -> Option<Revision> {
        let config = &loaded.config;
        if let Some(previous) = previous {
            config.check_change(&previous.config, loaded.root.as_ref(), errors);
        }
        let now = self.context.clock.now();
        config.check_at(now, loaded.root.as_ref(), errors);
        let context = Context { poll_interval: config.poll_interval, ..self.context.clone() };
        check_clusters(config, &self.registry, &context, errors);
        let keys = self.keys.renew(config, &self.registry, &context, &self.metrics, errors).await;
        if !errors.is_empty() {
            return None;
        }
        let policy = PolicyEngine::compile(&loaded.policies, &config.workload, &EngineOptions::of(config));
        if self.routeless.any() {
            routeless::refuse(&policy, errors);
            if !errors.is_empty() {
                return None;
            }
        }
        let revision = Revision {
            policy: Arc::new(policy),
            tokens: Arc::new(keys.verifier(config)),
            routes: Arc::new(RouteTable::compile(config, previous.map(|previous| &*previous.routes))),
            config: Arc::new(config.clone()),
        };
        self.keys.replaced_by(&keys, &self.metrics);
        self.keys = keys;
        for opt_in in config.opt_ins(now, loaded.root.as_ref()) {
            tracing::warn!(%opt_in, "weaker than the default");
        }
        for role in config.unbound_roles(loaded.root.as_ref()) {
            tracing::warn!(%role, "nobody has this role");
        }
        for doubt in loaded.policies.iter().flat_map(|policy| &policy.doubts).chain(&loaded.doubts) {
            tracing::warn!(%doubt, "read as Istio reads it");
        }
        for policy in revision.policy.policies() {
            if let Some(provider) = policy.provider.as_deref().filter(|name| !self.authorizers.contains_key(*name)) {
                tracing::warn!(
                    policy = &*policy.name,
                    provider,
                    "no such external authorizer: what it would be asked is denied"
                );
            }
        }
        if config.no_policy == NoPolicy::Allow {
            let unprotected = !revision.policy.enforces();
            tracing::warn!(
                unprotected,
                "`authorization: {{ no_policy: allow }}`: without a policy, every caller is let in"
            );
        }
        Some(revision)
    }
}

/// Builds what every cluster names and drops it again: an unknown kind is found at start, not at the first call.
pub(super) fn check_clusters(config: &Config, registry: &Registry, context: &Context, errors: &mut Errors) {
    for cluster in config.clusters.values() {
        drop(registry.resolver(&cluster.discover, context, errors));
        drop(registry.balancer(&cluster.balance.policy, context, errors));
        if let Some(token) = &cluster.token {
            drop(registry.token_source(token, context, errors));
        }
        if let Some(health_check) = &cluster.health_check {
            drop(registry.health_check(&health_check.check, context, errors));
        }
    }
}
