//! The handshake of one accepted stream: bounded, judged, and logged where it fails.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use mesh_core::config::ListenerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::ground::Shared;
use super::half_open::Place;
use super::sparing::Sparing;
use super::turns::in_turns;
use crate::tls::{HandshakeRefused, VerifiedPeer};

/// How long a handshake holds its slot. Slots bound the work of handshakes; waiting for the client is none, and whoever
/// could hold slots by waiting could keep everybody else out without a certificate.
const SLOT_TIME: Duration = Duration::from_millis(250);

/// Why a handshake gave no connection.
#[derive(Debug)]
pub(super) enum Unfinished {
    Refused(HandshakeRefused),
    /// No whole ClientHello in `hello_timeout`.
    Silent(Duration),
    /// Not done in `handshake_timeout`.
    Timeout(Duration),
    /// It waited longest when there were too many.
    Evicted,
    Stopping,
}

impl Unfinished {
    /// A stable code for logs and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.reason(),
            Self::Silent(_) => "hello_timeout",
            Self::Timeout(_) => "timeout",
            Self::Evicted => "evicted",
            Self::Stopping => "stopping",
        }
    }

    /// Whether a newer trust bundle could have let the client in.
    pub(super) fn is_about_trust(&self) -> bool {
        matches!(self, Self::Refused(HandshakeRefused::Peer(refused)) if refused.is_about_trust())
    }
}

/// Waits for the ClientHello before taking one of the handshake slots, so that silent clients hold none. One that falls
/// silent after it loses its slot after [`SLOT_TIME`] and goes on without.
///
/// What TLS keeps is boxed at each step: by value it would stand once in each future that it passes through. A future that
/// lives only as long as the handshake costs memory all the same: what it touched is the room for the buffers of HTTP/2,
/// most of which would else never be touched.
pub(super) async fn judge<Io>(
    io: Io,
    address: IpAddr,
    config: &ListenerConfig,
    shared: &Shared,
    place: &Place,
) -> Result<(Box<TlsStream<Io>>, VerifiedPeer), Unfinished>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let patience = config.hello_timeout;
    let hello = timeout(patience, Box::pin(LazyConfigAcceptor::new(Acceptor::default(), io))).await;
    let hello = Box::new(hello.map_err(|_| Unfinished::Silent(patience))?.map_err(failed)?);
    place.heard();
    let slot = match shared.handshakes.try_take() {
        Some(slot) => slot,
        None => {
            shared.ground.metrics.transport.waited("max_handshakes");
            if let Some(left_out) = shared.refusals.line("max_handshakes", Instant::now()) {
                tracing::warn!(left_out, "too many handshakes at once: further ones wait");
            }
            let _first = shared.newcomers.take(address).await;
            shared.handshakes.take().await
        }
    };
    let handshake = pin!(shared.ground.tls.finish(hello, config.tls));
    let mut handshake = pin!(in_turns(&shared.steps, address, handshake));
    let done = match timeout(SLOT_TIME, handshake.as_mut()).await {
        Ok(done) => done,
        Err(_) => {
            drop(slot);
            handshake.await
        }
    };
    done.map_err(Unfinished::Refused)
}

pub(super) fn failed(error: io::Error) -> Unfinished {
    Unfinished::Refused(error.into())
}

pub(super) fn log_unfinished(address: SocketAddr, unfinished: &Unfinished, refusals: &Sparing) {
    let reason = unfinished.reason();
    let Some(left_out) = refusals.line(reason, Instant::now()) else { return };
    match unfinished {
        Unfinished::Refused(refused @ (HandshakeRefused::Peer(_) | HandshakeRefused::PermissiveEnded)) => {
            tracing::warn!(%address, reason, left_out, error = %refused, "client refused");
        }
        Unfinished::Refused(refused @ HandshakeRefused::Own(_)) => {
            tracing::error!(%address, reason, left_out, error = %refused, "nobody is let in: no identity to present");
        }
        // Port probes open and close a connection, all day.
        Unfinished::Refused(refused) if reason == "io" => {
            tracing::debug!(%address, left_out, error = %refused, "no TLS handshake");
        }
        Unfinished::Refused(refused) => {
            tracing::info!(%address, reason, left_out, error = %refused, "TLS handshake failed");
        }
        Unfinished::Silent(after) => tracing::info!(%address, left_out, ?after, "no TLS ClientHello in time"),
        Unfinished::Timeout(after) => tracing::info!(%address, left_out, ?after, "TLS handshake timed out"),
        Unfinished::Evicted => {
            tracing::warn!(%address, left_out, "too many half-open connections: the oldest was closed");
        }
        Unfinished::Stopping => {}
    }
}
