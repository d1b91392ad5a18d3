//! One connection: who uses it, when it must go, and how it ended.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mesh_core::telemetry::ConnectFailure;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::cancellations::Cancellations;
use super::trust::Judged;
use crate::error::{Error, ErrorKind};

/// How long a broken request waits for the connection's task to say why. The task is on its way to its end already.
const REASON_WAIT: Duration = Duration::from_millis(50);

/// How long a new connection's settings are worth waiting for, instead of another connection.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);

/// A connection that lasted this long was not hung up on.
const SPARE: Duration = Duration::from_secs(1);

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
    pub(super) ping_timeout: bool,
}

/// The state that a connection's users and its task share.
pub(super) struct Link {
    pub(super) id: u64,
    /// In which round of connects it was made.
    pub(super) round: u64,
    created: Instant,
    /// When its certificates end.
    pub(super) retire_at: Option<Instant>,
    /// When it has its greatest age.
    pub(super) aged_at: Option<Instant>,
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
    pub(super) cancellations: Cancellations,
}

impl Link {
    pub(super) fn new(
        (id, round): (u64, u64),
        max: usize,
        retire_at: Option<Instant>,
        aged_at: Option<Instant>,
        peer: Option<Judged>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            round,
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

    /// The peer allows so many streams from now on.
    pub(super) fn allows(&self, max: usize) {
        self.max.store(max, SeqCst);
    }

    /// Streams that can be claimed, now or once the peer has said so: then `usual` of them.
    pub(super) fn room(&self, usual: usize) -> usize {
        let max = if self.is_unsettled() { usual } else { self.max.load(SeqCst) };
        if self.is_closing() { 0 } else { max.saturating_sub(self.open()) }
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

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    /// The peer's settings are here.
    pub(super) fn settle(&self) {
        self.settled.store(true, SeqCst);
        self.settling.notify_one();
    }

    /// Waits for a reason to look at the connection again.
    pub(super) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Tells whoever broke with it how it ended; for its one task, and once.
    pub(super) fn end(&self, end: End) {
        let _ = self.end.set(end);
        self.over.notify_waiters();
    }

    /// Waits for the settings of a connection just made; `false` if it ends without.
    pub(super) async fn settles(&self) -> bool {
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

    pub(super) fn idle_since(&self) -> Option<Instant> {
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
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// They go on to draw lots and to take what is left of a budget: by chance, no run of a simulation would be like another.
    #[tokio::test(start_paused = true)]
    async fn whoever_broke_first_with_a_connection_is_told_first() {
        let link = Link::new((0, 0), 100, None, None, None);
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
