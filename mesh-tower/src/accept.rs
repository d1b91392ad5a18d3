//! The accept loop: survives every error, never waits for a handshake, ends when told to.
//!
//! `axum::serve` sets no timer, so its header timeouts are inert, and it handshakes nothing. This loop bounds
//! connections, handshakes and their times, and judges each peer before a byte of HTTP is read.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use mesh_core::config::ListenerConfig;
use mesh_core::telemetry::Metrics;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tower_service::Service;

use crate::transport::{Ground, HalfOpen, Seat, Seats, Shared, Sparing, serve_connection};

/// The pause after an accept error that will not pass by itself, for example too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How much longer than `drain_timeout` the end is waited for, before tasks are aborted.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Where connections come from: a TCP listener, or a simulated network.
pub trait Accept: Send + 'static {
    /// The byte stream below TLS.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection. Must be cancel safe: dropped before it is ready, it has taken none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// How many connections the system can hold open, if there is such a bound. Asked once, at the start.
    fn max_open(&self) -> Option<usize> {
        None
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = TcpListener::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot switch off Nagle's delay"); // the peer is gone already
        }
        Ok((stream, address))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    /// Three quarters of the open files limit: the rest is for files, and for the calls that handlers make.
    #[cfg(unix)]
    fn max_open(&self) -> Option<usize> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
        usize::try_from(files - files / 4).ok()
    }
}

/// A listener whose connections are bounded and whose errors are survived.
pub(crate) struct Incoming<L> {
    listener: L,
    /// What bounds its connections, for metrics and logs.
    limit: &'static str,
    slots: Arc<Seats>,
    half_open: Arc<HalfOpen>,
    metrics: Arc<Metrics>,
    lines: Sparing,
    /// Whether the last accept had to wait for a place.
    full: bool,
    /// Whether the last accept failed for want of a resource.
    failing: bool,
}

impl<L: Accept> Incoming<L> {
    /// `half_open` are those of its connections that give way when there are too many.
    pub(crate) fn new(
        listener: L,
        (limit, slots): (&'static str, Arc<Seats>),
        half_open: Arc<HalfOpen>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { listener, limit, slots, half_open, metrics, lines: Sparing::default(), full: false, failing: false }
    }

    /// The next connection and its slot. Errors are counted, logged once per streak, and survived.
    ///
    /// Cancel safe. Waits for a slot first, and until less than `max_half_open` connections are half open: what is not
    /// accepted waits in the kernel's backlog.
    pub(crate) async fn next(&mut self, max_half_open: usize) -> Option<(L::Io, SocketAddr, Seat)> {
        let slot = match self.slots.try_take() {
            Some(slot) => {
                self.full = false;
                slot
            }
            None => {
                if !std::mem::replace(&mut self.full, true) {
                    self.metrics.transport.waited(self.limit);
                    if let Some(left_out) = self.lines.line(self.limit, Instant::now()) {
                        tracing::warn!(
                            limit = self.limit,
                            left_out,
                            "all places are taken: newcomers wait until a connection ends"
                        );
                    }
                }
                self.half_open.until(self.slots.take()).await
            }
        };
        self.half_open.room(max_half_open).await;
        loop {
            let error = match self.listener.accept().await {
                Ok((io, address)) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("accepting connections again");
                    }
                    return Some((io, address, slot));
                }
                Err(error) => error,
            };
            if passes_by_itself(&error) {
                self.metrics.transport.accept_error("connection");
                tracing::debug!(%error, "a connection was lost before it was accepted");
                continue;
            }
            self.metrics.transport.accept_error("resource");
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(%error, "cannot accept connections (open files limit?); trying again every {BACK_OFF:?}");
            }
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}

