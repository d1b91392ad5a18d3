//! The task of one connection: polls it to its end, and tells why it ended.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_core::telemetry::{CloseReason, ClusterMetrics};

use super::Shared;
use super::last_words::{Cut, FirstWords, Heard, LastWords};
use super::life::{Closing, live};
use super::link::{End, Link};
use super::trust::{Lost, Trust};
use crate::client::replay::ReplayBody;
use crate::client::upload::{Uploads, poll_connection};
use crate::error::chain;
use crate::places::Place;

/// The sending half.
pub(super) enum Sender {
    Http1(http1::SendRequest<ReplayBody>),
    Http2(http2::SendRequest<ReplayBody>),
}

/// The half that must be polled.
pub(super) struct Driven {
    pub(super) connection: Protocol,
    pub(super) first: FirstWords,
    pub(super) heard: Heard,
    pub(super) cut: Cut,
}

pub(super) enum Protocol {
    Http1(Box<http1::Connection<TokioIo<LastWords>, ReplayBody>>),
    Http2(Box<http2::Connection<TokioIo<LastWords>, ReplayBody, Uploads>>),
}

impl Protocol {
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<hyper::Result<()>> {
        match self {
            Self::Http1(connection) => Pin::new(connection).poll(cx),
            Self::Http2(connection) => {
                let polled = poll_connection(|| Pin::new(&mut *connection).poll(cx));
                link.allows(connection.current_max_send_streams());
                polled
            }
        }
    }
}

/// Runs a connection to its end. Holds the pool weakly: without it, the connection ends after its last stream.
/// `_place` among the cluster's connections is given back with it.
pub(super) async fn drive(
    driven: Driven,
    link: Arc<Link>,
    pool: Weak<Shared>,
    metrics: Arc<ClusterMetrics>,
    _place: Option<Place>,
) {
    let mut life = pin!(live(&link, &pool));
    let trust = pool.upgrade().and_then(|pool| Trust::of(&pool));
    let mut trusted = pin!(async {
        match (&trust, &link.peer) {
            (Some(trust), Some(judged)) => trust.lost(judged).await,
            _ => std::future::pending().await,
        }
    });
    let Driven { mut connection, first, heard, cut } = driven;
    let mut first = pin!(first.heard());
    let mut closed = None;
    let result = loop {
        let step = tokio::select! {
            biased;
            result = poll_fn(|cx| connection.poll(cx, &link)) => Step::Ended(result),
            () = link.nudged() => Step::Look,
            () = &mut first, if !link.is_settled() => Step::Settled,
            // Also of a connection that takes no more streams: those it has end with the trust in its peer.
            lost = &mut trusted => Step::Closing(Closing::Lost(lost)),
            reason = &mut life, if closed.is_none() => Step::Closing(reason),
        };
        match step {
            Step::Ended(result) => break result,
            Step::Look => {}
            Step::Settled => {
                let pool = pool.upgrade();
                if let Protocol::Http2(connection) = &connection {
                    let max = connection.current_max_send_streams();
                    link.allows(max);
                    if let Some(pool) = &pool {
                        pool.learn(max);
                    }
                }
                link.settle();
                // Whoever found no room may find some now, or connect.
                if let Some(pool) = pool {
                    pool.wake.notify_waiters();
                }
            }
            Step::Closing(reason) => {
                if let Some(pool) = pool.upgrade() {
                    pool.remove(&link);
                }
                closed = Some(reason);
                if matches!(reason, Closing::Lost(_)) {
                    break Ok(());
                }
            }
        }
    };
    let alert = heard.alert();
    if matches!(closed, Some(Closing::Lost(_))) {
        cut.now();
    }
    // Frees the socket before anybody is told.
    drop(connection);
    let end = match &result {
        Ok(()) if let Some(Closing::Lost(lost)) = closed => {
            End { error: Some(lost.as_str().into()), refused_us: false, ping_timeout: false }
        }
        Ok(()) => End { error: None, refused_us: false, ping_timeout: false },
        Err(error) => End {
            refused_us: !link.is_proven() && alert.as_ref().is_some_and(|alert| alert.refuses_us),
            error: Some(alert.map_or_else(|| chain(error).into(), |alert| alert.text)),
            ping_timeout: error.is_timeout(),
        },
    };
    let reason = match (closed, &end) {
        _ if pool.strong_count() == 0 => CloseReason::EndpointRemoved,
        (Some(Closing::Idle), _) => CloseReason::Idle,
        (Some(Closing::Aged), _) => CloseReason::MaxAge,
        (Some(Closing::Retired), _) => CloseReason::Identity,
        (Some(Closing::Worn), _) => CloseReason::Cancellations,
        (Some(Closing::Lost(Lost::Distrusted)), _) => CloseReason::Distrusted,
        (Some(Closing::Lost(_)), _) => CloseReason::CertificateExpired,
        (Some(Closing::PoolGone), _) => CloseReason::EndpointRemoved,
        (None, End { error: None, .. }) => CloseReason::Peer,
        (None, End { ping_timeout: true, .. }) => CloseReason::PingTimeout,
        (None, _) => CloseReason::Error,
    };
    link.end(end.clone());
    metrics.connections.dec();
    metrics.connections_closed.inc(reason);
    if let Some(pool) = pool.upgrade() {
        pool.lost(&link, &end, closed.is_some());
    }
}

enum Step {
    Ended(hyper::Result<()>),
    Look,
    /// The peer's settings have arrived.
    Settled,
    Closing(Closing),
}
