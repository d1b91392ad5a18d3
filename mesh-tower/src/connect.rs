//! A verified connection to one endpoint, or the reason why there is none.
//!
//! Whatever fails here fails before a request was written, so every [`ConnectError`] is safe to retry elsewhere.

mod line;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::Mesh;
use mesh_core::config::{HttpVersion, TlsConfig};
use mesh_core::identity::SpiffeId;
use mesh_core::telemetry::{ClusterLimit, ClusterMetrics};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::tls::{ClientTls, HandshakeRefused, PeerRefused, VerifiedPeer};
pub(crate) use line::{Dialing, Line};

/// A byte stream below TLS.
pub trait Io: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Io for T {}

/// A boxed byte stream below TLS.
pub type BoxIo = Box<dyn Io>;

/// What [`Connector::connect`] returns.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxIo>> + Send>>;

/// Opens byte streams to endpoints: TCP, or a simulated network.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Connects to `address`. Dropping the future gives up.
    fn connect(&self, address: SocketAddr) -> Connecting;
}

/// TCP without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: SocketAddr) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }
}

/// The connector that a mesh's clients use, kept beside the mesh.
struct Installed(ArcSwap<Arc<dyn Connector>>);

fn installed(mesh: &Mesh) -> Arc<Installed> {
    mesh.extension(|| Installed(ArcSwap::from_pointee(Arc::new(TcpConnector) as Arc<dyn Connector>)))
}

/// Makes all further connections of `mesh`'s clients go through `connector`.
pub fn install(mesh: &Mesh, connector: Arc<dyn Connector>) {
    installed(mesh).0.store(Arc::new(connector));
}

/// Dials the endpoints of one cluster.
#[derive(Clone)]
pub struct Dialer {
    connector: Arc<Installed>,
    tls: ClientTls,
    timeout: Duration,
    handshakes: Option<Arc<Handshakes>>,
}

/// Turns for TLS handshakes: first come, first served.
#[derive(Debug)]
pub(crate) struct Handshakes {
    turns: ArcSwap<Semaphore>,
    metrics: Arc<ClusterMetrics>,
}

impl Handshakes {
    pub(crate) fn new(max: usize, metrics: Arc<ClusterMetrics>) -> Self {
        Self { turns: ArcSwap::from_pointee(Semaphore::new(max)), metrics }
    }

    /// Another number from now on; those that have or wait for a turn keep to the old one.
    pub(crate) fn reconfigure(&self, max: usize) {
        self.turns.store(Arc::new(Semaphore::new(max)));
    }

    /// Turns that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.turns.load().available_permits()
    }

    /// A turn, given back on drop. Counts those that have to wait, for which they stand in line. Cancel safe.
    async fn turn(&self, dialing: &Dialing) -> Option<OwnedSemaphorePermit> {
        let turns = self.turns.load_full();
        if let Ok(turn) = Arc::clone(&turns).try_acquire_owned() {
            return Some(turn);
        }
        self.metrics.limit_overflows.inc(ClusterLimit::MaxHandshakes);
        let _here = dialing.stand();
        turns.acquire_owned().await.ok() // it is never closed
    }
}

/// The longest that one handshake keeps a turn from others: many times what one takes, and servers that accept and say nothing
/// hold up nobody for long.
const TURN: Duration = Duration::from_millis(250);

/// Runs a handshake, which has `turn` for a while.
async fn during<T>(turn: Option<OwnedSemaphorePermit>, handshake: impl Future<Output = T>) -> T {
    let mut handshake = pin!(handshake);
    if let Some(turn) = turn {
        if let Ok(done) = tokio::time::timeout(TURN, handshake.as_mut()).await {
            return done;
        }
        drop(turn);
    }
    handshake.await
}

/// A finished handshake with an endpoint that is who it should be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The encrypted stream.
    pub io: TlsStream<BoxIo>,
    /// Who answered, and the protocol that ALPN chose.
    pub peer: VerifiedPeer,
}

