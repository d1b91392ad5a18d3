//! Orders at a steady rate, each one counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::caller::Caller;
use super::wait::until;
use crate::Error;

/// One order each: 100 a second.
const EVERY: Duration = Duration::from_millis(10);
/// Orders under way at most; the next one waits. A machine that cannot keep up gets fewer, not a pile of them.
const IN_FLIGHT: usize = 16;
const PROGRESS: Duration = Duration::from_secs(15);

/// Orders that go on until [`end`](Self::end).
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    task: JoinHandle<Tally>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The numbers of the orders that were paid.
    pub(crate) paid: Vec<u64>,
    /// Why each of the others was not.
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Load {
    pub(crate) fn start(caller: &Caller, token: &str) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(run(caller.clone(), Arc::from(token), Arc::clone(&stop), Arc::clone(&good)));
        Self { stop, good, task }
    }

    /// Waits until this many more orders have succeeded.
    pub(crate) async fn goes_on(&self, more: usize) -> Result<(), Error> {
        let enough = self.good.load(Relaxed) + more;
        let progress = || async { Ok((self.good.load(Relaxed) >= enough).then_some(())) };
        until("paid orders", PROGRESS, progress).await.map(drop)
    }

    /// Stops, and waits for the answers to all orders that are under way.
    pub(crate) async fn end(mut self) -> Result<Tally, Error> {
        self.stop.store(true, Relaxed);
        Ok((&mut self.task).await?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Tally {
    pub(crate) fn text(&self) -> String {
        let all = self.paid.len() + self.failed.len();
        let first = self.failed.first().map(|why| format!(", the first: {why}")).unwrap_or_default();
        format!("{all} orders, {} failed{first}; the slowest took {} ms", self.failed.len(), self.slowest.as_millis())
    }
}

type Answer = (Result<u64, String>, Duration);

async fn run(caller: Caller, token: Arc<str>, stop: Arc<AtomicBool>, good: Arc<AtomicUsize>) -> Tally {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let (send, mut answers) = mpsc::channel::<Answer>(IN_FLIGHT);
    let counting = tokio::spawn(async move {
        let mut tally = Tally::default();
        while let Some((answer, took)) = answers.recv().await {
            tally.slowest = tally.slowest.max(took);
            match answer {
                Ok(id) => {
                    good.fetch_add(1, Relaxed);
                    tally.paid.push(id);
                }
                Err(why) => tally.failed.push(why),
            }
        }
        tally
    });
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Relaxed) {
        tick.tick().await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let (caller, token, send) = (caller.clone(), Arc::clone(&token), send.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            let answer = order(&caller, &token).await;
            let _ = send.send((answer, start.elapsed())).await;
            drop(place);
        });
    }
    drop(send);
    counting.await.unwrap_or_default()
}

/// One order: its number if it was paid, with the receipt read to its end.
async fn order(caller: &Caller, token: &str) -> Result<u64, String> {
    let ordered = caller.order(Some(token)).await.map_err(|error| error.to_string())?;
    let (id, status) = (ordered.id, ordered.status());
    match ordered.answer.bytes().await {
        Ok(_) if status == 200 => Ok(id),
        Ok(_) => Err(format!("order {id} was answered with {status}")),
        Err(error) => Err(error.to_string()),
    }
}
