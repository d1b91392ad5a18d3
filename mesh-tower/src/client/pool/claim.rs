//! A stream in use.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::oneshot;

use super::Shared;
use super::link::Link;
use crate::client::upload::Upload;

/// One stream of an HTTP/2 connection, which is given back when the answer and the request body have both ended.
pub(super) struct Claim {
    link: Arc<Link>,
    pool: Arc<Shared>,
}

impl Claim {
    /// Of a stream that was claimed from `link`.
    pub(super) fn new(link: Arc<Link>, pool: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { link, pool })
    }

    /// Shares the stream with a request body; whoever sends over what is returned gives the body up.
    pub(super) fn upload(self: &Arc<Self>) -> (oneshot::Sender<()>, Upload) {
        let claim: Arc<Self> = Arc::clone(self);
        Upload::new(claim)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.link.release();
        if self.pool.pending.load(SeqCst) > 0 {
            self.pool.wake.notify_one();
        }
    }
}
