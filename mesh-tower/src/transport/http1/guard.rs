//! The byte stream below hyper, with nothing in it that has two readings.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, Limits, REFUSED_BODY, REFUSED_HEAD};
use super::verdict::Verdict;

/// What is read and thrown away behind a refused message, so that closing does not destroy the answer on its way. (The
/// kernel resets a connection that is closed with unread bytes.)
const MAX_LINGER: usize = 256 * 1024;

/// Passes what [`Framing`] passes. A head that comes in one piece is neither copied nor allocated for.
#[derive(Debug)]
pub(in crate::transport) struct Guard<Io> {
    io: Io,
    framing: Framing,
    verdict: Arc<Verdict>,
    /// Bytes that hyper may not have yet, behind `ready` bytes that did not fit into its buffer. At most a head and
    /// what came with its last piece.
    held: BytesMut,
    ready: usize,
    /// How much may still be thrown away, once a message was refused.
    linger: Option<usize>,
}

impl<Io> Guard<Io> {
    pub(in crate::transport) fn new(io: Io, max: Limits, verdict: Arc<Verdict>) -> Self {
        let framing = Framing::new(max);
        Self { io, framing, verdict, held: BytesMut::new(), ready: 0, linger: None }
    }

    /// Judges what was read into `buf` from `start` on, and leaves there what may pass.
    fn judge(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let new = buf.filled().get(start..).unwrap_or_default();
        if self.held.is_empty() {
            let step = self.framing.read(new);
            if let Some(kept) = new.get(step.passed..)
                && step.refused.is_none()
            {
                self.held.extend_from_slice(kept);
            }
            buf.set_filled(start + step.passed);
            self.settle(step.refused);
        } else {
            self.held.extend_from_slice(new);
            buf.set_filled(start);
            let step = self.framing.read(&self.held);
            self.ready = step.passed;
            if step.refused.is_some() {
                self.held.truncate(step.passed);
            }
            self.settle(step.refused);
        }
    }

    fn settle(&mut self, refused: Option<super::framing::Refused>) {
        let Some(refused) = refused else { return };
        self.verdict.refuse(refused);
        self.held.extend_from_slice(if refused.head.is_some() { REFUSED_HEAD } else { REFUSED_BODY });
        self.ready = self.held.len();
        self.linger = Some(MAX_LINGER);
    }

    /// Gives hyper what is ready. Whether that was anything.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let now = self.ready.min(buf.remaining());
        buf.put_slice(self.held.get(..now).unwrap_or_default());
        self.held.advance(now);
        self.ready -= now;
        if self.held.is_empty() {
            self.held = BytesMut::new(); // idle connections hold no memory
        }
        now > 0
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guard<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.linger == Some(0) {
                return Poll::Pending; // hyper is closing, and the connection's lifetime sees to it
            }
            let start = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let read = buf.filled().len() - start;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(left) = &mut this.linger {
                *left = left.saturating_sub(read);
                buf.set_filled(start);
                continue;
            }
            this.judge(buf, start);
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Guard<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
