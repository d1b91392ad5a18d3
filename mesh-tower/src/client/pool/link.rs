//! One connection: who uses it, when it must go, and how it ended.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_core::telemetry::{CloseReason, ClusterMetrics, ConnectFailure};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::cancellations::Cancellations;
use super::last_words::{Cut, FirstWords, Heard, LastWords};
use super::trust::{Judged, Lost, Trust};
use crate::client::replay::ReplayBody;
use crate::client::upload::{Uploads, poll_connection};
use crate::error::{Error, ErrorKind, chain};
use crate::places::Place;

/// How long a broken request waits for the connection's task to say why. The task is on its way to its end already.
const REASON_WAIT: Duration = Duration::from_millis(50);

/// How long a new connection's settings are worth waiting for, instead of another connection.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);

/// A connection that lasted this long was not hung up on.
const SPARE: Duration = Duration::from_secs(1);

/// How long a connection to be replaced waits after its successor failed.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(1);

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

/// Why there is no connection; shared by everybody who waited for it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) counted: ConnectFailure,
    pub(crate) message: Arc<str>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, counted: ConnectFailure, message: impl Into<Arc<str>>) -> Self {
        Self { kind, counted, message: message.into() }
    }

    pub(super) fn error(&self) -> Error {
        let summary = match self.kind {
            ErrorKind::PeerIdentity => "an identity was refused",
            ErrorKind::OwnIdentity => "no identity to present",
            _ => "cannot connect",
        };
        Error::new(self.kind, format!("{summary}: {}", self.message)).never_sent()
    }
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// The whole cause; `None` after an orderly end.
    pub(super) error: Option<Arc<str>>,
    /// The server refused our certificate, so it cannot have read a request.
    pub(super) refused_us: bool,
    ping_timeout: bool,
}

/// The state that a connection's users and its task share.
pub(super) struct Link {
    pub(super) id: u64,
    created: Instant,
    /// When its certificates end.
    retire_at: Option<Instant>,
    /// When it has its greatest age.
    aged_at: Option<Instant>,
    pub(super) peer: Option<Judged>,
    /// Streams in use.
    open: AtomicUsize,
    /// Streams that the peer allows.
    max: AtomicUsize,
    /// Milliseconds after `created`.
    last_used: AtomicU64,
    /// The peer has said how many.
    settled: AtomicBool,
    /// It carried an answer: the server accepted us.
    proven: AtomicBool,
    /// No new streams.
    closing: AtomicBool,
    end: OnceLock<End>,
    /// Tells everybody that `end` is known, in the order in which they came: a `watch` would draw lots.
    over: Notify,
    /// Makes the task look at the connection again.
    nudge: Notify,
    /// Tells one who waits that `settled` is set.
    settling: Notify,
    cancellations: Cancellations,
}

impl Link {
    pub(super) fn new(
        id: u64,
        max: usize,
        retire_at: Option<Instant>,
        aged_at: Option<Instant>,
        peer: Option<Judged>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            created: Instant::now(),
            retire_at,
            aged_at,
            peer,
            open: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            last_used: AtomicU64::new(0),
            settled: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            end: OnceLock::new(),
            over: Notify::new(),
            nudge: Notify::new(),
            settling: Notify::new(),
            cancellations: Cancellations::default(),
        })
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Claims a stream, if the peer allows one more.
    pub(super) fn claim(&self) -> bool {
        if self.closing.load(Relaxed) {
            return false;
        }
        let max = self.max.load(SeqCst);
        // Ordered against the pool's count of waiters: one side always sees the other.
        self.open.fetch_update(SeqCst, SeqCst, |open| (open < max).then_some(open + 1)).is_ok()
    }

    /// Gives a stream back.
    pub(super) fn release(&self) {
        self.open.fetch_sub(1, SeqCst);
        self.last_used.store(self.age().max(1), Relaxed);
    }

    /// Milliseconds.
    fn age(&self) -> u64 {
        let age = Instant::now().saturating_duration_since(self.created);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Somebody left a stream before its end.
    pub(super) fn cancelled(&self) {
        self.cancellations.count(Duration::from_millis(self.age()));
    }

    /// Waits for the settings of a connection just made; `false` if it ends without.
    async fn settles(&self) -> bool {
        let settled = async {
            while !self.settled.load(SeqCst) {
                self.settling.notified().await;
            }
        };
        timeout(SETTINGS_WAIT, settled).await.is_ok() && !self.is_closing()
    }

    /// Whether any request was ever sent over it.
    pub(super) fn is_used(&self) -> bool {
        self.open() > 0 || self.last_used.load(Relaxed) > 0
    }

    /// Nobody ever needed it, and the peer kept it for a while: whatever ended it says nothing against the endpoint.
    pub(super) fn is_spare(&self) -> bool {
        !self.is_used() && self.created.elapsed() >= SPARE
    }

    /// Whether the peer is yet to say how many streams it allows, and may soon.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.settled.load(SeqCst) && !self.is_closing() && self.created.elapsed() < SETTINGS_WAIT
    }

    /// An answer came: the server accepted us.
    pub(super) fn prove(&self) -> bool {
        let first = !self.proven.swap(true, Relaxed);
        if first {
            self.nudge.notify_one();
        }
        first
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    fn idle_since(&self) -> Option<Instant> {
        (self.open() == 0).then(|| self.created + Duration::from_millis(self.last_used.load(Relaxed)))
    }

    /// How the connection ended, for a request that broke on it. With TLS 1.3 a server's refusal of our certificate
    /// shows only here.
    pub(super) async fn ended(&self) -> Option<End> {
        let over = self.over.notified(); // before the look, or an end between the two would not wake it
        if self.end.get().is_none() {
            timeout(REASON_WAIT, over).await.ok()?;
        }
        self.end.get().cloned()
    }

    /// Tells how the connection ended; for its one task, and once.
    fn end(&self, end: End) {
        let _ = self.end.set(end);
        self.over.notify_waiters();
    }
}

