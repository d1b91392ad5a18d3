//! Hears a peer out before its connection is called broken.
//!
//! A server that refuses our certificate sends an alert and closes. If our next write is faster than our next read, all
//! that HTTP learns is a broken pipe, and of a failed write hyper does not even tell the error: a refused identity would
//! look like a flaky network. The alert is still there, because it came before the reset. So it is kept here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connect::BoxIo;
use crate::tls::alert_in;

/// What the peer said last, if it was a TLS alert.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<OnceLock<Arc<str>>>);

impl Heard {
    pub(super) fn alert(&self) -> Option<Arc<str>> {
        self.0.get().cloned()
    }

    fn note(&self, error: &io::Error) {
        if alert_in(error).is_some() {
            // The first alert is the reason.
            let _ = self.0.set(error.to_string().into());
        }
    }
}

/// A byte stream that notes the alert with which it ends.
#[derive(Debug)]
pub(super) struct LastWords {
    io: BoxIo,
    heard: Heard,
}

impl LastWords {
    pub(super) fn of(io: BoxIo) -> (Self, Heard) {
        let heard = Heard::default();
        (Self { io, heard: heard.clone() }, heard)
    }

    fn listen<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(error)) = &written {
            self.heard.note(error);
            // The connection is lost: data that still comes is nobody's.
            let mut scratch = [0; 256];
            let _ = self.as_mut().poll_read(cx, &mut ReadBuf::new(&mut scratch));
        }
        written
    }

    fn as_mut(&mut self) -> Pin<&mut Self> {
        Pin::new(self)
    }
}

impl AsyncRead for LastWords {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.heard.note(error);
        }
        read
    }
}

impl AsyncWrite for LastWords {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.listen(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.listen(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.listen(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
