//! From an address to a live HTTP connection.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::WeakMesh;
use mesh_core::clock::WallClock;
use mesh_core::config::PoolConfig;
use mesh_core::identity::Identity;
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::ConnectFailure;
use tokio::time::{Instant, timeout, timeout_at};

use super::cancellations::{self, REMEMBERED};
use super::drive::{Driven, Protocol, Sender};
use super::last_words::LastWords;
use super::link::Failure;
use super::trust::Judged;
use crate::ages::spread;
use crate::client::upload::Uploads;
use crate::connect::{BoxIo, ConnectCause, ConnectError, Dialer, Dialing, Io};
use crate::error::{ErrorKind, chain};
use crate::tls::{HandshakeRefused, PeerRefused};

/// Streams of a connection whose peer has not said yet how many it allows. It refuses those that are too many, and
/// its settings are a round trip away: the other requests wait for them. grpc-go lets all of them wait.
pub(super) const INITIAL_STREAMS: usize = 4;

/// What hyper may read ahead over HTTP/1.1, however small the limit of headers is.
const MIN_BUFFER: usize = 64 * 1024;

/// Opens verified byte streams to endpoints. The seam that lets tests go without TLS.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Tells by `dialing` when it waits for something else than the endpoint.
    fn dial<'a>(&'a self, address: SocketAddr, dialing: &'a Dialing) -> DialFuture<'a>;

    /// Whether it keeps to `pool.connect_timeout` by itself. It may wait for its turn beside that.
    fn is_bounded(&self) -> bool {
        false
    }
}

/// What [`Dial::dial`] returns.
pub(crate) type DialFuture<'a> = Pin<Box<dyn Future<Output = Result<Dialed, Failure>> + Send + 'a>>;

/// A byte stream to an endpoint that is who it should be.
pub(crate) struct Dialed {
    pub(crate) io: BoxIo,
    pub(crate) http2: bool,
    /// `None` only in tests.
    pub(crate) peer: Option<Judged>,
    /// When to replace the connection.
    pub(crate) retire_at: Option<Instant>,
}

/// Dials over mTLS with the mesh's live identity.
pub(crate) struct MeshDial {
    pub(crate) dialer: Dialer,
    pub(crate) identity: Snapshot<Identity>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) rng: Rng,
    /// To have newer trust looked for.
    pub(crate) mesh: WeakMesh,
    /// Of TCP and TLS together; half of it may go into waiting for newer trust.
    pub(crate) timeout: Duration,
}

impl Dial for MeshDial {
    fn dial<'a>(&'a self, address: SocketAddr, dialing: &'a Dialing) -> DialFuture<'a> {
        Box::pin(async move {
            let mut generation = self.identity.generation();
            // One limit for both.
            let mut give_up = Instant::now() + self.timeout;
            let mut dialed = self.dialer.dial_by(address, &mut give_up, dialing).await;
            // Once: whoever is unknown to the newest bundle stays so.
            if dialed.as_ref().is_err_and(is_about_trust) && self.newer_than(generation, give_up).await {
                generation = self.identity.generation();
                dialed = self.dialer.dial_by(address, &mut give_up, dialing).await;
            }
            let connected = dialed.map_err(|error| failure(&error))?;
            let own = self.identity.load();
            let own_end = own.svid().map(|svid| svid.not_after());
            let wait = retire_after(self.clock.now(), own_end, connected.peer.svid.not_after);
            Ok(Dialed {
                http2: connected.peer.http == http::Version::HTTP_2,
                io: Box::new(connected.io) as Box<dyn Io>,
                peer: Some(Judged { peer: connected.peer, generation }),
                retire_at: Instant::now().checked_add(spread(wait, &self.rng)),
            })
        })
    }

    fn is_bounded(&self) -> bool {
        true
    }
}

impl MeshDial {
    /// Whether an identity newer than `generation` is in force, after it was looked for, until `give_up` at most.
    async fn newer_than(&self, generation: u64, give_up: Instant) -> bool {
        if self.identity.generation() > generation {
            return true;
        }
        let Some(wish) = self.mesh.upgrade().map(|mesh| mesh.refresh_identity()) else { return false };
        let _ = timeout_at(give_up.min(Instant::now() + self.timeout / 2), wish).await;
        self.identity.generation() > generation
    }
}

/// Whether a newer trust bundle could change why connecting failed.
fn is_about_trust(error: &ConnectError) -> bool {
    error.peer_refused().is_some_and(PeerRefused::is_about_trust)
}