impl Dialer {
    /// `timeout` covers TCP and TLS together.
    pub fn new(mesh: &Mesh, expected: Vec<SpiffeId>, http: HttpVersion, timeout: Duration) -> Self {
        Self { connector: installed(mesh), tls: ClientTls::new(mesh, expected, http), timeout, handshakes: None }
    }

    /// Allows what `options` allow.
    #[must_use]
    pub fn tls(mut self, options: TlsConfig) -> Self {
        self.tls = self.tls.options(options);
        self
    }

    /// Takes turns with others.
    pub(crate) fn in_turns(mut self, handshakes: Arc<Handshakes>) -> Self {
        self.handshakes = Some(handshakes);
        self
    }

    /// Connects and handshakes. Dropping the future closes what was opened.
    pub async fn dial(&self, address: SocketAddr) -> Result<Connected, ConnectError> {
        self.dial_by(address, &mut (Instant::now() + self.timeout), &Dialing::new(&Line::new())).await
    }

    /// The same until `give_up`, which moves on by the wait for a turn.
    pub(crate) async fn dial_by(
        &self,
        address: SocketAddr,
        give_up: &mut Instant,
        dialing: &Dialing,
    ) -> Result<Connected, ConnectError> {
        let error = |cause| ConnectError { address, cause };
        let connecting = self.connector.0.load().connect(address);
        let io = match tokio::time::timeout_at(*give_up, connecting).await {
            Ok(Ok(io)) => io,
            Ok(Err(io)) => return Err(error(ConnectCause::Transport(io))),
            Err(_) => return Err(error(ConnectCause::ConnectTimeout(self.timeout))),
        };
        let connected = Instant::now();
        let turn = match &self.handshakes {
            Some(handshakes) => handshakes.turn(dialing).await,
            None => None,
        };
        *give_up += connected.elapsed();
        match tokio::time::timeout_at(*give_up, during(turn, self.tls.handshake(io, address))).await {
            Ok(Ok((io, peer))) => Ok(Connected { io, peer }),
            Ok(Err(refused)) => Err(error(ConnectCause::Handshake(refused))),
            Err(_) => Err(error(ConnectCause::HandshakeTimeout(self.timeout))),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("connector", &**self.connector.0.load())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why an endpoint could not be reached. No byte of a request was sent.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {cause}")]
#[non_exhaustive]
pub struct ConnectError {
    /// The endpoint.
    pub address: SocketAddr,
    /// What went wrong.
    #[source]
    pub cause: ConnectCause,
}

impl ConnectError {
    /// A stable code for logs, metrics and audit.
    pub fn reason(&self) -> &'static str {
        match &self.cause {
            ConnectCause::Transport(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connect_refused",
            ConnectCause::Transport(_) => "connect_failed",
            ConnectCause::ConnectTimeout(_) => "connect_timeout",
            ConnectCause::HandshakeTimeout(_) => "handshake_timeout",
            ConnectCause::Handshake(refused) => refused.reason(),
        }
    }

    /// The verdict on the server's certificate, if that was the cause.
    ///
    /// A poisoned or misconfigured endpoint.
    pub fn peer_refused(&self) -> Option<&PeerRefused> {
        match &self.cause {
            ConnectCause::Handshake(HandshakeRefused::Peer(refused)) => Some(refused),
            _ => None,
        }
    }
}

/// The ways in which connecting fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectCause {
    /// The transport did not open.
    #[error("cannot connect: {0}")]
    Transport(#[source] io::Error),
    /// The transport did not open in time.
    #[error("not connected after {0:?}")]
    ConnectTimeout(Duration),
    /// TLS did not finish in time.
    #[error("TLS handshake not finished after {0:?}")]
    HandshakeTimeout(Duration),
    /// TLS failed, or one side refused the other.
    #[error(transparent)]
    Handshake(#[from] HandshakeRefused),
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::future::pending;

    use mesh_core::clock::{SystemClock, WallClock};
    use mesh_core::identity::{Identity, TrustBundleSet};
    use mesh_core::snapshot::Snapshot;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::tls::for_test;

    /// Does with every connection what a test wants.
    #[derive(Debug)]
    struct Scripted(Script);

    type Script = fn(SocketAddr) -> Connecting;

    impl Connector for Scripted {
        fn connect(&self, address: SocketAddr) -> Connecting {
            (self.0)(address)
        }
    }

    /// The other end of a pipe that is kept open and never answers.
    async fn mute(stream: DuplexStream) {
        let _open = stream;
        pending::<()>().await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_to_fail_has_its_reason_and_its_time() {
        let identity = Snapshot::new(Identity { svids: Vec::new(), bundles: Arc::new(TrustBundleSet::default()) });
        let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
        let table: [(Script, &str, u64); 4] = [
            (|_| Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }), "connect_refused", 0),
            (|_| Box::pin(async { Err(io::ErrorKind::NetworkUnreachable.into()) }), "connect_failed", 0),
            (|_| Box::pin(pending()), "connect_timeout", 2),
            (
                |_| {
                    let (ours, theirs) = tokio::io::duplex(1 << 16);
                    tokio::spawn(mute(theirs));
                    Box::pin(async { Ok(Box::new(ours) as BoxIo) })
                },
                "handshake_timeout",
                2,
            ),
        ];
        for (connect, reason, after) in table {
            let dialer = Dialer {
                connector: Arc::new(Installed(ArcSwap::from_pointee(Arc::new(Scripted(connect)) as _))),
                tls: for_test::client(&identity, &clock, &[], HttpVersion::Auto),
                timeout: Duration::from_secs(2),
                handshakes: None,
            };
            let start = Instant::now();
            let error = dialer.dial(([10, 0, 0, 1], 1).into()).await.unwrap_err();
            assert_eq!((error.reason(), start.elapsed().as_secs()), (reason, after), "{error}");
            assert!(error.source().is_some() && error.peer_refused().is_none());
        }
    }

    /// Six servers that accept and then say nothing. Each is given its two seconds, however long it waits for its turn, and
    /// none has a turn for longer than a quarter of a second.
    #[tokio::test(start_paused = true)]
    async fn handshakes_take_turns_and_the_wait_is_not_theirs() {
        for (max, expected, waited) in [(2, [2_000, 2_000, 2_250, 2_250, 2_500, 2_500], 4), (6, [2_000; 6], 0)] {
            let identity = Snapshot::new(Identity { svids: Vec::new(), bundles: Arc::new(TrustBundleSet::default()) });
            let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
            let connect: Script = |_| {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                tokio::spawn(mute(theirs));
                Box::pin(async { Ok(Box::new(ours) as BoxIo) })
            };
            let metrics = mesh_core::telemetry::Metrics::default().client.cluster("shop");
            let dialer = Dialer {
                connector: Arc::new(Installed(ArcSwap::from_pointee(Arc::new(Scripted(connect)) as _))),
                tls: for_test::client(&identity, &clock, &[], HttpVersion::Auto),
                timeout: Duration::from_secs(2),
                handshakes: Some(Arc::new(Handshakes::new(max, Arc::clone(&metrics)))),
            };
            let start = Instant::now();
            // One that is given up gives its turn, or its place in the queue, to the next.
            let mut given_up: Vec<_> = (0..9).map(|_| Box::pin(dialer.dial(([10, 0, 0, 9], 1).into()))).collect();
            for dial in &mut given_up {
                assert!(futures_util::poll!(dial).is_pending());
            }
            drop(given_up);
            let before = metrics.limit_overflows.count(ClusterLimit::MaxHandshakes);
            let dials = (0..6).map(|_| async {
                let error = dialer.dial(([10, 0, 0, 1], 1).into()).await.unwrap_err();
                (error.reason(), start.elapsed().as_millis())
            });
            let ended = futures_util::future::join_all(dials).await;
            assert_eq!(ended, expected.map(|after| ("handshake_timeout", after)));
            assert_eq!(metrics.limit_overflows.count(ClusterLimit::MaxHandshakes) - before, waited);
        }
    }
}
