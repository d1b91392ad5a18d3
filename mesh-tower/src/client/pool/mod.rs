//! The connections to one endpoint: as few as do, never one too late, and never a broken one twice.
//!
//! Pools that keep one HTTP/2 connection per authority hang when its streams run out (hyper#3623) and go on using it
//! half-dead (hyper-util#319). Pools behind one lock make every core wait for the same line. So each endpoint has a
//! pool of its own; the HTTP/2 path reads an atomic list and claims a stream with one atomic; and every connection has
//! a task that takes it out of the list the moment it ends. Who finds no stream free waits in a fair queue, and only its
//! front claims: callers in a loop would otherwise take back each stream that they release, and starve who waits.
//!
//! ```text
//!            request                 streams run out, or none
//!   ready ------------> claim stream ------------------------> pending queue (bounded)
//!     ^                                                             |
//!     | connected                                              connects for all who wait
//!     |                                                             |
//!   unready <-------- last connection broke, or connect failed <----+
//!     |    reconnects in the background, with backoff
//! ```
//!
//! | it ends because of | streams in use | the endpoint |
//! |---|---|---|
//! | idle timeout | - | stays usable, connects on demand |
//! | certificates growing old | finish, until one ends | a successor is connected first |
//! | its greatest age | finish | a successor is connected first |
//! | many streams that were cancelled | finish | a successor is connected first |
//! | trust in its peer that is lost, a certificate that ended | fail at once | connects on demand |
//! | the peer's GOAWAY or FIN | finish | reconnects at once; unready if that fails |
//! | an error, or pings unanswered | fail, with the connection's own reason | unready, reconnects |
//! | the endpoint leaving the set | finish | gone |

mod cancellations;
mod claim;
mod connecting;
mod dial;
mod drive;
mod last_words;
mod lease;
mod life;
mod link;
mod progress;
mod queue;
mod returning;
mod service;
mod trust;

pub(crate) use dial::{Dial, MeshDial};
#[cfg(test)]
pub(crate) use dial::{DialFuture, Dialed};
pub(crate) use lease::Lease;
#[cfg(test)]
pub(crate) use link::Failure as DialFailure;
pub(crate) use progress::{Chosen, Progress};
pub(crate) use queue::overloaded;
pub use service::Transport;
pub(crate) use service::send;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use mesh_core::clock::WallClock;
use mesh_core::cluster::{EndpointState, Readiness, TransportReport};
use mesh_core::config::PoolConfig;
use mesh_core::identity::Identity;
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::ClusterMetrics;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::limits::ClusterLimits;
use super::replay::ReplayBody;
use crate::connect::Line;
use crate::error::Error;
use drive::Sender;
use link::{Failure, Link};

/// The connections to one endpoint. Dropped, it takes no more requests; those under way finish.
///
/// Small until the first request: most callers talk to few of the endpoints that they know.
pub struct Pool {
    context: Arc<PoolContext>,
    /// Made by the first request.
    shared: OnceLock<Arc<Shared>>,
}

/// What the pools of one cluster have in common.
pub(crate) struct PoolContext {
    pub(crate) limits: Arc<ClusterLimits>,
    pub(crate) dial: Arc<ArcSwap<Box<dyn Dial>>>,
    pub(crate) settings: Arc<ArcSwap<PoolConfig>>,
    /// For judging peers again when trust changes; `None` only in tests without TLS.
    pub(crate) identity: Option<Snapshot<Identity>>,
    pub(crate) clock: Option<Arc<dyn WallClock>>,
    pub(crate) rng: Rng,
    pub(crate) metrics: Arc<ClusterMetrics>,
}

pub(crate) struct Shared {
    address: SocketAddr,
    context: Arc<PoolContext>,
    readiness: Readiness,
    /// The HTTP/2 connections that take streams.
    http2: ArcSwap<Vec<Http2>>,
    lists: Mutex<Lists>,
    /// Requests that wait for a connection.
    pending: AtomicUsize,
    /// Tells whoever's turn it is to look again.
    wake: Notify,
    /// One permit: whose turn it is among those who wait. Fair.
    turn: Semaphore,
    /// Connects that wait for limits of this process.
    line: Arc<Line>,
    /// Tells them that they may be of no use any more.
    eased: Notify,
    epoch: Instant,
    /// Milliseconds after `epoch`.
    last_used: AtomicU64,
    closed: AtomicBool,
}

#[derive(Clone)]
struct Http2 {
    link: Arc<Link>,
    send: http2::SendRequest<ReplayBody>,
}

struct Http1 {
    link: Arc<Link>,
    send: http1::SendRequest<ReplayBody>,
}

/// What is behind the short lock: counted, pushed and popped, never awaited.
#[derive(Default)]
struct Lists {
    /// HTTP/1.1 connections that nobody uses; the last used is taken first.
    idle: Vec<Http1>,
    /// Connections alive, retiring ones excepted.
    alive: Vec<u64>,
    /// Connects under way.
    connecting: usize,
    /// What the last handshake agreed on.
    http1: bool,
    /// How many streams the last HTTP/2 connection was allowed; `None` until one was told.
    streams: Option<usize>,
    /// Rounds in a row of connects that failed, or led to a connection without a single answer.
    failures: u32,
    failed_at: Option<Instant>,
    failure: Option<Failure>,
    /// Grows with each failure, so that a waiter knows that its own connect failed, and of connects that were begun
    /// together and all fail, one counts.
    round: u64,
    reconnecting: bool,
    next_id: u64,
}