/// How long a new connection may be used: half of what is left to our SVID, and not to the very end of the peer's.
///
/// A server asks us to go when a tenth of our SVID's time is left, and by then a successor with a renewed one must
/// stand. What is left counts, not the whole lifetime: authorities begin it in the past, for clocks that differ. With
/// two seconds left there is nothing to halve any more.
fn retire_after(now: SystemTime, own_end: Option<SystemTime>, peer_end: SystemTime) -> Duration {
    let until = |end: SystemTime, share: f64| {
        let left = end.duration_since(now).unwrap_or_default();
        if left > Duration::from_secs(2) { left.mul_f64(share) } else { left }
    };
    own_end.map_or(Duration::MAX, |end| until(end, 0.5)).min(until(peer_end, 0.9))
}

fn failure(error: &ConnectError) -> Failure {
    let (kind, counted) = match &error.cause {
        ConnectCause::Transport(_) => (ErrorKind::Connect, ConnectFailure::Tcp),
        ConnectCause::ConnectTimeout(_) | ConnectCause::HandshakeTimeout(_) => {
            (ErrorKind::Connect, ConnectFailure::Timeout)
        }
        ConnectCause::Handshake(HandshakeRefused::Own(_)) => (ErrorKind::OwnIdentity, ConnectFailure::Identity),
        ConnectCause::Handshake(HandshakeRefused::Peer(_)) => (ErrorKind::PeerIdentity, ConnectFailure::Identity),
        ConnectCause::Handshake(_) => (ErrorKind::Connect, ConnectFailure::Tls),
    };
    Failure::new(kind, counted, format!("{} ({})", error, error.reason()))
}

/// The halves, whether they speak HTTP/2, whom they speak to, and when that should end.
pub(super) type Connection = ((Sender, Driven), bool, Option<Judged>, Option<Instant>);

/// Dials and shakes hands, each within `pool.connect_timeout`, the wait for a turn not counted; the second is a
/// write, and waits for nobody.
pub(super) async fn connect(
    dial: &dyn Dial,
    address: SocketAddr,
    settings: &PoolConfig,
    dialing: &Dialing,
) -> Result<Connection, Failure> {
    let late = |_| {
        let message = format!("not connected after {:?} (pool.connect_timeout)", settings.connect_timeout);
        Failure::new(ErrorKind::Connect, ConnectFailure::Timeout, message)
    };
    let dial_future = dial.dial(address, dialing);
    let dialed = if dial.is_bounded() {
        dial_future.await?
    } else {
        timeout(settings.connect_timeout, dial_future).await.map_err(late)??
    };
    let handshake = handshake(dialed.io, dialed.http2, settings);
    let halves = timeout(settings.connect_timeout, handshake).await.map_err(late)??;
    Ok((halves, dialed.http2, dialed.peer, dialed.retire_at))
}

/// Sends the connection preface. What the server thinks of it shows only with its first answer.
async fn handshake(io: BoxIo, http2: bool, settings: &PoolConfig) -> Result<(Sender, Driven), Failure> {
    let failed = |error: hyper::Error| {
        Failure::new(ErrorKind::Connect, ConnectFailure::Http, format!("HTTP handshake failed: {}", chain(&error)))
    };
    let (io, first, heard, cut) = LastWords::of(io);
    let io = TokioIo::new(io);
    if http2 {
        let (send, connection) = http2::Builder::new(Uploads)
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.ping_interval)
            .keep_alive_timeout(settings.ping_timeout)
            .keep_alive_while_idle(false)
            .initial_max_send_streams(INITIAL_STREAMS)
            .max_concurrent_reset_streams(REMEMBERED)
            .reset_stream_duration(cancellations::SPAN)
            .max_header_list_size(settings.max_header_bytes)
            .handshake(io)
            .await
            .map_err(failed)?;
        Ok((Sender::Http2(send), Driven { connection: Protocol::Http2(Box::new(connection)), first, heard, cut }))
    } else {
        let head = settings.max_header_bytes as usize;
        let (send, connection) = http1::Builder::new()
            .max_header_size(head)
            .max_buf_size(head.max(MIN_BUFFER))
            .handshake(io)
            .await
            .map_err(failed)?;
        Ok((Sender::Http1(send), Driven { connection: Protocol::Http1(Box::new(connection)), first, heard, cut }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_retire_before_a_certificate_ends() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        for (now, own, peer, secs) in [
            (1000, Some(4600), 9999, 1800), // half of what is left
            (2800, Some(4600), 9999, 900),  // just before it is renewed
            (1000, Some(4600), 1300, 270),  // the peer ends first
            (4598, Some(4600), 9999, 2),    // it is not renewed: to its end
            (5000, Some(4600), 9999, 0),    // over already
        ] {
            assert_eq!(retire_after(at(now), own.map(at), at(peer)), Duration::from_secs(secs), "{now} {peer}");
        }
    }
}
