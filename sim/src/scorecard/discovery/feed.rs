//! A source that falls silent, and a start without one.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use futures_core::Stream;
use mesh_core::clock::{ManualClock, WallClock};
use mesh_core::cluster::{Cluster, Tried};
use mesh_core::config::{ClusterConfig, DiscoveryConfig, PlugConfig};
use mesh_core::discover::{Endpoint, Feed, Resolve, ResolveError, SnapshotFile, Update, Updates};
use mesh_core::health::Outcome;
use mesh_core::rng::Rng;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::scorecard::{Control, Row, Seen};

pub(super) const ROWS: [Row; 2] = [
    Row {
        name: "discovery-outage",
        target: "discovery dead for 24 h, timers jumping by hours and the calendar by a day either way, processes starting anew from the snapshot: 0 requests without an endpoint",
        mesh: |seed| outage(seed, |_| stale()),
        controls: &[
            Control {
                without: "an outage of the source is taken for the end of the service",
                run: |seed| outage(seed, |_| Update::Gone),
            },
            Control {
                without: "what was known 36 h ago by the calendar is not believed any more",
                run: |seed| {
                    outage(seed, |age| if age > Duration::from_secs(36 * 3600) { Update::Gone } else { stale() })
                },
            },
        ],
    },
    Row {
        name: "cold-start",
        target: "started while discovery is dead: all endpoints in force within 1 s, from the snapshot",
        mesh: |seed| cold_start(seed, true),
        controls: &[Control { without: "no snapshot", run: |seed| cold_start(seed, false) }],
    },
];

/// What a test says is what the source says.
#[derive(Debug)]
pub(super) struct Told(Mutex<Option<UnboundedReceiver<Update>>>);

struct Words(UnboundedReceiver<Update>);

impl Stream for Words {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        self.0.poll_recv(cx)
    }
}

impl Resolve for Told {
    fn watch(&self) -> Updates {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Asked a second time it would say nothing, for ever: a cluster follows it once.
        Box::pin(Words(words.unwrap_or_else(|| unbounded_channel().1)))
    }
}

pub(super) fn told() -> (UnboundedSender<Update>, Arc<Told>) {
    let (say, hear) = unbounded_channel();
    (say, Arc::new(Told(Mutex::new(Some(hear)))))
}

pub(super) fn cluster(rng: Rng) -> Cluster<()> {
    let config = ClusterConfig::new(source(), Vec::new());
    Cluster::new("web", &config, rng, Arc::default(), |_, _| ())
}

fn source() -> PlugConfig {
    PlugConfig::new("told", &serde_json::Value::Null)
}

pub(super) fn endpoint(number: usize) -> Endpoint {
    Endpoint::new(([10, 0, (number >> 8) as u8, number as u8], 8443).into())
}

/// Runs in virtual time.
///
/// # Panics
///
/// If a runtime without sockets cannot be made.
#[allow(clippy::expect_used)] // see above
pub(super) fn virtually<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without sockets").block_on(future)
}

