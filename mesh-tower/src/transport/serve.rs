//! From an accepted byte stream through handshake and requests to its close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use mesh_core::config::ListenerConfig;
use mesh_core::identity::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use super::activity::{Activity, Watched};
use super::drive::{drive, stopping};
use super::edge::Edge;
use super::ground::Shared;
use super::handshake::{handshake, log_refused};
use super::http1::{Guard, Verdict};
use super::lifetime::{CloseReason, Lifetime};
use super::protocol::{http1_builder, http2_builder};
use super::recheck::Standing;
use crate::Connection;
use crate::tls::VerifiedPeer;

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
    // Before the handshake: what changes while it lasts is looked at after it.
    let identity = shared.ground.identity.generation();
    let give_up = Instant::now() + config.handshake_timeout;
    // Boxed, so that what only the handshake needs is given back with it.
    let handshake = tokio::select! {
        handshake = timeout_at(give_up, Box::pin(handshake(io, &shared))) => handshake,
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
    let peer = (peer, identity);
    let reason = serve_http(stream, peer, address, &config, service, &shared, stop).await;
    metrics.closed(reason.as_str());
    tracing::debug!(%address, %id, reason = reason.as_str(), "connection closed");
}

async fn serve_http<Io, S>(
    stream: Box<TlsStream<Io>>,
    (peer, judged_under): (VerifiedPeer, u64),
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
    let id = peer.svid.id.clone();
    let (now, wall) = (Instant::now(), shared.ground.clock.now());
    let activity = Activity::new(now);
    let life = Lifetime::new(config, peer.svid.not_after, now, wall, &shared.ground.rng);
    let judged = Peer { address, svid: Some(peer.svid) };
    let connection = Arc::new(Connection::new(judged, peer.chain, shared.local_addr, peer.http));
    let standing = Standing::new(Arc::clone(&connection), judged_under);
    let _enrolled = shared.roster.enrol(Arc::clone(&standing));
    // Enrolled first, judged second: a revision published in between finds it in the roster.
    shared.recheck(&standing);
    let verdict = (peer.http != Version::HTTP_2).then(Arc::<Verdict>::default);
    let edge = Edge {
        service,
        connection,
        address,
        activity: Arc::clone(&activity),
        max_body: usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX),
        max_headers: config.max_headers,
        metrics: Arc::clone(&shared.ground.metrics),
        verdict: verdict.clone(),
    };
    let clock = &*shared.ground.clock;
    // By ALPN, never by sniffing: a peer that speaks the other protocol gets an error.
    let Some(verdict) = verdict else {
        let connection = http2_builder(config).serve_connection(TokioIo::new(stream), edge);
        return drive(Box::pin(connection), life, &activity, &standing, clock, stop).await;
    };
    let stream = Watched::new(stream, Arc::clone(&activity));
    let stream = Guard::new(stream, config.max_header_bytes as usize, Arc::clone(&verdict));
    let connection = http1_builder(config).serve_connection(TokioIo::new(stream), edge);
    let reason = drive(Box::pin(connection), life, &activity, &standing, clock, stop).await;
    let Some(refusal) = verdict.refused() else { return reason };
    let refusal = refusal.as_str();
    shared.ground.metrics.transport.unreadable(refusal);
    if let Some(left_out) = shared.refusals.line(refusal, Instant::now()) {
        tracing::warn!(%address, %id, reason = refusal, left_out, "unreadable HTTP/1.1 message: connection closed");
    }
    CloseReason::Unreadable
}
