//! Endpoints that somebody says, one set after the other.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use mesh_core::discover::{Endpoint, Resolve, Update, Updates};
use tokio::sync::mpsc;

/// Says it to whoever watches last, be it later.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    addresses: Vec<SocketAddr>,
    watcher: Option<mpsc::UnboundedSender<Update>>,
}

impl Announced {
    /// Adds these to those that were announced before.
    pub(super) fn announce(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let mut state = self.state();
        state.addresses.extend(addresses);
        state.say();
    }

    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn say(&self) {
        if let Some(watcher) = &self.watcher {
            // Nobody listens any more: the mesh is gone.
            let _ = watcher.send(Update::Endpoints(self.addresses.iter().copied().map(Endpoint::new).collect()));
        }
    }
}

impl Resolve for Announced {
    fn watch(&self) -> Updates {
        let (say, heard) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.watcher = Some(say);
        if !state.addresses.is_empty() {
            state.say();
        }
        Box::pin(Heard(heard))
    }
}

struct Heard(mpsc::UnboundedReceiver<Update>);

impl Stream for Heard {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        self.0.poll_recv(cx)
    }
}
