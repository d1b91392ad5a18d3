//! A request stream that ends with its permit, also for who reads it after the handler has answered, and whose trailers
//! claim nothing that only a head may say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use mesh_core::policy::canonical::is_forbidden_trailer;
use pin_project_lite::pin_project;

use super::exchange::Exchange;
use super::permit::{Cut, Recheck, revoked};
use crate::connection::Unfit;
use crate::reject::Reject;

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

/// Whether trailers hold a field that has no place there, or one that only a token's claims are written to.
fn claims(trailers: &HeaderMap, exchange: &Exchange) -> bool {
    let locations = exchange.revision.tokens.locations();
    trailers.keys().any(|name| is_forbidden_trailer(name.as_str()) || locations.is_output(name.as_str()))
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
            // What no request may have there comes over HTTP/2 only: of HTTP/1.1 the transport refuses the message.
            Poll::Ready(Some(Ok(frame))) if frame.trailers_ref().is_some_and(|it| claims(it, this.exchange)) => {
                this.exchange.set_unfit(Unfit::Trailer);
                cut(Reject::unfit(Unfit::Trailer).reason)
            }
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
