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
        let (cluster, held) = (&*self.shared.name, self.set.load().members.states.len());
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
        self.shared.metrics.discovery.inc(event);
        let stale = matches!(event, DiscoveryEvent::Stale | DiscoveryEvent::EmptyHeld);
        self.shared.metrics.stale.set(i64::from(stale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, PickError, Tried, tests::config};
    use crate::discover::{Endpoint, ResolveError, Updates};
    use crate::rng::Rng;
    use crate::stream::unfold;
    use crate::telemetry::DiscoveryEvent::{Applied, EmptyHeld, Gone, Stale};
    use std::sync::Mutex;
    use tokio::sync::mpsc;

    #[derive(Debug)]
    struct Scripted(Mutex<Option<mpsc::UnboundedReceiver<Update>>>);

    impl Resolve for Scripted {
        fn watch(&self) -> Updates {
            let receiver = self.0.lock().unwrap().take().unwrap();
            unfold(receiver, |mut receiver| async move {
                let update = match receiver.recv().await {
                    Some(update) => update,
                    None => std::future::pending().await,
                };
                (update, receiver)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_service_that_is_gone_is_emptied_and_the_task_ends_with_the_cluster() {
        let cluster = Cluster::new("payments", &config(), Rng::seeded(1), Arc::default(), |_, _| ());
        let (say, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(cluster.follow(Arc::new(Scripted(Mutex::new(Some(receiver))))));
        let one = || vec![Endpoint::new(([127, 0, 0, 1], 1).into())];
        let stale = || Update::Stale(ResolveError("no such file".into()));
        let steps = [
            (stale(), Stale, 0, 1, Some(PickError::Unresolved)),
            (Update::Endpoints(one()), Applied, 1, 0, None),
            (stale(), Stale, 1, 1, None),
            (Update::Endpoints(Vec::new()), EmptyHeld, 1, 1, None),
            (Update::Endpoints(one()), Applied, 1, 0, None),
            (Update::Gone, Gone, 0, 0, Some(PickError::Empty)),
            (Update::Endpoints(Vec::new()), Applied, 0, 0, Some(PickError::Empty)),
        ];
        for (update, event, known, is_stale, error) in steps {
            let metrics = cluster.metrics();
            let before = metrics.discovery.count(event);
            say.send(update).unwrap();
            while metrics.discovery.count(event) == before {
                tokio::task::yield_now().await;
            }
            assert_eq!((cluster.endpoints().len(), metrics.stale.get()), (known, is_stale), "{event:?}");
            assert_eq!(cluster.pick(&Tried::default(), Instant::now()).err(), error, "{event:?}");
        }
        drop(cluster);
        task.await.unwrap();
    }
}
