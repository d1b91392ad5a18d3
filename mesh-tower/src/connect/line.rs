//! Who waits for limits of this process on the way to an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use tokio::time::Instant;

/// The dials to one endpoint that wait for a turn to shake hands (`limits.max_handshakes`).
///
/// Whose time is up while they wait has learnt nothing about the endpoint.
#[derive(Debug)]
pub(crate) struct Line {
    epoch: Instant,
    waiting: AtomicUsize,
    /// When something was last held up here, in milliseconds after `epoch` and one more; 0: never.
    last: AtomicU64,
}

impl Line {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { epoch: Instant::now(), waiting: AtomicUsize::new(0), last: AtomicU64::new(0) })
    }

    /// Nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }

    /// A connection was wanted for which this process has no place (`limits.max_connections`).
    pub(crate) fn held_up(&self) {
        self.last.fetch_max(self.millis(Instant::now()) + 1, Relaxed);
    }

    /// Whether something was held up at some time from `since` to now.
    pub(crate) fn held_up_since(&self, since: Instant) -> bool {
        !self.is_empty() || self.last.load(Relaxed) > self.millis(since)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// One dial: in the line, or not.
#[derive(Debug)]
pub(crate) struct Dialing {
    line: Arc<Line>,
    waits: AtomicBool,
}

impl Dialing {
    pub(crate) fn new(line: &Arc<Line>) -> Self {
        Self { line: Arc::clone(line), waits: AtomicBool::new(false) }
    }

    /// Waits for its turn: nothing but TCP was asked of the endpoint.
    pub(crate) fn is_in_line(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Stands in line until what is returned is dropped.
    pub(crate) fn stand(&self) -> InLine<'_> {
        self.waits.store(true, Relaxed);
        self.line.waiting.fetch_add(1, SeqCst);
        InLine(self)
    }
}

/// A place in the line.
#[derive(Debug)]
pub(crate) struct InLine<'a>(&'a Dialing);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        // In this order: there is no moment at which it seems never to have been here.
        self.0.line.held_up();
        self.0.line.waiting.fetch_sub(1, SeqCst);
        self.0.waits.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_in_line_counts() {
        let line = Line::new();
        let (one, two) = (Dialing::new(&line), Dialing::new(&line));
        let start = Instant::now();
        let wait = |ms| tokio::time::sleep(Duration::from_millis(ms));
        wait(10).await;
        assert!(!line.held_up_since(start));
        let (first, second) = (one.stand(), two.stand());
        wait(10).await;
        drop(first);
        assert_eq!((one.is_in_line(), two.is_in_line(), line.is_empty()), (false, true, false));
        wait(10).await;
        assert!(line.held_up_since(Instant::now()), "the second still waits");
        drop(second);
        let gone = Instant::now();
        wait(10).await;
        assert!(line.is_empty() && line.held_up_since(start) && line.held_up_since(gone));
        assert!(!line.held_up_since(Instant::now()));
    }
}
