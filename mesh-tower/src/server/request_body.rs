//! A request stream that ends with its permit, also for who reads it after the handler has answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Exchange;
use super::permit::{Cut, Recheck, revoked};

pin_project! {
    /// The body of a request that has not come in full.
    pub(super) struct RequestBody {
        #[pin]
        inner: Body,
        recheck: Recheck,
        exchange: Arc<Exchange>,
        // To be told when the body has come in full.
        read: Option<Arc<AtomicBool>>,
    }
}

impl RequestBody {
    pub(super) fn new(inner: Body, exchange: Arc<Exchange>, read: Option<Arc<AtomicBool>>) -> Self {
        Self { inner, recheck: Recheck::default(), exchange, read }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    // As it came, so that axum finds what it looks for among the causes.
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let cut = |reason| Poll::Ready(Some(Err(Cut(reason).into())));
        if let Some(reject) = revoked(this.exchange) {
            return cut(reject.reason);
        }
        match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(read) = this.read
                    && (frame.is_none() || this.inner.is_end_stream())
                {
                    read.store(true, Relaxed);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::into_inner)))
            }
            Poll::Pending => match this.recheck.poll_revoked(this.exchange, cx) {
                Some(reject) => cut(reject.reason),
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
