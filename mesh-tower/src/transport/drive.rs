//! From an accepted byte stream through handshake and requests to its close.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, Version};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::Mesh;
use mesh_core::clock::WallClock;
use mesh_core::config::ListenerConfig;
use mesh_core::identity::Peer;
use mesh_core::rng::Rng;
use mesh_core::telemetry::Metrics;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use super::activity::{Activity, Watched};
use super::edge::Edge;
use super::lifetime::{CloseReason, Lifetime, Verdict};
use super::sparing::Sparing;
use crate::Connection;
use crate::tls::{HandshakeRefused, ServerTls, VerifiedPeer};

/// How long a handshake holds its slot. Slots bound the work of handshakes; waiting for the client is none, and whoever
/// could hold slots by waiting could keep everybody else out without a certificate.
const SLOT_TIME: Duration = Duration::from_millis(250);
/// A quiet HTTP/2 connection is pinged this often, so that a peer which vanished is found out.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Resets that a peer may provoke before its connection is closed. (CVE-2023-44487, CVE-2025-8671)
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 256;

/// What connections need of a mesh.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) tls: ServerTls,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) rng: Rng,
}

impl Ground {
    pub(crate) fn of(mesh: &Mesh) -> Self {
        Self {
            tls: ServerTls::new(mesh),
            metrics: Arc::clone(mesh.metrics()),
            clock: Arc::clone(mesh.clock()),
            rng: mesh.rng().clone(),
        }
    }
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ground: Ground,
    pub(crate) handshakes: Semaphore,
    pub(crate) refusals: Sparing,
    pub(crate) local_addr: SocketAddr,
}

/// Serves one connection until it ends, by itself, by its limits, or because `stop` became true.
///
/// Never fails: whatever goes wrong is logged and counted. Dropping the future cuts the connection.
pub(crate) async fn serve_connection<Io, S>(
    io: Io,
    address: SocketAddr,
    config: ListenerConfig,
    service: S,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let metrics = &shared.ground.metrics.transport;
    let _open = metrics.connection();
    let give_up = Instant::now() + config.handshake_timeout;
    let handshake = tokio::select! {
        handshake = timeout_at(give_up, handshake(io, &shared)) => handshake,
        () = stopping(&mut stop) => return metrics.handshake("stopping"),
    };
    let (stream, peer) = match handshake {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(refused)) => {
            metrics.handshake(refused.reason());
            return log_refused(address, &refused, &shared.refusals);
        }
        Err(_) => {
            metrics.handshake("timeout");
            if let Some(left_out) = shared.refusals.line("timeout", Instant::now()) {
                tracing::info!(%address, left_out, after = ?config.handshake_timeout, "TLS handshake timed out");
            }
            return;
        }
    };
    metrics.handshake("ok");
    let id = peer.svid.id.clone();
    tracing::debug!(%address, %id, http = ?peer.http, "connection accepted");
    let reason = serve_http(stream, peer, address, &config, service, &shared, stop).await;
    metrics.closed(reason.as_str());
    tracing::debug!(%address, %id, reason = reason.as_str(), "connection closed");
}

/// Waits for the ClientHello before taking one of the handshake slots, so that silent clients hold none. One that falls
/// silent after it loses its slot after [`SLOT_TIME`] and goes on without.
async fn handshake<Io>(io: Io, shared: &Shared) -> Result<(TlsStream<Io>, VerifiedPeer), HandshakeRefused>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let slot = shared.handshakes.acquire().await.map_err(io::Error::other)?;
    let mut handshake = pin!(shared.ground.tls.handshake(hello));
    if let Ok(done) = timeout(SLOT_TIME, handshake.as_mut()).await {
        return done;
    }
    drop(slot);
    handshake.await
}

fn log_refused(address: SocketAddr, refused: &HandshakeRefused, refusals: &Sparing) {
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

/// Returns when the server is told to stop, or is gone.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

async fn serve_http<Io, S>(
    stream: TlsStream<Io>,
    peer: VerifiedPeer,
    address: SocketAddr,
    config: &ListenerConfig,
    service: S,
    shared: &Shared,
    stop: watch::Receiver<bool>,
) -> CloseReason
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (now, wall) = (Instant::now(), shared.ground.clock.now());
    let activity = Activity::new(now);
    let life = Lifetime::new(config, peer.svid.not_after, now, wall, &shared.ground.rng);
    let judged = Peer { address, svid: Some(peer.svid) };
    let edge = Edge {
        service,
        connection: Arc::new(Connection::new(judged, peer.chain, shared.local_addr, peer.http)),
        address,
        activity: Arc::clone(&activity),
        max_body: usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX),
        max_headers: config.max_headers,
        metrics: Arc::clone(&shared.ground.metrics),
    };
    let clock = &*shared.ground.clock;
    // By ALPN, never by sniffing: a peer that speaks the other protocol gets an error.
    if peer.http == Version::HTTP_2 {
        let connection = http2_builder(config).serve_connection(TokioIo::new(stream), edge);
        drive(connection, life, &activity, clock, stop).await
    } else {
        let stream = Watched::new(stream, Arc::clone(&activity));
        let connection = http1_builder(config).serve_connection(TokioIo::new(stream), edge);
        drive(connection, life, &activity, clock, stop).await
    }
}

fn http1_builder(config: &ListenerConfig) -> http1::Builder {
    let head = config.max_header_bytes as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None) // `Lifetime` has it, because hyper's also runs while the connection is idle
        .max_headers(config.max_headers)
        .max_header_size(head)
        .max_buf_size(head.max(64 * 1024));
    builder
}

fn http2_builder(config: &ListenerConfig) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(config.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A hyper connection of either protocol.
trait Graceful: Future<Output = hyper::Result<()>> {
    /// Sends GOAWAY, or closes after the present response.
    fn shut_down(self: Pin<&mut Self>);
}

impl<Io, S, B> Graceful for http1::Connection<Io, S>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<Io, S, B, E> Graceful for http2::Connection<Io, S, E>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls the connection, and after each poll asks its lifetime what to do.
async fn drive(
    connection: impl Graceful,
    mut life: Lifetime,
    activity: &Activity,
    clock: &dyn WallClock,
    mut stop: watch::Receiver<bool>,
) -> CloseReason {
    let mut connection = pin!(connection);
    let mut stopped = pin!(stopping(&mut stop));
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let by_peer = if ended.is_ok() { CloseReason::Peer } else { CloseReason::Error };
                return Poll::Ready(life.draining().unwrap_or(by_peer));
            }
            let stopping = life.draining().is_none() && stopped.as_mut().poll(cx).is_ready();
            let verdict = if stopping {
                Verdict::Drain(CloseReason::Stopping)
            } else {
                life.verdict(Instant::now(), clock.now(), activity.quiet())
            };
            match verdict {
                Verdict::Cut(reason) => return Poll::Ready(reason),
                Verdict::Drain(reason) => {
                    life.drain(reason, Instant::now());
                    connection.as_mut().shut_down();
                }
                Verdict::Keep(until) => {
                    // A timer that fires early only asks again; setting it for each request would cost more.
                    if timer.is_elapsed() || until < timer.deadline() {
                        timer.as_mut().reset(until);
                    }
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await
}
