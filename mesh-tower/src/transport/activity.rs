//! Whether a connection is doing anything, as its lifetime needs to know.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use axum::body::Body;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::flow::{Flow, Metered};
use super::pace::Patience;
use super::peers::Resets;
use crate::empty::poll_filled;

/// Requests in flight on one connection, and since when there is none. The lock is this connection's own.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Whether the next response shall be the last. (HTTP/1.1)
    leaving: AtomicBool,
    /// Where requests that the peer gives up are counted. (HTTP/2)
    resets: Option<Arc<Resets>>,
}

#[derive(Debug)]
struct State {
    quiet: Quiet,
    /// Responses that were sent to their end and have not earned the peer anything yet.
    finished: u64,
    /// For a socket that takes nothing.
    sending: Patience,
    /// The connection has ended: what is given up now, nobody cancelled.
    over: bool,
    /// Who drives the connection.
    driver: Option<Waker>,
}

/// What a connection was doing at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quiet {
    /// Requests whose response has not been sent to its end.
    pub(super) in_flight: usize,
    /// Whether there ever was a request.
    pub(super) served: bool,
    /// When the last request, or the handshake, ended.
    pub(super) since: Instant,
    /// When the first byte of a request head came that is not complete yet. (HTTP/1.1)
    pub(super) head_since: Option<Instant>,
    /// Whether the peer has cancelled more requests than it may.
    pub(super) overdrawn: bool,
    /// When a socket that takes nothing has been waited for long enough.
    pub(super) sent_by: Option<Instant>,
}

impl Quiet {
    pub(super) fn new(since: Instant) -> Self {
        Self { in_flight: 0, served: false, since, head_since: None, overdrawn: false, sent_by: None }
    }
}

impl Activity {
    pub(super) fn new(now: Instant, sending: Patience, resets: Option<Arc<Resets>>) -> Arc<Self> {
        let state = State { quiet: Quiet::new(now), finished: 0, sending, over: false, driver: None };
        Arc::new(Self { state: Mutex::new(state), leaving: AtomicBool::new(false), resets })
    }

    /// What it is doing now. Wakes `cx` when that needs a new verdict before the connection itself wakes it.
    pub(super) fn watch(&self, cx: &mut Context<'_>) -> Quiet {
        let mut state = self.state();
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        state.quiet
    }

    /// From now on every response says that it is the last.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.state().over = true;
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let quiet = &mut self.state().quiet;
        quiet.in_flight += 1;
        quiet.served = true;
        quiet.head_since = None;
        InFlight { activity: Arc::clone(self), finished: false }
    }

    /// What came of writing: bytes that went, or a socket that takes none.
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        let mut state = self.state();
        match polled {
            Poll::Ready(Ok(bytes)) => state.sending.moved(*bytes, Instant::now()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                state.sending.wait(Instant::now());
            }
        }
        state.quiet.sent_by = state.sending.ends();
    }

    fn bytes_arrived(&self) {
        let quiet = &mut self.state().quiet;
        if quiet.in_flight == 0 && quiet.head_since.is_none() {
            quiet.head_since = Some(Instant::now());
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight, until its response has been sent or dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    finished: bool,
}

impl InFlight {
    /// Whether its connection waits only for its end.
    pub(super) fn is_last(&self) -> bool {
        self.activity.leaving.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.activity.state();
        state.quiet.in_flight -= 1; // `begin` added it
        state.quiet.since = now;
        let Some(resets) = &self.activity.resets else { return };
        if self.finished {
            state.finished += 1;
        } else if !state.over && !resets.spend(std::mem::take(&mut state.finished), now) {
            state.quiet.overdrawn = true;
            if let Some(driver) = state.driver.take() {
                driver.wake();
            }
        }
    }
}

/// A response body that keeps its request in flight, and whose bytes count whether they are taken.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    in_flight: InFlight,
    /// HTTP/2: the bytes that were not taken.
    flow: Option<Arc<Flow>>,
    /// The last frame, once the body has come to its end: held back until all but a tail was taken.
    last: Option<Option<Frame<Metered>>>,
}

impl Tracked {
    pub(super) fn new(body: Body, mut in_flight: InFlight, flow: Option<Arc<Flow>>) -> Self {
        in_flight.finished = body.is_end_stream();
        Self { body, in_flight, flow, last: None }
    }
}

impl http_body::Body for Tracked {
    type Data = Metered;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.last.is_none() {
            match ready!(poll_filled(cx, |cx| Pin::new(&mut self.body).poll_frame(cx))) {
                Some(Ok(frame)) => {
                    let frame = frame.map_data(|bytes| match &self.flow {
                        Some(flow) => flow.meter(bytes),
                        None => Metered::uncounted(bytes),
                    });
                    if frame.is_data() {
                        self.in_flight.finished = self.is_end_stream();
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    self.last = Some(Some(frame));
                }
                Some(Err(error)) => {
                    self.in_flight.finished = true; // this side's doing
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.last = Some(None),
            }
        }
        if let Some(flow) = &self.flow {
            ready!(flow.poll_taken(cx));
        }
        self.in_flight.finished = true;
        Poll::Ready(self.last.as_mut().and_then(Option::take).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream() && self.flow.as_ref().is_none_or(|flow| flow.may_end())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// So many reads in a row, and others have their turn: a flood of small frames is one long read to hyper.
const READS: u8 = 16;

/// Notes when the bytes of a request head begin to come (HTTP/1.1), and whether the socket takes what is written.
///
/// hyper's own header timer also runs while a kept-alive connection waits, so it cannot tell a slow head from an idle
/// connection.
#[derive(Debug)]
pub(super) struct Watched<Io> {
    io: Io,
    heads: bool,
    reads: u8,
    activity: Arc<Activity>,
}

impl<Io> Watched<Io> {
    /// `heads`: reads while no request is in flight begin one.
    pub(super) fn new(io: Io, heads: bool, activity: Arc<Activity>) -> Self {
        Self { io, heads, reads: 0, activity }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.reads >= READS {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.reads = if polled.is_pending() { 0 } else { self.reads + 1 };
        if self.heads && buf.filled().len() > before {
            self.activity.bytes_arrived();
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.activity.wrote(&if polled.is_ready() { Poll::Ready(Ok(0)) } else { Poll::Pending });
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
