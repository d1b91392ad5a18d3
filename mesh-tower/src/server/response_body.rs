//! What holds for a request until the last byte of its response.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::deadline::expiry;
use super::flight::Flight;
use super::handler::PANICKED;
use super::permit::{Cut, Recheck, revoked, revoked_by_policy};
use crate::grpc::{self, Code};
use crate::reject::Reject;

pin_project! {
    /// The handler's body: polled in its request's context, cut at the deadline of a gRPC call, at a panic, and when its permit is
    /// revoked. The only box that the stack adds to a response.
    pub(super) struct ResponseBody {
        #[pin]
        inner: Body,
        #[pin]
        expiry: Option<Sleep>,
        recheck: Recheck,
        // What is complete may be sent to its end though its caller's token has ended.
        streaming: bool,
        // `None` once the body has ended.
        flight: Option<Flight>,
    }
}

impl ResponseBody {
    pub(super) fn new(inner: Body, flight: Flight) -> Self {
        // `grpc-timeout` covers the whole call; what HTTP callers send, the response head.
        let context = flight.exchange.context().filter(|_| flight.exchange.grpc);
        let deadline = context.and_then(|context| context.deadline());
        let streaming = inner.size_hint().exact().is_none();
        Self { inner, expiry: expiry(deadline), recheck: Recheck::default(), streaming, flight: Some(flight) }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        let Some(flight) = this.flight else { return Poll::Ready(None) };
        let exchange = &flight.exchange;
        let ended = if *this.streaming { revoked(exchange) } else { revoked_by_policy(exchange) };
        if let Some(reject) = ended {
            return cut(this.flight, reject.code(), reject.reason);
        }
        // First, because a body that always has a frame ready would never come to it.
        if this.expiry.as_pin_mut().is_some_and(|expiry| expiry.poll(cx).is_ready()) {
            return cut(this.flight, Code::DEADLINE_EXCEEDED, "deadline_exceeded");
        }
        let inner = this.inner;
        let poll = || catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx)));
        let polled = match exchange.context() {
            Some(context) => context.sync_scope(poll),
            None => poll(),
        };
        if matches!(polled, Ok(Poll::Pending | Poll::Ready(Some(Err(_)))))
            && exchange.rejected().is_none()
            && let Some(unfit) = exchange.unfit()
        {
            let reject = Reject::unfit(unfit);
            return cut(this.flight, reject.code(), reject.reason);
        }
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    flight.trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(end)) => {
                *this.flight = None;
                Poll::Ready(end)
            }
            Ok(Poll::Pending) => match this.recheck.poll_revoked(exchange, cx) {
                Some(reject) => cut(this.flight, reject.code(), reject.reason),
                None => Poll::Pending,
            },
            Err(_) => {
                exchange.mesh.metrics().server.panics.inc();
                cut(this.flight, Code::INTERNAL, PANICKED.reason)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flight.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Ends a response early: a gRPC call with its status, an HTTP response with an error, so that nobody takes it for
/// complete.
fn cut(
    flight: &mut Option<Flight>,
    code: Code,
    reason: &'static str,
) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
    let Some(mut flight) = flight.take() else { return Poll::Ready(None) };
    flight.exchange.cut(reason);
    if !flight.exchange.grpc {
        return Poll::Ready(Some(Err(axum::Error::new(Cut(reason)))));
    }
    let trailers = grpc::trailers(code, "");
    flight.trailers(&trailers);
    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
}
