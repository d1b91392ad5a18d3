//! Whether a peer takes the response that it asked for.
//!
//! hyper waits for the window of an HTTP/2 stream without end, and asks the body for nothing meanwhile: nothing that we
//! hand to hyper would notice. So the bytes themselves count how many of them were taken, and the task that sends them is
//! given up when too few are. Dropping it resets the stream (CANCEL) and frees what was not sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use mesh_core::telemetry::Metrics;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Patience;
use super::sparing::Sparing;
use crate::Connection;

/// The end of a response is held back while more than this was not taken: what hyper has sent to its end is beyond reach.
const TAIL: usize = 16 * 1024;

tokio::task_local! {
    static FLOW: Arc<Flow>;
}

/// The bytes of one response that the peer has not taken. The lock is this stream's own.
#[derive(Debug)]
pub(super) struct Flow(Mutex<State>);

#[derive(Debug)]
struct State {
    outstanding: usize,
    patience: Patience,
    /// Who waits for the rest to be taken.
    waker: Option<Waker>,
}

impl Flow {
    /// The flow of the stream whose task this is.
    pub(super) fn current() -> Option<Arc<Self>> {
        FLOW.try_with(Arc::clone).ok()
    }

    /// Counts `bytes` until they are taken or dropped.
    pub(super) fn meter(self: &Arc<Self>, bytes: Bytes) -> Metered {
        let mut state = self.state();
        state.outstanding += bytes.len();
        if state.outstanding > 0 {
            state.patience.wait(Instant::now());
        }
        Metered { bytes, flow: Some(Arc::clone(self)) }
    }

    /// Whether so little is left that the response may end.
    pub(super) fn may_end(&self) -> bool {
        self.state().outstanding <= TAIL
    }

    /// Ready when so little is left that the response may end.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.outstanding <= TAIL {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn ends(&self) -> Option<Instant> {
        self.state().patience.ends()
    }

    fn taken(&self, bytes: usize) {
        let mut state = self.state();
        let now = Instant::now();
        state.outstanding = state.outstanding.saturating_sub(bytes);
        state.patience.moved(bytes, now);
        if state.outstanding > 0 {
            state.patience.wait(now);
        }
        if state.outstanding <= TAIL
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a response that tell when they are taken.
#[derive(Debug)]
pub(super) struct Metered {
    bytes: Bytes,
    flow: Option<Arc<Flow>>,
}

impl Metered {
    /// Bytes that nobody counts. (HTTP/1.1, whose bytes go straight to the socket)
    pub(super) fn uncounted(bytes: Bytes) -> Self {
        Self { bytes, flow: None }
    }
}

impl Buf for Metered {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        if let Some(flow) = &self.flow {
            flow.taken(bytes);
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(length);
        if let Some(flow) = &self.flow {
            flow.taken(length);
        }
        bytes
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow
            && self.bytes.has_remaining()
        {
            flow.taken(self.bytes.len());
        }
    }
}

/// Runs the tasks of HTTP/2 streams, and ends one whose peer takes nothing.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) send_timeout: Duration,
    pub(super) min_rate: u32,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refusals: Arc<Sparing>,
    pub(super) connection: Arc<Connection>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let patience = Patience::new(self.send_timeout, self.min_rate);
        let flow = Arc::new(Flow(Mutex::new(State { outstanding: 0, patience, waker: None })));
        tokio::spawn(Stream { stream: Some(stream), flow, timer: None, streams: self.clone() });
    }
}

pin_project! {
    /// One stream's task.
    struct Stream<F> {
        #[pin]
        stream: Option<F>,
        #[pin]
        timer: Option<Sleep>,
        flow: Arc<Flow>,
        streams: Streams,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if FLOW.sync_scope(Arc::clone(this.flow), || stream.poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        // Each byte that is taken moves the end away; the timer that was set for an earlier one asks again.
        while let Some(end) = this.flow.ends() {
            match this.timer.as_mut().as_pin_mut() {
                None => this.timer.set(Some(sleep_until(end))),
                Some(timer) if timer.is_elapsed() || end < timer.deadline() => timer.reset(end),
                Some(_) => {}
            }
            let Some(timer) = this.timer.as_mut().as_pin_mut() else { break };
            ready!(timer.poll(cx));
            let now = Instant::now();
            if this.flow.ends().is_some_and(|end| end <= now) {
                this.stream.set(None);
                this.streams.metrics.server.rejected("send_timeout");
                if let Some(left_out) = this.streams.refusals.line("send_timeout", now) {
                    let peer = this.streams.connection.peer();
                    let id = peer.svid.as_ref().map(|svid| svid.id.as_str());
                    tracing::warn!(address = %peer.address, id, left_out, "stream reset: the peer does not take its response");
                }
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
