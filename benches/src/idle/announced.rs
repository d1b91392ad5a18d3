//! Endpoints that somebody says, one set after the other.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use mesh_core::discover::{Endpoint, Resolve, Update, Updates};
use tokio::sync::mpsc;

/// Says it to whoever watches last.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced(Arc<Mutex<Option<mpsc::UnboundedSender<Update>>>>);

impl Announced {
    pub(super) fn announce(&self, addresses: impl Iterator<Item = SocketAddr>) {
        if let Some(watcher) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody listens any more: the mesh is gone.
            let _ = watcher.send(Update::Endpoints(addresses.map(Endpoint::new).collect()));
        }
    }

    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(self.clone())
    }
}

impl Resolve for Announced {
    fn watch(&self) -> Updates {
        let (say, heard) = mpsc::unbounded_channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(say);
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
