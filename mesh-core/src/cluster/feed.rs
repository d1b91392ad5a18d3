//! From a resolver's stream into a cluster.

use std::future::poll_fn;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Core;
use crate::discover::{Resolve, Update};
use crate::telemetry::DiscoveryEvent;

/// See [`Cluster::follow`](super::Cluster::follow).
pub(super) async fn follow<T: Send + Sync + 'static>(
    core: Weak<Core<T>>,
    mut alive: watch::Receiver<bool>,
    resolver: Arc<dyn Resolve>,
) {
    let mut updates = resolver.watch();
    loop {
        let next = tokio::select! {
            biased;
            () = dropped(&mut alive) => None,
            update = poll_fn(|context| updates.as_mut().poll_next(context)) => update,
        };
        let (Some(update), Some(core)) = (next, core.upgrade()) else { return };
        core.apply(update, Instant::now());
    }
}

/// Waits until the cluster's own side of the channel is gone.
async fn dropped(alive: &mut watch::Receiver<bool>) {
    while alive.changed().await.is_ok() {}
}

impl<T: Send + Sync + 'static> Core<T> {
    fn apply(self: &Arc<Self>, update: Update, now: Instant) {
        let (cluster, held) = (&*self.name, self.set.load().states.len());
        let event = match update {
            Update::Endpoints(endpoints) if endpoints.is_empty() && held > 0 => {
                tracing::warn!(
                    cluster,
                    held,
                    "discovery knows no endpoint any more; the last good set stays in force until it does, or until the \
                     service is gone for good"
                );
                DiscoveryEvent::EmptyHeld
            }
            Update::Endpoints(endpoints) => {
                tracing::debug!(cluster, endpoints = endpoints.len(), "endpoints replaced");
                self.update(endpoints, now);
                DiscoveryEvent::Applied
            }
            Update::Stale(error) => {
                tracing::warn!(cluster, held, %error, "discovery cannot be read; the last good set stays in force");
                DiscoveryEvent::Stale
            }
            Update::Gone => {
                tracing::warn!(cluster, held, "the service is gone; the cluster is empty now");
                self.update(Vec::new(), now);
                DiscoveryEvent::Gone
            }
        };
        self.metrics.discovery.inc(event);
        let stale = matches!(event, DiscoveryEvent::Stale | DiscoveryEvent::EmptyHeld);
        self.metrics.stale.set(i64::from(stale));
    }
}
