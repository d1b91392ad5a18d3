//! How a client comes in: by TLS, or, where a listener is permissive, in plaintext.
//!
//! A strict listener reads nothing but TLS. A permissive one looks at the first byte: a TLS handshake begins with 0x16,
//! which no HTTP request does, so nobody is judged by what he claims to speak.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Version;
use mesh_core::config::{ListenerConfig, Mtls, TlsVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::drive::stopping;
use super::ground::Shared;
use super::half_open::Place;
use super::handshake::{Unfinished, judge};
use crate::tls::{HandshakeRefused, VerifiedPeer};

/// The type of the TLS record that begins a handshake. (RFC 8446 5.1)
const TLS_HANDSHAKE: u8 = 0x16;
/// What an HTTP/2 client says first. (RFC 9113 3.4)
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that may now send requests.
pub(super) struct Entered<Io> {
    pub(super) stream: Stream<Io>,
    /// `None` for plaintext: nobody proved anything.
    pub(super) peer: Option<VerifiedPeer>,
    pub(super) http: Version,
}

impl<Io> Entered<Io> {
    /// How it is counted.
    pub(super) fn security(&self) -> &'static str {
        match &self.peer {
            None => "plaintext",
            Some(VerifiedPeer { version: TlsVersion::V1_2, resumed: false, .. }) => "tls12",
            Some(VerifiedPeer { version: TlsVersion::V1_2, resumed: true, .. }) => "tls12_resumed",
            Some(VerifiedPeer { resumed: false, .. }) => "tls13",
            Some(VerifiedPeer { resumed: true, .. }) => "tls13_resumed",
        }
    }
}

/// Lets a client in by what it begins with, within all limits of a handshake.
///
/// Fails closed: whoever begins with TLS is judged by its certificate, on every listener.
pub(super) async fn enter<Io>(
    io: Io,
    address: IpAddr,
    config: &ListenerConfig,
    shared: &Shared,
    place: &Place,
    evicted: oneshot::Receiver<()>,
    stop: &mut watch::Receiver<bool>,
) -> Result<Entered<Io>, Unfinished>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    // Boxed, so that what only the handshake needs is given back with it.
    let judged = timeout(config.handshake_timeout, Box::pin(told(io, address, config, shared, place)));
    tokio::select! {
        biased;
        judged = judged => judged.unwrap_or(Err(Unfinished::Timeout(config.handshake_timeout))),
        Ok(()) = evicted => Err(Unfinished::Evicted),
        () = stopping(stop) => Err(Unfinished::Stopping),
    }
}

/// Looks at what a client begins with, if the listener takes more than TLS.
pub(super) async fn told<Io>(
    io: Io,
    address: IpAddr,
    config: &ListenerConfig,
    shared: &Shared,
    place: &Place,
) -> Result<Entered<Io>, Unfinished>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut io = Rewound::new(io);
    if matches!(config.mtls, Mtls::Permissive { .. }) {
        let plain = async {
            if io.begins_with_tls().await? {
                return Ok(None);
            }
            if config.mtls.plaintext_until(shared.ground.clock.now()).is_none() {
                return Err(HandshakeRefused::PermissiveEnded);
            }
            Ok(Some(io.http().await?))
        };
        let patience = config.hello_timeout;
        let plain = timeout(patience, plain).await.map_err(|_| Unfinished::Silent(patience))?;
        if let Some(http) = plain.map_err(Unfinished::Refused)? {
            place.heard();
            return Ok(Entered { stream: Stream::Plain(io), peer: None, http });
        }
    }
    let (stream, peer) = judge(io, address, config, shared, place).await?;
    let http = peer.http;
    Ok(Entered { stream: Stream::Tls(stream), peer: Some(peer), http })
}

/// A byte stream whose first bytes were looked at, and are read again.
#[derive(Debug)]
pub(super) struct Rewound<Io> {
    io: Io,
    head: [u8; PREFACE.len()],
    /// How many bytes of `head` were read from `io`, and how many were read again.
    filled: usize,
    again: usize,
}

impl<Io> Rewound<Io> {
    fn new(io: Io) -> Self {
        Self { io, head: [0; PREFACE.len()], filled: 0, again: 0 }
    }

    fn seen(&self) -> &[u8] {
        self.head.get(..self.filled).unwrap_or_default()
    }
}

impl<Io: AsyncRead + Unpin> Rewound<Io> {
    async fn begins_with_tls(&mut self) -> io::Result<bool> {
        if self.filled == 0 {
            self.more().await?;
        }
        Ok(self.seen().first() == Some(&TLS_HANDSHAKE))
    }

    /// HTTP/2 for its whole preface, HTTP/1.1 from the first byte that is another. (RFC 9113 3.3, prior knowledge)
    async fn http(&mut self) -> io::Result<Version> {
        loop {
            if !PREFACE.starts_with(self.seen()) {
                return Ok(Version::HTTP_11);
            }
            if self.filled == PREFACE.len() {
                return Ok(Version::HTTP_2);
            }
            self.more().await?;
        }
    }

    /// Cancel safe: what was read is kept.
    async fn more(&mut self) -> io::Result<()> {
        let free = self.head.get_mut(self.filled..).unwrap_or_default();
        match self.io.read(free).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewound<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.again == self.filled {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let end = self.filled.min(self.again.saturating_add(buf.remaining()));
        buf.put_slice(self.head.get(self.again..end).unwrap_or_default());
        self.again = end;
        Poll::Ready(Ok(()))
    }
}

/// What requests are read from.
#[derive(Debug)]
pub(super) enum Stream<Io> {
    Tls(Box<TlsStream<Rewound<Io>>>),
    Plain(Rewound<Io>),
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Rewound<Io> {
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

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_say_what_follows_and_none_is_lost() {
        let table: [(&[u8], Option<Version>); 7] = [
            (b"\x16\x03\x01", None),
            (b"GET / HTTP/1.1\r\n\r\n", Some(Version::HTTP_11)),
            (b"PUT / HTTP/1.1\r\n\r\n", Some(Version::HTTP_11)),
            (b"PRI * HTTP/1.1\r\n\r\n", Some(Version::HTTP_11)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Some(Version::HTTP_2)),
            (b"\0", Some(Version::HTTP_11)),
            (b"\x80\x2e\x01", Some(Version::HTTP_11)), // SSL 2: no HTTP either, which hyper says
        ];
        for (sent, expected) in table {
            for piece in [1, 5, sent.len()] {
                let (mut ours, theirs) = tokio::io::duplex(8);
                let mut io = Rewound::new(theirs);
                let write = async {
                    for piece in sent.chunks(piece) {
                        ours.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    drop(ours);
                };
                let read = async {
                    let http = if io.begins_with_tls().await.unwrap() { None } else { Some(io.http().await.unwrap()) };
                    let mut all = Vec::new();
                    io.read_to_end(&mut all).await.unwrap();
                    (http, all)
                };
                let (_, found) = tokio::join!(write, read);
                assert_eq!(found, (expected, sent.to_vec()), "in pieces of {piece}");
            }
        }
        let (ours, theirs) = tokio::io::duplex(8);
        drop(ours);
        assert_eq!(Rewound::new(theirs).begins_with_tls().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
