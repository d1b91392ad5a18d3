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
//!     | connected                                              one connect for all who wait
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
mod dial;
mod last_words;
mod lease;
mod link;
mod progress;
mod service;
mod trust;

#[cfg(test)]
pub(crate) use dial::Dialed;
pub(crate) use dial::{Dial, MeshDial};
pub(crate) use lease::Lease;
#[cfg(test)]
pub(crate) use link::Failure as DialFailure;
pub(crate) use progress::{Chosen, Progress};
pub use service::Transport;
pub(crate) use service::send;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use mesh_core::clock::WallClock;
use mesh_core::cluster::{EndpointState, Readiness, TransportReport};
use mesh_core::config::PoolConfig;
use mesh_core::identity::Identity;
use mesh_core::retry::{FAIL_FAST, Reconnects};
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::{ClusterMetrics, ConnectFailure};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::limits::ClusterLimits;
use super::replay::ReplayBody;
use crate::error::{Error, ErrorKind};
use crate::places::Place as ConnectionPlace;
use link::{End, Failure, Link, Sender};

/// HTTP/1.1 carries one request at a time and so needs more connections than HTTP/2. (`PoolConfig::max_connections`)
const HTTP1_FACTOR: usize = 64;
/// By how much a connection may be replaced before its greatest age.
const AGE_JITTER: f64 = 0.1;

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
    /// Connects in a row that failed, or led to a connection without a single answer.
    failures: u32,
    failed_at: Option<Instant>,
    failure: Option<Failure>,
    /// Grows with each failed connect, so that a waiter knows that its own failed.
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
        let result = Self::wait(shared).await;
        progress.over(since.elapsed());
        result
    }

    async fn wait(shared: &Arc<Shared>) -> Result<Lease, Error> {
        let _place = shared.enqueue()?;
        let round = shared.lock().round;
        let _turn = Shared::turn(shared, round).await?;
        // Whoever comes to their turn looks for themselves first, so a wake-up is never lost with one who left.
        loop {
            let mut woken = pin!(shared.wake.notified());
            woken.as_mut().enable();
            if let Some(lease) = Shared::claim(shared) {
                return Ok(lease);
            }
            Shared::connect_on_demand(shared, round).map_err(|failure| failure.error())?;
            woken.await;
        }
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
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// The error of a request that finds the queue full.
pub(crate) fn overloaded(max: usize) -> Error {
    let message = format!("{max} requests wait for a connection already (pool.max_pending)");
    Error::new(ErrorKind::Overloaded, message).never_sent()
}

/// A place in the pending queue.
struct Place<'a>(&'a Shared);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, SeqCst);
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

    fn enqueue(&self) -> Result<Place<'_>, Error> {
        let max = self.context.settings.load().max_pending;
        match self.pending.fetch_update(SeqCst, SeqCst, |pending| (pending < max).then_some(pending + 1)) {
            Ok(_) => Ok(Place(self)),
            Err(_) => {
                self.context.limits.pending_refused();
                Err(overloaded(max))
            }
        }
    }

    /// Waits for the front of the queue. Connects are begun from every place in it.
    async fn turn(shared: &Arc<Self>, round: u64) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(turn) = shared.turn.try_acquire() {
            return Ok(turn);
        }
        Self::connect_on_demand(shared, round).map_err(|failure| failure.error())?;
        let turn = shared.turn.acquire().await;
        turn.map_err(|closed| Error::new(ErrorKind::Connection, "nobody is served").caused_by(closed).never_sent())
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

    /// Starts connects for those who wait, unless enough are under way. Fails fast where one has just failed.
    fn connect_on_demand(shared: &Arc<Self>, since: u64) -> Result<(), Failure> {
        let mut lists = shared.lock();
        if shared.closed.load(Relaxed) {
            return Err(Failure::new(ErrorKind::Connect, ConnectFailure::Tcp, "the endpoint has left the cluster"));
        }
        if let Some(failure) = &lists.failure {
            let just_failed = lists.failed_at.is_some_and(|at| at.elapsed() < FAIL_FAST);
            if lists.round != since || (just_failed && lists.connecting == 0) {
                return Err(failure.clone());
            }
        }
        // Most often it has room for all, once its peer has said so; then they wake.
        if shared.http2.load().iter().any(|connection| connection.link.is_unsettled()) {
            return Ok(());
        }
        let settings = shared.context.settings.load();
        let (max, wanted) = if lists.http1 {
            (settings.max_connections.saturating_mul(HTTP1_FACTOR), shared.pending.load(Relaxed))
        } else {
            (settings.max_connections, 1)
        };
        let room = max.saturating_sub(lists.alive.len() + lists.connecting);
        for _ in 0..wanted.saturating_sub(lists.connecting).min(room) {
            let Some(place) = shared.context.limits.connection(lists.alive.len() + lists.connecting == 0) else {
                break;
            };
            lists.connecting += 1;
            let shared = Arc::clone(shared);
            // Not the waiter's task: a waiter that gives up must not take the others' connection with it. Bounded by
            // `connect_timeout`, and by the wait for its turn to shake hands.
            tokio::spawn(async move { _ = shared.finish_connect(Some(place)).await });
        }
        Ok(())
    }

    /// Makes one connection; `None` if that failed. Boxed, because a connection's own task calls it for its successor.
    fn connect(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        self.lock().connecting += 1;
        self.connect_counted()
    }

    fn connect_counted(self: &Arc<Self>) -> Pin<Box<dyn Future<Output = Option<Arc<Link>>> + Send>> {
        let shared = Arc::clone(self);
        // The only one of its endpoint, or the successor of one that goes.
        let place = self.context.limits.connection(true);
        Box::pin(async move { shared.finish_connect(place).await })
    }

    /// Whether a request can be taken, after one connect where there was none: that of a request under way will do.
    async fn comes_back(self: &Arc<Self>) -> bool {
        let mut woken = pin!(self.wake.notified());
        woken.as_mut().enable();
        let under_way = {
            let mut lists = self.lock();
            if lists.serves() {
                return true;
            }
            let under_way = lists.connecting > 0;
            lists.connecting += usize::from(!under_way);
            under_way
        };
        if !under_way {
            return self.connect_counted().await.is_some();
        }
        woken.await;
        self.lock().serves()
    }

    /// The second half of a connect that is counted already.
    async fn finish_connect(self: &Arc<Self>, place: Option<ConnectionPlace>) -> Option<Arc<Link>> {
        struct Counted<'a>(&'a Shared);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.lock().connecting -= 1;
            }
        }
        let counted = Counted(self);
        let settings = self.context.settings.load_full();
        let result = dial::connect(&**self.context.dial.load_full(), self.address, &settings).await;
        let connected = match result {
            Ok(((send, driven), http2, peer, retire_at)) => {
                let max = if http2 { dial::INITIAL_STREAMS } else { 1 };
                let link = Link::new(self.next_id(), max, retire_at, self.grows_old(&settings), peer);
                self.add(Arc::clone(&link), send);
                let metrics = Arc::clone(&self.context.metrics);
                // Not in an async block: it would hold the future twice, as given and as awaited.
                tokio::spawn(link::drive(driven, Arc::clone(&link), Arc::downgrade(self), metrics, place));
                Some(link)
            }
            Err(failure) => {
                self.context.metrics.connections_failed.inc(failure.counted);
                self.failed(failure);
                None
            }
        };
        drop(counted);
        // After the count went down, so that whoever wakes may connect again.
        self.wake.notify_waiters();
        connected
    }

    /// When a connection that is made now has reached its greatest age.
    fn grows_old(&self, settings: &PoolConfig) -> Option<Instant> {
        let age = Some(settings.max_connection_age).filter(|age| !age.is_zero())?;
        Instant::now().checked_add(age.mul_f64(1.0 - AGE_JITTER * self.context.rng.unit()))
    }

    fn next_id(&self) -> u64 {
        let mut lists = self.lock();
        lists.next_id += 1;
        lists.next_id
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

    /// A connect failed, or a connection broke before it carried one answer.
    fn failed(self: &Arc<Self>, failure: Failure) {
        tracing::debug!(endpoint = %self.address, error = %failure.message, "connect failed");
        let alone = {
            let mut lists = self.lock();
            lists.failures = lists.failures.saturating_add(1);
            lists.failed_at = Some(Instant::now());
            lists.failure = Some(failure);
            lists.round += 1;
            !lists.serves()
        };
        if alone {
            self.readiness.unready();
            self.reconnect();
        }
    }

    /// A connection carried its first answer.
    fn proven(&self) {
        let mut lists = self.lock();
        lists.failures = 0;
        lists.failure = None;
        lists.failed_at = None;
    }

    /// A connection ended; `expected` if we wanted it to.
    fn lost(self: &Arc<Self>, link: &Link, end: &End, expected: bool) {
        self.remove(link);
        if !expected {
            let cause = end.error.as_deref().unwrap_or("closed by the peer");
            tracing::debug!(endpoint = %self.address, %cause, "connection lost");
            // A server that goes away in good order while it works on our first request has accepted us.
            let working = end.error.is_none() && link.open() > 0;
            if link.is_spare() {
                // Most often it has grown too old for the server, which then cuts it.
                if self.lock().alive.is_empty() && self.used_within(self.context.settings.load().idle_timeout) {
                    self.reconnect();
                }
            } else if !link.is_proven() && !working {
                // It took the handshake and then hung up on us.
                let (kind, counted) = if end.refused_us {
                    (ErrorKind::PeerIdentity, ConnectFailure::Identity)
                } else {
                    (ErrorKind::Connect, ConnectFailure::Http)
                };
                self.context.metrics.connections_failed.inc(counted);
                self.failed(Failure::new(kind, counted, cause));
            } else if self.lock().alive.is_empty() {
                if end.error.is_some() {
                    self.readiness.unready();
                }
                if end.error.is_some() || self.used_within(self.context.settings.load().idle_timeout) {
                    self.reconnect();
                }
            }
        }
        self.wake.notify_waiters();
    }

    /// Tries to connect until it succeeds, in the background, so that an endpoint returns by itself.
    fn reconnect(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().reconnecting, true) || self.closed.load(Relaxed) {
            return;
        }
        let (weak, reconnects) = (Arc::downgrade(self), Reconnects::new(&self.context.rng));
        tokio::spawn(async move {
            loop {
                let Some(pool) = weak.upgrade() else { return };
                let wait = reconnects.wait(pool.lock().failures);
                let changes = pool.context.identity.as_ref().map(Snapshot::subscribe);
                drop(pool);
                // A newer identity may be what was missing: here, or where the same authority serves the peer.
                let renewed = async {
                    match changes {
                        Some(mut changes) => drop(changes.changed().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = renewed => {}
                }
                let Some(pool) = weak.upgrade() else { return };
                if pool.closed.load(Relaxed) {
                    return;
                }
                if pool.comes_back().await {
                    let mut lists = pool.lock();
                    // It may be gone again already, and then `failed` found this task still running.
                    if !lists.alive.is_empty() {
                        lists.reconnecting = false;
                        return;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod sizes;