/// Errors of one connection, not of the listener.
fn passes_by_itself(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How a server is told to stop.
pub(crate) struct Stop<S, D, C> {
    /// Ready when it shall.
    pub(crate) signal: S,
    /// Called then, so that it gets no new traffic.
    pub(crate) draining: D,
    /// Ready when it shall not wait for anything any more. Not asked for before `signal` came.
    pub(crate) cut: C,
}

/// Accepts and serves until `stop.signal` is ready, calls `draining` and goes on for `shutdown_delay`, then drains: no new
/// connections, GOAWAY on all, requests in flight finish within `drain_timeout`, the rest is cut. Once stopping has begun,
/// `cut` ends everything at once.
///
/// `settings` is asked for each connection, so that a reload holds for new ones, and at each reload for the number of
/// places. Dropping the future cuts every connection.
pub(crate) async fn run<L, S>(
    ground: Ground,
    name: Arc<str>,
    listener: L,
    service: S,
    settings: impl Fn() -> ListenerConfig,
    stop: Stop<impl Future<Output = ()>, impl FnOnce(), impl Future<Output = ()>>,
) -> io::Result<()>
where
    L: Accept,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let configured = || settings().max_connections;
    let mut wanted = configured();
    let max_open = listener.max_open().map_or(usize::MAX, |open| open.max(1));
    // Whoever reads the configuration finds the places that there are: shares of more would be no shares.
    let settings = || {
        let mut config = settings();
        config.max_connections = config.max_connections.min(max_open);
        config
    };
    let mut revisions = ground.revision.subscribe();
    let start = settings();
    let shared = Arc::new(Shared::new(ground, name, &start, listener.local_addr()?));
    // Until the last connection has ended, draining included. Dropped, it is aborted.
    let mut patrol = JoinSet::new();
    patrol.spawn({
        let shared = Arc::clone(&shared);
        async move { shared.supervise().await }
    });
    tracing::info!(address = %shared.local_addr, "serving");
    warn_of_files(wanted, &start);
    let mut incoming = Incoming::new(
        listener,
        ("max_connections", Arc::clone(&shared.connections)),
        Arc::clone(&shared.half_open),
        Arc::clone(&shared.ground.metrics),
    );
    let (stop_all, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let (mut signal, mut cut) = (std::pin::pin!(stop.signal), std::pin::pin!(stop.cut));
    let (mut draining, mut last_call) = (Some(stop.draining), None);
    let hurried = loop {
        let over = async {
            match last_call {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In one order, so that a run can be played again. Nobody starves: of connections no more end than came, and
            // what else stands before the newcomers is rare.
            biased;
            () = &mut signal, if last_call.is_none() => {
                if let Some(draining) = draining.take() {
                    draining();
                }
                let delay = settings().shutdown_delay;
                last_call = Some(Instant::now() + delay);
                tracing::info!(address = %shared.local_addr, ?delay, "stopping: not ready, still serving");
            }
            () = over => break false,
            () = &mut cut, if last_call.is_some() => break true,
            _ = revisions.changed() => {
                let config = settings();
                shared.resize(&config);
                if std::mem::replace(&mut wanted, configured()) != wanted {
                    warn_of_files(wanted, &config);
                }
            }
            Some(ended) = connections.join_next() => report(ended, &shared.ground.metrics),
            Some((io, address, slot)) = incoming.next(settings().half_open_limit()) => {
                let config = settings();
                let limit = config.per_ip_limit();
                let Some(place) = shared.addresses.take(address.ip(), limit) else {
                    shared.ground.metrics.transport.refused("per_ip");
                    if let Some(left_out) = shared.refusals.line("per_ip", Instant::now()) {
                        tracing::warn!(%address, limit, left_out, "too many connections from one address");
                    }
                    continue;
                };
                let half_open = shared.half_open.enter(); // here, or a burst would be let in before the first is counted
                // Boxed on their way: each future that they passed through would keep room for them.
                let (config, service) = (Box::new(config), Box::new(service.clone()));
                let shared = Arc::clone(&shared);
                let connection = serve_connection(io, address, config, service, shared, half_open, stopped.clone());
                connections.spawn(Placed { connection, _places: (slot, place) });
            }
        }
    };
    drop(incoming);
    stop_all.send_replace(true);
    let patience = settings().drain_timeout;
    tracing::info!(address = %shared.local_addr, connections = connections.len(), ?patience, "draining");
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended, &shared.ground.metrics);
        }
    };
    let ended = tokio::select! {
        biased;
        // Each connection cuts itself after `drain_timeout`; this is for one that cannot.
        ended = tokio::time::timeout(patience + ABORT_GRACE, all_ended), if !hurried => ended.is_ok(),
        () = &mut cut, if !hurried => false,
        else => false,
    };
    if !ended {
        tracing::warn!(connections = connections.len(), "connections that have not ended yet are cut");
        connections.shutdown().await;
    }
    tracing::info!(address = %shared.local_addr, "stopped");
    Ok(())
}

/// `config` has the places that there are; `wanted` were asked for.
fn warn_of_files(wanted: usize, config: &ListenerConfig) {
    if config.max_connections < wanted {
        tracing::warn!(
            places = config.max_connections,
            max_connections = wanted,
            max_half_open = config.half_open_limit(),
            max_connections_per_ip = config.per_ip_limit(),
            max_connections_per_peer = config.per_peer_limit(),
            "fewer places than `max_connections`: raise the open files limit (`ulimit -n`)"
        );
    }
}

pin_project! {
    /// A connection with the places that it takes. (An async block would hold it twice: as given, and as awaited.)
    struct Placed<F, P> {
        #[pin]
        connection: F,
        _places: P,
    }
}

impl<F: Future, P> Future for Placed<F, P> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().connection.poll(cx)
    }
}

/// A panic in one connection's task ends that connection and nothing else.
fn report(ended: Result<(), JoinError>, metrics: &Metrics) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics.runtime.task_panics.inc();
        tracing::error!(%error, "a connection's task panicked; other connections go on");
    }
}
