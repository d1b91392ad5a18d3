//! The live key sets of all issuers, kept across reloads that do not change them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::tasks::Task;
use crate::config::{Config, Errors, Node, Place, PlugConfig};
use crate::plugin::{Context, Registry};
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, UpdateResult};
use crate::token::{Jwks, KeySource, KeyUpdates, TokenVerifier};

/// How long the first key set of a new issuer may take.
const FIRST_KEYS: Duration = Duration::from_secs(10);

/// One issuer's keys and the task that renews them.
#[derive(Debug, Clone)]
struct Issuer {
    jwks: PlugConfig,
    keys: Snapshot<Option<Arc<Jwks>>>,
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
                None => match registry.key_source(&token.jwks, context, errors) {
                    Some(source) => watch(&token.issuer, &token.jwks, &*source, metrics, errors).await,
                    None => None,
                },
            };
            issuers.extend(issuer.map(|issuer| (token.issuer.clone(), issuer)));
        }
        Self { issuers }
    }

    /// A verifier for the issuers of `config`.
    pub(super) fn verifier(&self, config: &Config) -> TokenVerifier {
        let keys = |issuer: &str| self.issuers.get(issuer).map(|issuer| issuer.keys.clone());
        config.tokens.iter().fold(TokenVerifier::default(), |verifier, token| {
            // An issuer without keys vouches for nobody.
            verifier.with(token.clone(), keys(&token.issuer).unwrap_or_else(|| Snapshot::new(None)))
        })
    }
}

async fn watch(
    issuer: &str,
    jwks: &PlugConfig,
    source: &dyn KeySource,
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
    let keys = Snapshot::new(Some(first));
    let task = renew(issuer.to_owned(), updates, keys.clone(), Arc::clone(metrics));
    let task = Task::spawn("keys", Arc::clone(metrics), task);
    Some(Issuer { jwks: jwks.clone(), keys, _task: Arc::new(task) })
}

/// Waits for the first set; the problem of a source that has none is one of the configuration.
pub(super) async fn first_keys(updates: &mut KeyUpdates, settings: &Node) -> Result<Arc<Jwks>, (Place, String)> {
    match tokio::time::timeout(FIRST_KEYS, super::next(updates)).await {
        Ok(Some(Ok(keys))) => Ok(keys),
        Ok(Some(Err(error))) => Err((settings.place.clone(), format!("no keys: {error}"))),
        Ok(None) => Err((settings.place.clone(), "no keys: the source ended".to_owned())),
        Err(_) => Err((settings.place.clone(), format!("no keys within {FIRST_KEYS:?}"))),
    }
}

async fn renew(issuer: String, mut updates: KeyUpdates, keys: Snapshot<Option<Arc<Jwks>>>, metrics: Arc<Metrics>) {
    while let Some(update) = super::next(&mut updates).await {
        metrics.runtime.key_update(UpdateResult::from(&update));
        match update {
            Ok(set) => {
                let generation = keys.publish(Some(set));
                tracing::info!(issuer, generation, "keys replaced");
            }
            Err(error) => tracing::warn!(issuer, %error, "keys not replaced; the last good set stays in force"),
        }
    }
    metrics.runtime.key_update(UpdateResult::Error);
    tracing::error!(issuer, "the source of keys ended; the last good set stays in force");
}
