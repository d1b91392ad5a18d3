//! The live key sets of all issuers, kept across reloads that do not change them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::tasks::Task;
use crate::clock::WallClock;
use crate::config::{Config, Errors, Node, Place, PlugConfig};
use crate::plugin::{Context, Registry};
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, UpdateResult};
use crate::token::{IssuerKeys, Jwks, KeyLookups, KeySource, KeyUpdate, KeyUpdates, TokenError, TokenVerifier};

#[cfg(test)]
mod tests;

/// How long the first key set of a new issuer may take.
const FIRST_KEYS: Duration = Duration::from_secs(15);

/// One issuer's keys and the task that renews them.
#[derive(Debug, Clone)]
struct Issuer {
    jwks: PlugConfig,
    keys: IssuerKeys,
    _task: Arc<Task>,
}

/// All issuers of one revision. Renewal of an issuer ends with the last revision that has it.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyRing {
    issuers: BTreeMap<String, Issuer>,
}

impl KeyRing {
    /// The same, for another configuration: unchanged issuers keep their keys, new ones must have theirs at once.
    pub(super) async fn renew(
        &self,
        config: &Config,
        registry: &Registry,
        context: &Context,
        metrics: &Arc<Metrics>,
        errors: &mut Errors,
    ) -> Self {
        let mut issuers = BTreeMap::new();
        for token in &config.tokens {
            let kept = self.issuers.get(&token.issuer).filter(|issuer| issuer.jwks == token.jwks);
            let issuer = match kept {
                Some(issuer) => Some(issuer.clone()),
                None => {
                    let context = of_issuer(context, &token.issuer);
                    match registry.key_source(&token.jwks, &context, errors) {
                        Some(source) => watch(&token.issuer, &token.jwks, source, &context, metrics, errors).await,
                        None => None,
                    }
                }
            };
            issuers.extend(issuer.map(|issuer| (token.issuer.clone(), issuer)));
        }
        Self { issuers }
    }

    /// Forgets what was shown of issuers that `newer` does not have.
    pub(super) fn replaced_by(&self, newer: &Self, metrics: &Metrics) {
        for issuer in self.issuers.keys().filter(|issuer| !newer.issuers.contains_key(*issuer)) {
            metrics.runtime.keys_gone(issuer);
        }
    }

    /// A verifier for the issuers of `config`.
    pub(super) fn verifier(&self, config: &Config) -> TokenVerifier {
        let keys = |issuer: &str| self.issuers.get(issuer).map(|issuer| issuer.keys.clone());
        config.tokens.iter().fold(TokenVerifier::default(), |verifier, token| {
            // An issuer without keys vouches for nobody.
            verifier.with(token.clone(), keys(&token.issuer).unwrap_or_else(IssuerKeys::none))
        })
    }
}

/// What the factory of one issuer's key source is given.
pub(super) fn of_issuer(context: &Context, issuer: &str) -> Context {
    Context { issuer: Some(issuer.into()), ..context.clone() }
}

async fn watch(
    issuer: &str,
    jwks: &PlugConfig,
    source: Arc<dyn KeySource>,
    context: &Context,
    metrics: &Arc<Metrics>,
    errors: &mut Errors,
) -> Option<Issuer> {
    let mut updates = source.watch();
    let first = match first_keys(&mut updates, &jwks.settings).await {
        Ok(keys) => keys,
        Err((place, message)) => {
            errors.push(&place, message);
            return None;
        }
    };
    metrics.runtime.key_update(UpdateResult::Ok);
    metrics.runtime.keys_state(issuer, Some(context.clock.now()));
    let keys = IssuerKeys::new(first).looked_up(Arc::new(KeyLookups::new(source, Arc::clone(metrics))));
    let renewal = Renewal {
        issuer: issuer.to_owned(),
        set: keys.set.clone(),
        clock: Arc::clone(&context.clock),
        metrics: Arc::clone(metrics),
    };
    let task = Task::spawn("keys", Arc::clone(metrics), renewal.follow(updates));
    Some(Issuer { jwks: jwks.clone(), keys, _task: Arc::new(task) })
}

/// Waits for the first set; the problem of a source that has none is one of the configuration.
pub(super) async fn first_keys(updates: &mut KeyUpdates, settings: &Node) -> Result<Arc<Jwks>, (Place, String)> {
    let problem = match tokio::time::timeout(FIRST_KEYS, super::next(updates)).await {
        Ok(Some(KeyUpdate::Keys(keys))) => return Ok(keys),
        Ok(Some(KeyUpdate::Failed(error) | KeyUpdate::Stale(error))) => format!("no keys: {error}"),
        Ok(Some(KeyUpdate::Unchanged)) => "no keys: the source has none".to_owned(),
        Ok(None) => "no keys: the source ended".to_owned(),
        Err(_) => format!("no keys within {FIRST_KEYS:?}"),
    };
    Err((settings.place.clone(), problem))
}

/// What follows the news of one issuer's keys.
struct Renewal {
    issuer: String,
    set: Snapshot<Result<Arc<Jwks>, TokenError>>,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
}

impl Renewal {
    async fn follow(self, mut updates: KeyUpdates) {
        while let Some(update) = super::next(&mut updates).await {
            self.take(update);
        }
        self.metrics.runtime.key_update(UpdateResult::Error);
        tracing::error!(issuer = self.issuer, "the source of keys ended; the last good set stays in force");
    }

    fn take(&self, update: KeyUpdate) {
        let (runtime, issuer) = (&self.metrics.runtime, &*self.issuer);
        match update {
            KeyUpdate::Keys(keys) => {
                let generation = self.set.publish(Ok(keys));
                runtime.key_update(UpdateResult::Ok);
                runtime.keys_state(issuer, Some(self.clock.now()));
                tracing::info!(issuer, generation, "keys replaced");
            }
            KeyUpdate::Unchanged => {
                runtime.key_update(UpdateResult::Unchanged);
                runtime.keys_state(issuer, Some(self.clock.now()));
            }
            KeyUpdate::Failed(error) => {
                runtime.key_update(UpdateResult::Error);
                let kept = self.set.peek().is_ok();
                tracing::warn!(issuer, %error, kept, "keys not replaced; a last good set stays in force while it is kept");
            }
            KeyUpdate::Stale(error) => {
                self.set.publish(Err(TokenError::KeysStale));
                runtime.key_update(UpdateResult::Stale);
                runtime.keys_state(issuer, None);
                tracing::error!(issuer, %error, "keys are trusted no more: tokens of this issuer are refused");
            }
        }
    }
}