impl Lists {
    /// Whether some connection can take a request. One of HTTP/1.1 that is in use cannot, and may be its last use: a
    /// server that drains keeps connections that carry a request, and refuses new ones.
    fn serves(&self) -> bool {
        if self.http1 { !self.idle.is_empty() } else { !self.alive.is_empty() }
    }
}

impl Pool {
    pub(crate) fn new(context: &Arc<PoolContext>) -> Self {
        Self { context: Arc::clone(context), shared: OnceLock::new() }
    }

    fn shared(&self, endpoint: &EndpointState<Self>) -> &Arc<Shared> {
        self.shared.get_or_init(|| {
            Arc::new(Shared {
                address: endpoint.endpoint().address,
                context: Arc::clone(&self.context),
                readiness: endpoint.readiness(),
                http2: ArcSwap::default(),
                lists: Mutex::default(),
                pending: AtomicUsize::new(0),
                wake: Notify::new(),
                turn: Semaphore::new(1),
                line: Line::new(),
                eased: Notify::new(),
                epoch: Instant::now(),
                last_used: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            })
        })
    }

    /// Claims a stream or a connection to `endpoint`, waiting for one if need be: first come, first served. Cancel safe: a waiter
    /// that gives up leaves its place, and the connect it started goes on for others. `progress` learns of a wait.
    pub(crate) async fn acquire(endpoint: &EndpointState<Self>, progress: &Progress) -> Result<Lease, Error> {
        let shared = endpoint.transport().shared(endpoint);
        shared.touch();
        // Not past those who wait: callers that send one request after the other would starve them.
        if shared.pending.load(SeqCst) == 0
            && let Some(lease) = Shared::claim(shared)
        {
            return Ok(lease);
        }
        progress.waits(shared.lock().alive.is_empty());
        let since = Instant::now();
        let result = Shared::wait(shared).await;
        progress.over(since.elapsed());
        result
    }

    /// Whether, at some time from `since` to now, a connection waited for a limit of this process and not for the endpoint.
    pub(crate) fn held_up_since(&self, since: Instant) -> bool {
        self.shared.get().is_some_and(|shared| shared.line.held_up_since(since))
    }

    /// Its connections, for people.
    pub(crate) fn report(&self) -> TransportReport {
        let Some(shared) = self.shared.get() else { return TransportReport::default() };
        let lists = shared.lock();
        TransportReport {
            connections: lists.alive.len(),
            waiting: shared.pending.load(Relaxed),
            failure: lists.failure.as_ref().map(|failure| failure.message.to_string()),
        }
    }

    /// How many connections take requests now.
    pub fn connections(&self) -> usize {
        self.shared.get().map_or(0, |shared| shared.lock().alive.len())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = self.shared.get() else { return };
        shared.closed.store(true, Relaxed);
        // Without a sender a connection ends after its last stream.
        shared.http2.store(Arc::default());
        let idle = std::mem::take(&mut shared.lock().idle);
        drop(idle);
        shared.wake.notify_waiters();
        shared.eased.notify_waiters();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        let now = Instant::now().saturating_duration_since(self.epoch);
        self.last_used.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether a request came within `span`.
    fn used_within(&self, span: Duration) -> bool {
        self.epoch + Duration::from_millis(self.last_used.load(Relaxed)) + span > Instant::now()
    }

    /// Claims what is free now. HTTP/2 takes the connection with the fewest streams and touches no lock.
    fn claim(shared: &Arc<Self>) -> Option<Lease> {
        let http2 = shared.http2.load();
        let free = http2.iter().filter(|c| !c.send.is_closed()).min_by_key(|c| c.link.open());
        if let Some(connection) = free {
            let connections = std::iter::once(connection).chain(http2.iter());
            // The emptiest may have filled up since; then any that has room.
            for connection in connections {
                if !connection.send.is_closed() && connection.link.claim() {
                    return Some(Lease::http2(connection.clone(), Arc::clone(shared)));
                }
            }
            return None;
        }
        let mut lists = shared.lock();
        while let Some(connection) = lists.idle.pop() {
            // One that is new takes its first request before its task has run: it is not ready, and good.
            if !connection.send.is_closed() && connection.link.claim() {
                return Some(Lease::http1(connection, Arc::clone(shared)));
            }
        }
        None
    }

    fn add(self: &Arc<Self>, link: Arc<Link>, send: Sender) {
        self.context.metrics.connections_opened.inc();
        self.context.metrics.connections.inc();
        {
            let mut lists = self.lock();
            if self.closed.load(Relaxed) {
                return; // dropping the sender ends it
            }
            lists.alive.push(link.id);
            lists.http1 = matches!(send, Sender::Http1(_));
            match send {
                Sender::Http1(send) => lists.idle.push(Http1 { link, send }),
                Sender::Http2(send) => {
                    let mut connections = Vec::clone(&self.http2.load());
                    connections.push(Http2 { link, send });
                    self.http2.store(Arc::new(connections));
                }
            }
        }
        self.readiness.ready();
    }

    /// Takes a connection out: no new streams. Those under way go on.
    fn remove(&self, link: &Link) {
        link.close();
        let mut lists = self.lock();
        lists.alive.retain(|id| *id != link.id);
        let idle = lists.idle.iter().position(|c| c.link.id == link.id).map(|at| lists.idle.remove(at));
        let mut connections = Vec::clone(&self.http2.load());
        connections.retain(|c| c.link.id != link.id);
        self.http2.store(Arc::new(connections));
        drop(lists);
        drop(idle);
    }
}

#[cfg(test)]
mod sizes;
