//! Hears a peer out before its connection is called broken.
//!
//! A server that refuses our certificate sends an alert and closes. If our next write is faster than our next read, all
//! that HTTP learns is a broken pipe, and of a failed write hyper does not even tell the error: a refused identity would
//! look like a flaky network. The alert is still there, because it came before the reset. So a failed write waits until
//! the peer's last words are read, and they are kept here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::connect::BoxIo;
use crate::tls::{alert_in, refuses_certificate};

/// How long a failed write waits for the reason. A dead socket is readable at once; the reactor must only notice.
const LISTEN: Duration = Duration::from_millis(50);
/// Bytes that may come before the reason. They are not lost: a server may answer and close.
const MAX_UNREAD: usize = 64 * 1024;

/// What the peer said last, if it was a TLS alert.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<OnceLock<Alert>>);

#[derive(Debug, Clone)]
pub(super) struct Alert {
    pub(super) text: Arc<str>,
    /// It refuses our certificate.
    pub(super) refuses_us: bool,
}

impl Heard {
    pub(super) fn alert(&self) -> Option<Alert> {
        self.0.get().cloned()
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = alert_in(error) {
            // The first alert is the reason.
            let _ = self.0.set(Alert { text: error.to_string().into(), refuses_us: refuses_certificate(alert) });
        }
    }
}

/// Ends a byte stream under whoever holds it: hyper drives HTTP/2 in a task of its own, which goes on for open streams
/// when its connection is dropped.
#[derive(Debug)]
pub(super) struct Cut(oneshot::Sender<()>);

impl Cut {
    pub(super) fn now(self) {
        // An error says that the stream is gone already.
        let _ = self.0.send(());
    }
}

/// Tells when the peer's first bytes were read and acted upon: over HTTP/2 those are its settings. (RFC 9113 3.4)
#[derive(Debug)]
pub(super) struct FirstWords(oneshot::Receiver<()>);

impl FirstWords {
    /// Never, if the stream ended before it said anything.
    pub(super) async fn heard(self) {
        if self.0.await.is_err() {
            std::future::pending().await
        }
    }
}

/// A byte stream that notes the alert with which it ends.
#[derive(Debug)]
pub(super) struct LastWords {
    io: BoxIo,
    /// `None` once its first words are old.
    greeted: Option<oneshot::Sender<()>>,
    /// Whether bytes were read.
    spoken: bool,
    /// `None` when nobody can cut it any more.
    cut: Option<oneshot::Receiver<()>>,
    heard: Heard,
    /// A write has failed with this, and the reason may still come.
    failed: Option<(io::Error, Pin<Box<Sleep>>)>,
    /// What came after that.
    unread: BytesMut,
}

impl LastWords {
    pub(super) fn of(io: BoxIo) -> (Self, FirstWords, Heard, Cut) {
        let (heard, (cut, is_cut), (greeted, first)) = (Heard::default(), oneshot::channel(), oneshot::channel());
        let stream = Self {
            io,
            greeted: Some(greeted),
            spoken: false,
            cut: Some(is_cut),
            heard: heard.clone(),
            failed: None,
            unread: BytesMut::new(),
        };
        (stream, FirstWords(first), heard, Cut(cut))
    }

    /// Fails once it was cut.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(cut) = &mut self.cut else { return Ok(()) };
        match Pin::new(cut).poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(_)) => self.cut = None,
            Poll::Ready(Ok(())) => {
                let (cut, is_cut) = oneshot::channel();
                let _ = cut.send(()); // for who asks again
                self.cut = Some(is_cut);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// Writes, unless a write has failed already; then listens.
    fn poll_out<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut BoxIo>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.failed.is_none() {
            match write(Pin::new(&mut self.io), cx) {
                Poll::Ready(Err(error)) => {
                    self.heard.note(&error);
                    self.failed = Some((error, Box::pin(sleep(LISTEN))));
                }
                written => return written,
            }
        }
        let silent = self.poll_silent(cx);
        match self.failed.take() {
            Some((error, _)) if silent => Poll::Ready(Err(error)),
            failed => {
                self.failed = failed;
                Poll::Pending
            }
        }
    }

    /// Whether the peer has nothing more to say, or takes too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> bool {
        while self.unread.len() < MAX_UNREAD && self.heard.alert().is_none() {
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.io).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(())) if !chunk.filled().is_empty() => self.unread.extend_from_slice(chunk.filled()),
                Poll::Ready(Ok(())) => return true,
                Poll::Ready(Err(error)) => {
                    self.heard.note(&error);
                    return true;
                }
                Poll::Pending => {
                    return self.failed.as_mut().is_none_or(|(_, end)| end.as_mut().poll(cx).is_ready());
                }
            }
        }
        true
    }
}

impl AsyncRead for LastWords {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.get(..count).unwrap_or_default());
            self.unread.advance(count);
            return Poll::Ready(Ok(()));
        }
        // Whoever reads on has acted upon what it read before.
        if self.spoken
            && let Some(greeted) = self.greeted.take()
        {
            let _ = greeted.send(());
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) => self.spoken |= !buf.filled().is_empty(),
            Poll::Ready(Err(error)) => self.heard.note(error),
            Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for LastWords {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// A stream that takes no byte and says what the test sends.
    #[derive(Debug)]
    struct Dead(mpsc::UnboundedReceiver<io::Result<&'static [u8]>>);

    impl AsyncRead for Dead {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0.poll_recv(cx).map(|said| said.map_or(Ok(()), |said| said.map(|bytes| buf.put_slice(bytes))))
        }
    }

    impl AsyncWrite for Dead {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn alert() -> io::Error {
        io::Error::other(rustls::Error::AlertReceived(AlertDescription::CertificateUnknown))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_waits_for_the_reason_and_loses_nothing() {
        let (say, said) = mpsc::unbounded_channel();
        let (mut stream, _, heard, _) = LastWords::of(Box::new(Dead(said)));
        let peer = async {
            sleep(LISTEN / 2).await;
            say.send(Ok(b"answer".as_slice())).unwrap();
            say.send(Err(alert())).unwrap();
        };
        let (written, ()) = tokio::join!(stream.write(b"x"), peer);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(heard.alert().unwrap().text.contains("CertificateUnknown"));
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_does_not_wait_long_nor_for_a_peer_that_has_ended() {
        for (ended, waits) in [(true, Duration::ZERO), (false, LISTEN)] {
            let (say, said) = mpsc::unbounded_channel();
            let (mut stream, _, heard, _) = LastWords::of(Box::new(Dead(said)));
            let _say = (!ended).then_some(say);
            let start = Instant::now();
            stream.write(b"x").await.unwrap_err();
            assert!(start.elapsed() >= waits && start.elapsed() < waits + Duration::from_millis(5), "{ended}");
            assert!(heard.alert().is_none());
        }
    }
}
