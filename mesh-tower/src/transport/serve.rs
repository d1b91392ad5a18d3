//! From an accepted byte stream through handshake and requests to its close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use mesh_core::config::ListenerConfig;
use mesh_core::identity::{Peer, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tower_service::Service;

use super::activity::{Activity, Watched};
use super::drive::drive;
use super::edge::{Edge, RequestLimits};
use super::entry::{Entered, enter};
use super::flow::Streams;
use super::ground::Shared;
use super::half_open::Place;
use super::handshake::log_unfinished;
use super::http1::{Guard, Limits, Verdict};
use super::lifetime::{CloseReason, Lifetime};
use super::pace::Patience;
use super::peers::{PeerPlace, Who};
use super::protocol::{http1_builder, http2_builder};
use super::standing::Standing;
use crate::Connection;
use crate::tls::VerifiedPeer;

/// A client that came in and whose place is taken.
struct Admitted<Io> {
    entered: Entered<Io>,
    place: PeerPlace,
    /// The revision of our identity that was in force before the handshake.
    judged_under: u64,
}

/// Serves one connection until it ends, by itself, by its limits, or because `stop` became true.
///
/// Never fails: whatever goes wrong is logged and counted. Dropping the future cuts the connection.
pub(crate) async fn serve_connection<Io, S>(
    io: Io,
    address: SocketAddr,
    config: Box<ListenerConfig>,
    service: Box<S>,
    shared: Arc<Shared>,
    (place, evicted): (Place, oneshot::Receiver<()>),
    mut stop: watch::Receiver<bool>,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let metrics = &shared.ground.metrics.transport;
    let _open = metrics.connection();
    // Before the handshake: what changes while it lasts is looked at after it.
    let judged_under = shared.ground.identity.generation();
    let entered = match enter(io, address.ip(), &config, &shared, &place, evicted, &mut stop).await {
        Ok(accepted) => accepted,
        Err(unfinished) => {
            metrics.handshake(unfinished.reason());
            // The client comes back, or another one of its issuer: its root may have been added since ours were read.
            if unfinished.is_about_trust() {
                shared.ground.refresh();
            }
            return log_unfinished(address, &unfinished, &shared.refusals);
        }
    };
    drop(place);
    let id = entered.peer.as_ref().map(|peer| peer.svid.id.clone());
    if id.is_some() {
        metrics.handshake("ok");
    }
    // Whoever has no name is counted by its address, whose connections are limited already.
    let who = id.as_ref().map_or_else(|| Who::from(address.ip()), Who::from);
    let id = id.as_ref().map(SpiffeId::as_str);
    let nameless = id.is_none().then(|| shared.plaintext.try_take());
    if let Some(None) = nameless {
        let reason = "plaintext_limit";
        metrics.refused(reason);
        if let Some(left_out) = shared.refusals.line(reason, Instant::now()) {
            tracing::warn!(%address, reason, left_out, "plaintext connections have half of the places already");
        }
        return;
    }
    let limit = if id.is_some() { config.per_peer_limit() } else { config.per_ip_limit() };
    let (resets, now) = (config.max_resets_per_second, Instant::now());
    let place = match shared.peers.admit(who, limit, resets, now) {
        Ok(place) => place,
        Err(refusal) => {
            let reason = refusal.as_str();
            metrics.refused(reason);
            if let Some(left_out) = shared.refusals.line(reason, now) {
                tracing::warn!(%address, id, reason, limit, left_out, "peer refused");
            }
            return;
        }
    };
    let security = entered.security();
    metrics.accepted(&shared.name, security);
    match id.is_none().then(|| shared.refusals.line(security, now)).flatten() {
        Some(left_out) => {
            tracing::info!(%address, listener = &*shared.name, left_out, "plaintext from an anonymous peer")
        }
        None => tracing::debug!(%address, id, http = ?entered.http, security, "connection accepted"),
    }
    let admitted = Admitted { entered, place, judged_under };
    let reason = serve_http(admitted, address, config, service, &shared, stop).await;
    metrics.closed(reason.as_str());
    let limit_reached = reason.is_abuse();
    let reason = reason.as_str();
    // Asked of no other reason: the lines about those were written where it was found.
    match limit_reached.then(|| shared.refusals.line(reason, Instant::now())).flatten() {
        Some(left_out) => tracing::warn!(%address, id, reason, left_out, "connection cut"),
        None => tracing::debug!(%address, id, reason, "connection closed"),
    }
}

async fn serve_http<Io, S>(
    Admitted { entered, place, judged_under }: Admitted<Io>,
    address: SocketAddr,
    config: Box<ListenerConfig>,
    service: Box<S>,
    shared: &Shared,
    stop: watch::Receiver<bool>,
) -> CloseReason
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let Entered { stream, peer, http } = entered;
    let origin = peer.as_ref().map(VerifiedPeer::origin).unwrap_or_default();
    let (svid, chain) = peer.map(|peer| (peer.svid, peer.chain)).unzip();
    let not_after = svid.as_ref().map(|svid| svid.not_after);
    let (now, wall) = (Instant::now(), shared.ground.clock.now());
    let resets = (http == Version::HTTP_2).then(|| Arc::clone(place.resets()));
    let activity = Activity::new(now, Patience::new(config.send_timeout, config.min_body_rate), resets);
    let life = Lifetime::new(&config, not_after, now, wall, &shared.ground.rng);
    let judged = Peer { address, svid };
    let connection = Connection::new(
        judged,
        chain.unwrap_or_default(),
        shared.local_addr,
        Arc::clone(&shared.name),
        http,
        Arc::clone(place.requests()),
    );
    let connection = Arc::new(connection.with_origin(origin));
    let standing = Standing::new(Arc::clone(&connection), judged_under);
    let _enrolled = shared.roster.enrol(Arc::clone(&standing));
    // Enrolled first, judged second: a revision published in between finds it in the roster.
    shared.recheck(&standing);
    let id = connection.peer().svid.as_ref().map(|svid| svid.id.clone());
    let verdict = (http != Version::HTTP_2).then(Arc::<Verdict>::default);
    let edge = Edge {
        service: *service,
        connection: Arc::clone(&connection),
        address,
        activity: Arc::clone(&activity),
        limits: RequestLimits::of(&config),
        metrics: Arc::clone(&shared.ground.metrics),
        verdict: verdict.clone(),
    };
    let clock = &*shared.ground.clock;
    // By ALPN, or by the preface in plaintext: a peer that speaks the other protocol gets an error.
    let Some(verdict) = verdict else {
        let streams = Streams {
            send_timeout: config.send_timeout,
            min_rate: config.min_body_rate,
            metrics: Arc::clone(&shared.ground.metrics),
            refusals: Arc::clone(&shared.refusals),
            connection,
        };
        let stream = Watched::new(stream, false, Arc::clone(&activity));
        let connection = http2_builder(&config, streams).serve_connection(TokioIo::new(stream), edge);
        drop(config);
        return drive(Box::pin(connection), life, &activity, &standing, clock, stop).await;
    };
    let stream = Watched::new(stream, true, Arc::clone(&activity));
    let max = Limits { bytes: config.max_header_bytes as usize, fields: config.max_headers };
    let stream = Guard::new(stream, max, Arc::clone(&verdict));
    let connection = http1_builder(&config).serve_connection(TokioIo::new(stream), edge);
    drop(config);
    let reason = drive(Box::pin(connection), life, &activity, &standing, clock, stop).await;
    let Some(refusal) = verdict.refused() else { return reason };
    let refusal = refusal.as_str();
    shared.ground.metrics.transport.unreadable(refusal);
    if let Some(left_out) = shared.refusals.line(refusal, Instant::now()) {
        let id = id.as_ref().map(SpiffeId::as_str);
        tracing::warn!(%address, id, reason = refusal, left_out, "HTTP/1.1 message refused: connection closed");
    }
    CloseReason::Unreadable
}
