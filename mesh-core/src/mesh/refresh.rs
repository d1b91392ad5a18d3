//! Asks the source of identity to look now, on behalf of whoever met an issuer that nobody knows.
//!
//! Strangers decide when that happens. So those who ask at once share one look, looks begin [`PAUSE`] apart, and each is
//! waited for [`BOUND`] at most.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::tasks::Tasks;
use crate::identity::{Identity, IdentitySource};
use crate::snapshot::Snapshot;
use crate::telemetry::{IdentityRefresh, Metrics};

/// How far apart looks begin.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// How long one look is waited for.
pub(super) const BOUND: Duration = Duration::from_secs(2);

/// One for each mesh.
#[derive(Debug)]
pub(super) struct Refresher {
    source: Arc<dyn IdentitySource>,
    identity: Snapshot<Identity>,
    metrics: Arc<Metrics>,
    last: Mutex<Option<Look>>,
}

/// The look that was begun last; its channel closes when it is over.
#[derive(Debug)]
struct Look {
    begins: Instant,
    over: watch::Receiver<()>,
}

impl Refresher {
    pub(super) fn new(source: Arc<dyn IdentitySource>, identity: Snapshot<Identity>, metrics: Arc<Metrics>) -> Self {
        Self { source, identity, metrics, last: Mutex::default() }
    }

    /// Begins a look, or joins the one that is under way. Whether a newer identity came of it.
    pub(super) fn refresh(&self, tasks: &Tasks) -> impl Future<Output = bool> + Send + use<> {
        let seen = self.identity.generation();
        let mut over = self.join(tasks);
        let identity = self.identity.clone();
        async move {
            // It says nothing but that it ended.
            let _ = over.changed().await;
            identity.generation() > seen
        }
    }

    fn join(&self, tasks: &Tasks) -> watch::Receiver<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(look) = &*last
            && look.over.has_changed().is_ok()
        {
            self.metrics.runtime.identity_refresh(IdentityRefresh::Joined);
            return look.over.clone();
        }
        let begins = last.as_ref().map_or(now, |look| now.max(look.begins + PAUSE));
        let (ends, over) = watch::channel(());
        *last = Some(Look { begins, over: over.clone() });
        let (source, identity, metrics) = (Arc::clone(&self.source), self.identity.clone(), Arc::clone(&self.metrics));
        tasks.spawn("identity refresh", async move {
            let _ends = ends;
            sleep_until(begins).await;
            look(&*source, &identity, &metrics).await;
        });
        over
    }
}

async fn look(source: &dyn IdentitySource, identity: &Snapshot<Identity>, metrics: &Metrics) {
    let mut changes = identity.subscribe();
    let before = identity.generation();
    let in_time = tokio::select! {
        biased;
        () = source.refresh() => true,
        _ = changes.changed() => true,
        () = sleep(BOUND) => false,
    };
    let result = match in_time {
        _ if identity.generation() > before => IdentityRefresh::Renewed,
        true => IdentityRefresh::Unchanged,
        false => IdentityRefresh::TimedOut,
    };
    metrics.runtime.identity_refresh(result);
    match result {
        IdentityRefresh::TimedOut => tracing::warn!(waited = ?BOUND, "the source of identity did not look when asked"),
        _ => tracing::info!(result = result.as_str(), "the source of identity looked when asked"),
    }
}
