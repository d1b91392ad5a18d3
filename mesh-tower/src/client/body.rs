//! The response body, which keeps what the request holds until the last byte.
//!
//! Load, streams and connections are in use until the body ends, not until its headers arrive: released at the
//! headers, a slow stream would count as no load at all. So the body carries the guards of every layer that must know
//! its end, and tells them how it came: complete, broken, or dropped by the caller.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use mesh_core::health::Outcome;
use tokio::time::{Instant, Sleep};

use super::counting::CallGuard;
use super::in_flight::InFlight;
use super::pool::Lease;
use crate::classify::{self, Class};
use crate::error::{BoxError, Error, ErrorKind};

/// A response body.
///
/// Dropping it early cancels the stream and frees all that it held; a request body that is still under way is dropped too.
/// One that is still under way after the end of the answer goes on, and keeps its stream in use. The default is an empty body.
#[derive(Default)]
pub struct Body {
    source: Source,
    peeked: Option<Frame<Bytes>>,
    grpc: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Option<Idle>,
    guards: Guards,
}

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Incoming(Incoming),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

/// How long the stream may be silent, and since when it is.
struct Idle {
    timeout: Duration,
    since: Option<Instant>,
    /// Made when the stream is first waited for, and set anew only when it rings: not once for each chunk.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// Nothing has come: ready if that is so for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let end = *self.since.get_or_insert(now) + self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if end <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

#[derive(Default)]
struct Guards {
    attempt: Option<InFlight>,
    call: Option<CallGuard>,
    // Last: the stream is given back after everybody else was told.
    lease: Option<Lease>,
}

impl Body {
    /// A body of another make, for hand-made stacks and tests.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        Self { source: Source::Boxed(super::request_body::boxed(body)), ..Self::default() }
    }

    pub(crate) fn incoming(body: Incoming, lease: Lease) -> Self {
        let idle = lease.stream_idle_timeout().map(|timeout| Idle { timeout, since: None, timer: None });
        let mut this = Self { source: Source::Incoming(body), idle, ..Self::default() };
        this.guards.lease = Some(lease);
        this
    }

    /// Lets the pick know of the end.
    pub(crate) fn guard_attempt(&mut self, attempt: InFlight, grpc: bool) {
        self.grpc = grpc;
        self.guards.attempt = Some(attempt);
        self.settle_if_ended();
    }

    /// Lets telemetry know of the end.
    pub(crate) fn guard_call(&mut self, call: CallGuard) {
        self.guards.call = Some(call);
        self.settle_if_ended();
    }

    /// Fails the body when `deadline` passes before its end.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        if !http_body::Body::is_end_stream(self) {
            self.deadline = Some(Box::pin(tokio::time::sleep_until(deadline)));
        }
    }

    /// Reads the first frame and puts it back. `Some` if it is gRPC's trailers, which then are the whole answer.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Class>, Error>> {
        if self.peeked.is_none() {
            match std::task::ready!(http_body::Body::poll_frame(Pin::new(self), cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => self.peeked = Some(frame),
            }
        }
        Poll::Ready(Ok(self.peeked.as_ref().and_then(Frame::trailers_ref).map(classify::trailers)))
    }

    /// The gRPC status among the trailers that were peeked at.
    pub(crate) fn peeked_status(&self) -> Option<crate::grpc::Code> {
        self.peeked_trailers().and_then(crate::grpc::status)
    }

    /// The trailers that were peeked at.
    pub(crate) fn peeked_trailers(&self) -> Option<&HeaderMap> {
        self.peeked.as_ref().and_then(Frame::trailers_ref)
    }

    /// The body ended; `trailers` if it had any.
    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        self.complete();
        let class = match (self.grpc, trailers) {
            (false, _) => None,
            (true, Some(trailers)) => Some(classify::trailers(trailers)),
            (true, None) => Some(classify::no_trailers()),
        };
        self.settle(class.map(|class| class.outcome));
    }

    /// The stream ended by itself: letting go of it resets nothing.
    fn complete(&mut self) {
        if let Some(lease) = &mut self.guards.lease {
            lease.complete();
        }
    }

    /// The stream broke off: there is nothing to reset.
    fn broken(&mut self) {
        if let Some(lease) = &mut self.guards.lease {
            lease.broken();
        }
    }

    /// Tells every guard how it ended, `None` being as the headers said, and lets go of all.
    fn settle(&mut self, outcome: Option<Outcome>) {
        let guards = std::mem::take(&mut self.guards);
        if let Some(attempt) = guards.attempt {
            attempt.finish(outcome, Instant::now());
        }
        if let Some(call) = guards.call {
            call.finish(outcome);
        }
        drop(guards.lease);
        self.deadline = None;
        self.idle = None;
    }

    /// A reader that trusts `is_end_stream` never polls for the end.
    fn settle_if_ended(&mut self) {
        // gRPC always has trailers to come, unless it was trailers-only, which the pick knows from the headers.
        if self.peeked.is_none() && self.source.is_end_stream() {
            self.complete();
            self.settle(None);
        }
    }

    /// The deadline has passed, which is a caller's own: the endpoint has answered, and how long its answer may be, or its reader
    /// takes, is no fault of it. (Envoy counts no timeout after headers either)
    fn fail_late(&mut self) -> Error {
        if let Some(attempt) = self.guards.attempt.take() {
            attempt.finish(Some(Outcome::Cancelled), Instant::now());
        }
        self.fail(Outcome::Timeout);
        Error::new(ErrorKind::Timeout, "the deadline passed before the response body ended")
    }

    fn fail(&mut self, outcome: Outcome) {
        self.source = Source::Empty;
        self.settle(Some(outcome));
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Incoming(body) => {
                http_body::Body::poll_frame(Pin::new(body), cx).map(|frame| frame.map(|f| f.map_err(Into::into)))
            }
            Self::Boxed(body) => http_body::Body::poll_frame(Pin::new(body), cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(body) => http_body::Body::is_end_stream(body),
            Self::Boxed(body) => http_body::Body::is_end_stream(body),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(body) => http_body::Body::size_hint(body),
            Self::Boxed(body) => http_body::Body::size_hint(body),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(frame) = this.peeked.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Poll::Ready(frame) = this.source.poll_frame(cx) else {
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Some(Err(this.fail_late())));
            }
            if let Some(idle) = &mut this.idle
                && idle.poll_silent(cx).is_ready()
            {
                let message = format!("the response body was silent for {:?} (pool.stream_idle_timeout)", idle.timeout);
                this.fail(Outcome::Timeout);
                return Poll::Ready(Some(Err(Error::new(ErrorKind::Timeout, message))));
            }
            return Poll::Pending;
        };
        if let Some(idle) = &mut this.idle {
            idle.since = None;
        }
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.ended(Some(trailers));
                } else if this.source.is_end_stream() {
                    this.ended(None);
                } else if this.deadline.as_ref().is_some_and(|deadline| deadline.deadline() <= Instant::now()) {
                    return Poll::Ready(Some(Err(this.fail_late())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(source)) => {
                this.broken();
                this.fail(Outcome::Unreachable);
                let error = Error::new(ErrorKind::Body, "the response body broke off").caused_by(source);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.ended(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.peeked.is_none() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.source.size_hint();
        let peeked = self.peeked.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(peeked + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(peeked + upper);
        }
        hint
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("ended", &http_body::Body::is_end_stream(self)).finish_non_exhaustive()
    }
}
