//! What becomes of an endpoint whose connections fail or end, and how it comes back by itself.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mesh_core::retry::Reconnects;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::ConnectFailure;
use tokio::time::Instant;

use super::Shared;
use super::link::{End, Failure, Link};
use crate::error::ErrorKind;

impl Shared {
    /// Whether a request can be taken, after one connect where there was none: that of a request under way will do.
    async fn comes_back(self: &Arc<Self>) -> bool {
        let mut woken = pin!(self.wake.notified());
        woken.as_mut().enable();
        let under_way = {
            let mut lists = self.lock();
            if lists.serves() {
                return true;
            }
            let under_way = lists.connecting > 0;
            lists.connecting += usize::from(!under_way);
            under_way
        };
        if !under_way {
            return self.connect_counted().await.is_some();
        }
        woken.await;
        self.lock().serves()
    }

    /// A connect failed that was begun in this round, or a connection broke before it carried one answer.
    pub(super) fn failed(self: &Arc<Self>, failure: Failure, round: u64) {
        tracing::debug!(endpoint = %self.address, error = %failure.message, "connect failed");
        let alone = {
            let mut lists = self.lock();
            if lists.round == round {
                lists.failures = lists.failures.saturating_add(1);
                lists.round += 1;
            }
            lists.failed_at = Some(Instant::now());
            lists.failure = Some(failure);
            !lists.serves()
        };
        if alone {
            self.readiness.unready();
            self.eased.notify_waiters();
            self.reconnect();
        }
    }

    /// A connection carried its first answer.
    pub(super) fn proven(&self) {
        let mut lists = self.lock();
        lists.failures = 0;
        lists.failure = None;
        lists.failed_at = None;
    }

    /// A connection ended; `expected` if we wanted it to.
    pub(super) fn lost(self: &Arc<Self>, link: &Link, end: &End, expected: bool) {
        self.remove(link);
        if !expected {
            let cause = end.error.as_deref().unwrap_or("closed by the peer");
            tracing::debug!(endpoint = %self.address, %cause, "connection lost");
            // A server that goes away in good order while it works on our first request has accepted us.
            let working = end.error.is_none() && link.open() > 0;
            if link.is_spare() {
                // Most often it has grown too old for the server, which then cuts it.
                if self.lock().alive.is_empty() && self.used_within(self.context.settings.load().idle_timeout) {
                    self.reconnect();
                }
            } else if !link.is_proven() && !working {
                // It took the handshake and then hung up on us.
                let (kind, counted) = if end.refused_us {
                    (ErrorKind::PeerIdentity, ConnectFailure::Identity)
                } else {
                    (ErrorKind::Connect, ConnectFailure::Http)
                };
                self.context.metrics.connections_failed.inc(counted);
                self.failed(Failure::new(kind, counted, cause), link.round);
            } else if self.lock().alive.is_empty() {
                if end.error.is_some() {
                    self.readiness.unready();
                }
                if end.error.is_some() || self.used_within(self.context.settings.load().idle_timeout) {
                    self.reconnect();
                }
            }
        }
        self.wake.notify_waiters();
    }

    /// Tries to connect until it succeeds, in the background, so that an endpoint returns by itself.
    fn reconnect(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().reconnecting, true) || self.closed.load(Relaxed) {
            return;
        }
        let (weak, reconnects) = (Arc::downgrade(self), Reconnects::new(&self.context.rng));
        tokio::spawn(async move {
            loop {
                let Some(pool) = weak.upgrade() else { return };
                let wait = reconnects.wait(pool.lock().failures);
                let changes = pool.context.identity.as_ref().map(Snapshot::subscribe);
                drop(pool);
                // A newer identity may be what was missing: here, or where the same authority serves the peer.
                let renewed = async {
                    match changes {
                        Some(mut changes) => drop(changes.changed().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = renewed => {}
                }
                let Some(pool) = weak.upgrade() else { return };
                if pool.closed.load(Relaxed) {
                    return;
                }
                if pool.comes_back().await {
                    let mut lists = pool.lock();
                    // It may be gone again already, and then `failed` found this task still running.
                    if !lists.alive.is_empty() {
                        lists.reconnecting = false;
                        return;
                    }
                }
            }
        });
    }
}
