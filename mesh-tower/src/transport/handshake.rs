//! The TLS handshake of one accepted stream: bounded, judged, and logged where it fails.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::ground::Shared;
use super::sparing::Sparing;
use crate::tls::{HandshakeRefused, VerifiedPeer};

/// How long a handshake holds its slot. Slots bound the work of handshakes; waiting for the client is none, and whoever
/// could hold slots by waiting could keep everybody else out without a certificate.
const SLOT_TIME: Duration = Duration::from_millis(250);

/// Waits for the ClientHello before taking one of the handshake slots, so that silent clients hold none. One that falls
/// silent after it loses its slot after [`SLOT_TIME`] and goes on without.
///
/// The stream is boxed: by value it would stand once in each future that it passes through, for as long as the
/// connection lives.
pub(super) async fn handshake<Io>(
    io: Io,
    shared: &Shared,
) -> Result<(Box<TlsStream<Io>>, VerifiedPeer), HandshakeRefused>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let slot = shared.handshakes.acquire().await.map_err(io::Error::other)?;
    let mut handshake = pin!(shared.ground.tls.handshake(hello));
    let done = match timeout(SLOT_TIME, handshake.as_mut()).await {
        Ok(done) => done,
        Err(_) => {
            drop(slot);
            handshake.await
        }
    };
    done.map(|(stream, peer)| (Box::new(stream), peer))
}

pub(super) fn log_refused(address: SocketAddr, refused: &HandshakeRefused, refusals: &Sparing) {
    let reason = refused.reason();
    let Some(left_out) = refusals.line(reason, Instant::now()) else { return };
    match refused {
        HandshakeRefused::Peer(_) => tracing::warn!(%address, reason, left_out, error = %refused, "client refused"),
        // Port probes open and close a connection, all day.
        HandshakeRefused::Io(_) if reason == "io" => {
            tracing::debug!(%address, left_out, error = %refused, "no TLS handshake");
        }
        HandshakeRefused::Io(_) => {
            tracing::info!(%address, reason, left_out, error = %refused, "TLS handshake failed");
        }
    }
}
