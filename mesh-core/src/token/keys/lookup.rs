//! Asks an issuer's source for a key that a token names and nobody knows.
//!
//! An issuer may sign with a key before anybody fetched it; and whoever wants to can send tokens with keys that do not
//! exist. So lookups of one issuer begin [`PAUSE`] apart whatever comes, all who ask meanwhile share the one under way,
//! few of them wait for it and none for long, and a key that was just looked for is not looked for again.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::KeySource;
use crate::telemetry::{KeyLookup, Metrics};

/// How far apart lookups of one issuer begin.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
/// How long a request waits for one.
pub(super) const BOUND: Duration = Duration::from_secs(1);
/// How many requests wait at once; further ones are refused.
pub(super) const MAX_WAITING: usize = 64;
/// For how long a key that was looked for is not looked for again.
const FORGET: Duration = Duration::from_secs(60);
/// How many such keys are remembered; the oldest give way.
const MAX_MISSING: usize = 256;
/// What a source may take, before another lookup may begin beside it.
const MAX_LOOK: Duration = Duration::from_secs(25);

/// The lookups of one issuer.
#[derive(Debug)]
pub(crate) struct KeyLookups {
    source: Arc<dyn KeySource>,
    metrics: Arc<Metrics>,
    waiting: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    /// Closes when the lookup that was begun last is over.
    over: Option<watch::Receiver<()>>,
    /// Hashes of names that were looked for, oldest first.
    missing: VecDeque<(u64, Instant)>,
}

impl KeyLookups {
    pub(crate) fn new(source: Arc<dyn KeySource>, metrics: Arc<Metrics>) -> Self {
        Self { source, metrics, waiting: Arc::new(Semaphore::new(MAX_WAITING)), state: Mutex::default() }
    }

    /// A lookup that may find the key of this hash, to wait for; `None`: refuse at once.
    ///
    /// Holds its lock for a search through [`MAX_MISSING`] numbers at most. Needs a Tokio runtime, without which nothing
    /// is looked up.
    pub(in crate::token) fn ask(&self, key: u64) -> Option<PendingKeys> {
        let (result, over) = self.join(key);
        let permit = over.and_then(|over| Some((over, Arc::clone(&self.waiting).try_acquire_owned().ok()?)));
        let crowded = permit.is_none() && matches!(result, KeyLookup::Asked | KeyLookup::Joined);
        self.metrics.runtime.key_lookup(if crowded { KeyLookup::Crowded } else { result });
        permit.map(|(mut over, permit)| {
            PendingKeys(Box::pin(async move {
                let _permit = permit;
                // It says nothing but that it ended.
                let _ = timeout(BOUND, over.changed()).await;
            }))
        })
    }

    fn join(&self, key: u64) -> (KeyLookup, Option<watch::Receiver<()>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = state.over.as_ref().filter(|over| over.has_changed().is_ok()) {
            return (KeyLookup::Joined, Some(over.clone()));
        }
        let now = Instant::now();
        if state.begun.is_some_and(|begun| now < begun + PAUSE) {
            return (KeyLookup::Limited, None);
        }
        while state.missing.front().is_some_and(|(_, since)| now >= *since + FORGET) {
            state.missing.pop_front();
        }
        if state.missing.iter().any(|(missing, _)| *missing == key) {
            return (KeyLookup::Repeated, None);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return (KeyLookup::Limited, None) };
        if state.missing.len() >= MAX_MISSING {
            state.missing.pop_front();
        }
        state.missing.push_back((key, now));
        let (ends, over) = watch::channel(());
        (state.begun, state.over) = (Some(now), Some(over.clone()));
        let looked = self.source.refresh();
        runtime.spawn(async move {
            let _ends = ends;
            let _ = timeout(MAX_LOOK, looked).await;
        });
        (KeyLookup::Asked, Some(over))
    }
}

/// A lookup of keys that is under way.
///
/// Ends with it, or after 1 s; dropping it withdraws nothing.
pub struct PendingKeys(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for PendingKeys {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for PendingKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingKeys").finish_non_exhaustive()
    }
}