impl Protocol {
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<hyper::Result<()>> {
        match self {
            Self::Http1(connection) => Pin::new(connection).poll(cx),
            Self::Http2(connection) => {
                let polled = poll_connection(|| Pin::new(&mut *connection).poll(cx));
                link.max.store(connection.current_max_send_streams(), SeqCst);
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
            () = link.nudge.notified() => Step::Look,
            () = &mut first, if !link.settled.load(Relaxed) => Step::Settled,
            // Also of a connection that takes no more streams: those it has end with the trust in its peer.
            lost = &mut trusted => Step::Closing(Closing::Lost(lost)),
            reason = &mut life, if closed.is_none() => Step::Closing(reason),
        };
        match step {
            Step::Ended(result) => break result,
            Step::Look => {}
            Step::Settled => {
                if let Protocol::Http2(connection) = &connection {
                    link.max.store(connection.current_max_send_streams(), SeqCst);
                }
                link.settled.store(true, SeqCst);
                link.settling.notify_one();
                // Whoever found no room may find some now, or connect.
                if let Some(pool) = pool.upgrade() {
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
            refused_us: !link.is_proven() && alert.is_some(),
            error: Some(alert.unwrap_or_else(|| chain(error).into())),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Idle,
    /// Its certificates end.
    Retired,
    Aged,
    /// Too many of its streams were cancelled.
    Worn,
    /// The peer may not be talked to any more: streams are cut.
    Lost(Lost),
    PoolGone,
}

/// Waits until the connection should take no more streams.
async fn live(link: &Link, pool: &Weak<Shared>) -> Closing {
    // The successor of a connection that is worn or old, and when to look for it again.
    let (mut successor, mut again): (Option<Arc<Link>>, Option<Instant>) = (None, None);
    loop {
        let idle_timeout = match pool.upgrade() {
            Some(pool) => pool.context.settings.load().idle_timeout,
            None => return Closing::PoolGone,
        };
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // What nobody uses needs no successor.
        let wanted = link.is_used() && pool.upgrade().is_some_and(|pool| pool.used_within(idle_timeout));
        if passed(link.retire_at) {
            // The successor first, so that no request waits for it.
            if wanted && let Some(pool) = pool.upgrade() {
                pool.connect().await;
            }
            return Closing::Retired;
        }
        let idle = link.idle_since();
        if idle.is_some_and(|since| since + idle_timeout <= now) {
            return Closing::Idle;
        }
        let (worn, aged) = (link.cancellations.too_many(), passed(link.aged_at));
        if aged && !wanted {
            return Closing::Aged;
        }
        if (worn || aged) && again.is_none_or(|at| at <= now) {
            let Some(pool) = pool.upgrade() else { return Closing::PoolGone };
            // The endpoint may refuse one more, and shows it only after the handshake. This one does well meanwhile.
            if successor.as_ref().is_none_or(|link| link.is_closing()) {
                successor = pool.connect().await;
            }
            // HTTP/1.1 has no settings to wait for.
            let http1 = pool.lock().http1;
            if let Some(successor) = &successor
                && (http1 || successor.settles().await)
            {
                return if worn { Closing::Worn } else { Closing::Aged };
            }
            again = Some(Instant::now() + SUCCESSOR_WAIT);
        }
        let look = idle.unwrap_or(now) + idle_timeout;
        let times = [link.retire_at, link.aged_at, again].into_iter().flatten();
        let look = times.filter(|at| *at > now).fold(look, Instant::min);
        tokio::select! {
            biased;
            () = sleep_until(look) => {}
            () = link.cancellations.reached() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// They go on to draw lots and to take what is left of a budget: by chance, no run of a simulation would be like another.
    #[tokio::test(start_paused = true)]
    async fn whoever_broke_first_with_a_connection_is_told_first() {
        let link = Link::new(0, 100, None, None, None);
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut requests = JoinSet::new();
        for n in 0..16 {
            let (link, told) = (Arc::clone(&link), Arc::clone(&told));
            requests.spawn(async move {
                let end = link.ended().await;
                told.lock().unwrap().push((n, end.is_some()));
            });
        }
        yield_now().await;
        link.end(End { error: None, refused_us: false, ping_timeout: false });
        requests.join_all().await;
        assert_eq!(*told.lock().unwrap(), (0..16).map(|n| (n, true)).collect::<Vec<_>>());
        assert!(link.ended().await.is_some(), "and whoever comes later");
    }
}
