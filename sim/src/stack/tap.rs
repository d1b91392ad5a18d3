//! What a client's connections carried, and in which order.
//!
//! A decision follows from what a task found when its turn came. So whoever polls the same tasks in another order may decide
//! otherwise, and does so seldom: of a few hundred calls, hardly one meets another at the moment that counts. The order of
//! what is sent and received tells at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_tower::connect::{BoxIo, Connecting, Connector};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::net::Dialler;
use super::world::now;

/// One thing that happened to a connection. The bytes are never the same twice: TLS draws its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// Virtual time since the simulation began.
    pub(super) at: Duration,
    /// Counted as they were asked for, from 0.
    pub(super) connection: usize,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Dialled(SocketAddr),
    Connected,
    Refused,
    Sent,
    Received,
    /// By the peer, or with an error.
    Ended,
    /// By ourselves.
    Dropped,
}

/// Opens connections of the simulated network, and writes down what happens on them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tap(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    connections: usize,
    events: Vec<Event>,
}

impl Tap {
    /// Everything until now.
    pub(super) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    fn write(&self, connection: usize, what: What) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.events.push(Event { at: now(), connection, what });
    }
}

impl Connector for Tap {
    fn connect(&self, address: SocketAddr) -> Connecting {
        let (tap, dialled) = (self.clone(), Dialler.connect(address));
        Box::pin(async move {
            let connection = {
                let mut heard = tap.0.lock().unwrap_or_else(PoisonError::into_inner);
                heard.connections += 1;
                heard.connections - 1
            };
            tap.write(connection, What::Dialled(address));
            let io = dialled.await.inspect_err(|_| tap.write(connection, What::Refused))?;
            tap.write(connection, What::Connected);
            Ok(Box::new(Tapped { io, connection, tap }) as BoxIo)
        })
    }
}

/// A connection that is listened to.
#[derive(Debug)]
struct Tapped {
    io: BoxIo,
    connection: usize,
    tap: Tap,
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.tap.write(self.connection, What::Dropped);
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(result) = &read {
            let more = result.is_ok() && buf.filled().len() > before;
            self.tap.write(self.connection, if more { What::Received } else { What::Ended });
        }
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(result) = &written {
            self.tap.write(self.connection, if result.is_ok() { What::Sent } else { What::Ended });
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