/// Lets the tasks that follow sources catch up, until `done`; gives up when they have nothing to do.
pub(super) async fn until(done: impl Fn() -> bool) -> bool {
    for _ in 0..1_000 {
        if done() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    done()
}

fn stale() -> Update {
    Update::Stale(ResolveError("nobody answers".into()))
}

/// When the calendar's jumps begin, in seconds since 1970.
const EPOCH: u64 = 1_700_000_000;
const DAY: u64 = 24 * 3600;

/// `word`: what the dead source comes to, by how old its last set is to the calendar.
fn outage(seed: u64, word: impl Fn(Duration) -> Update) -> Seen {
    let directory = match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(error) => return no_directory(&error),
    };
    let rng = Rng::seeded(seed);
    let count = 3 + rng.below(20);
    let clock = Arc::new(ManualClock::at_unix(EPOCH));
    virtually(remember(directory.path(), count, rng.fork(), &clock));
    virtually(async {
        let start = || {
            let (say, source) = told();
            let cluster = cluster(rng.fork());
            tokio::spawn(cluster.follow(Feed::from(source).snapshot(file(directory.path(), &clock))));
            (say, cluster)
        };
        let (mut say, mut cluster) = start();
        let _ = say.send(Update::Endpoints((0..count).map(endpoint).collect::<Vec<_>>().into()));
        until(|| cluster.resolved()).await;
        let begin = Instant::now();
        let (mut requests, mut failed, mut starts) = (0_u64, 0_u64, 0);
        while begin.elapsed().as_secs() < DAY {
            // From a moment to hours at once.
            tokio::time::advance(Duration::from_secs(1 << rng.below(13))).await;
            // A day behind, right, or a day ahead.
            let now = EPOCH + begin.elapsed().as_secs() + DAY * rng.below(3) as u64;
            clock.set(UNIX_EPOCH + Duration::from_secs(now - DAY));
            let age = Duration::from_secs((now - DAY).saturating_sub(EPOCH));
            if rng.below(10) == 0 {
                starts += 1;
                (say, cluster) = start();
            }
            let _ = say.send(word(age));
            until(|| false).await;
            let _ = tokio::time::timeout(Duration::from_secs(1), cluster.until_resolved()).await;
            for _ in 0..10 {
                requests += 1;
                match cluster.pick(&Tried::default(), Instant::now()) {
                    Ok(pick) => pick.finish(Outcome::Success, Instant::now()),
                    Err(_) => failed += 1,
                }
            }
        }
        let text = format!("{failed} of {requests} requests without an endpoint, {starts} starts");
        // Where nothing began anew, the calendar was not asked.
        Seen { met: failed == 0 && starts > 0, text, badness: failed as f64 / requests as f64 }
    })
}

fn no_directory(error: &std::io::Error) -> Seen {
    Seen { met: false, text: format!("no directory: {error}"), badness: f64::MAX }
}

fn cold_start(seed: u64, with_snapshot: bool) -> Seen {
    let directory = match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(error) => return no_directory(&error),
    };
    let rng = Rng::seeded(seed);
    let count = 3 + rng.below(200);
    let clock = Arc::new(ManualClock::at_unix(EPOCH));
    virtually(remember(directory.path(), count, rng.fork(), &clock));
    virtually(async {
        let (say, source) = told();
        let cluster = cluster(rng.fork());
        let mut feed = Feed::from(source);
        if with_snapshot {
            feed = feed.snapshot(file(directory.path(), &clock));
        }
        let start = Instant::now();
        tokio::spawn(cluster.follow(feed));
        // Half of the sources say that they cannot see, the others nothing at all.
        if seed.is_multiple_of(2) {
            let _ = say.send(stale());
        }
        let in_time = tokio::time::timeout(Duration::from_secs(1), cluster.until_resolved()).await.is_ok();
        let (known, took) = (cluster.endpoints().len(), start.elapsed().as_millis());
        let text = format!("{known} of {count} endpoints after {took} ms");
        Seen { met: in_time && known == count, text, badness: took as f64 + (count - known) as f64 }
    })
}

fn file(directory: &Path, clock: &Arc<ManualClock>) -> SnapshotFile {
    let max_age = DiscoveryConfig::default().snapshot_max_age;
    SnapshotFile::new(directory.join("endpoints"), "web", &source(), max_age, Arc::clone(clock) as Arc<dyn WallClock>)
}

/// An earlier life of the process, in which the source was well.
async fn remember(directory: &Path, count: usize, rng: Rng, clock: &Arc<ManualClock>) {
    let (say, source) = told();
    let cluster = cluster(rng);
    tokio::spawn(cluster.follow(Feed::from(source).snapshot(file(directory, clock))));
    let endpoints: Vec<Endpoint> = (0..count).map(endpoint).collect();
    let _ = say.send(Update::Endpoints(endpoints.into()));
    let written = || std::fs::read_dir(directory.join("endpoints")).is_ok_and(|mut entries| entries.next().is_some());
    // The disk takes real time, and the clock stands while it works.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if written() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        }
    }
}
