use super::*;
use crate::clock::{ManualClock, WallClock};
use crate::cluster::{Cluster, PickError, Tried, tests::config};
use crate::config::{ClusterConfig, PlugConfig};
use crate::discover::{Endpoint, Resolve, ResolveError, Updates};
use crate::health::Outcome;
use crate::rng::Rng;
use crate::stream::unfold;
use crate::telemetry::DiscoveryEvent::{
    Applied, Confirmed, EmptyHeld, Gone, ShrinkHeld, Snapshot, SnapshotFailed, SnapshotRefused, Stale,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

#[derive(Debug)]
struct Scripted(Mutex<Option<mpsc::UnboundedReceiver<Update>>>, AtomicUsize);

impl Scripted {
    fn new(receiver: mpsc::UnboundedReceiver<Update>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(receiver)), AtomicUsize::new(0)))
    }
}

impl Resolve for Scripted {
    fn watch(&self) -> Updates {
        let receiver = self.0.lock().unwrap().take().unwrap();
        unfold(receiver, |mut receiver| async move {
            let update = match receiver.recv().await {
                Some(update) => update,
                None => std::future::pending().await,
            };
            (update, receiver)
        })
    }

    fn resolve_now(&self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_service_that_is_gone_is_emptied_and_the_task_ends_with_the_cluster() {
    let cluster = Cluster::new("payments", &config(), Rng::seeded(1), Arc::default(), |_, _| ());
    let (say, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(cluster.follow(Scripted::new(receiver)));
    let one = || vec![Endpoint::new(([127, 0, 0, 1], 1).into())];
    let stale = || Update::Stale(ResolveError("no such file".into()));
    let steps = [
        (stale(), Stale, 0, 1, Some(PickError::Unresolved)),
        (Update::Endpoints(one().into()), Applied, 1, 0, None),
        (stale(), Stale, 1, 1, None),
        (Update::Endpoints(Vec::new().into()), EmptyHeld, 1, 1, None),
        (Update::Endpoints(one().into()), Applied, 1, 0, None),
        (Update::Gone, Gone, 0, 0, Some(PickError::Empty)),
        (Update::Endpoints(Vec::new().into()), Applied, 0, 0, Some(PickError::Empty)),
    ];
    for (update, event, known, is_stale, error) in steps {
        let metrics = cluster.metrics();
        let before = metrics.discovery.count(event);
        say.send(update).unwrap();
        while metrics.discovery.count(event) == before {
            tokio::task::yield_now().await;
        }
        assert_eq!((cluster.endpoints().len(), metrics.stale.get()), (known, is_stale), "{event:?}");
        assert_eq!(cluster.pick(&Tried::default(), Instant::now()).err(), error, "{event:?}");
    }
    drop(cluster);
    task.await.unwrap();
}

/// A cluster that follows what the test says.
struct Followed {
    cluster: Cluster<()>,
    say: mpsc::UnboundedSender<Update>,
    task: tokio::task::JoinHandle<()>,
}

impl Followed {
    fn start(config: &ClusterConfig, snapshot: Option<SnapshotFile>) -> Self {
        let cluster = Cluster::new("payments", config, Rng::seeded(1), Arc::default(), |_, _| ());
        let (say, receiver) = mpsc::unbounded_channel();
        let mut feed = Feed::from(Scripted::new(receiver));
        feed.snapshot = snapshot;
        let task = tokio::spawn(cluster.follow(feed));
        Self { cluster, say, task }
    }

    fn count(&self, event: DiscoveryEvent) -> u64 {
        self.cluster.metrics().discovery.count(event)
    }

    /// Says it and waits until it was heard as this.
    async fn hear(&self, update: Update, event: DiscoveryEvent) {
        let before = self.count(event);
        self.say.send(update).unwrap();
        self.until(event, before + 1).await;
    }

    async fn until(&self, event: DiscoveryEvent, count: u64) {
        let waited = async {
            while self.count(event) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(3600), waited).await.unwrap_or_else(|_| panic!("no {event:?}"));
    }

    fn ports(&self) -> Vec<u16> {
        self.cluster.endpoints().iter().map(|state| state.endpoint().address.port()).collect()
    }

    async fn end(self) {
        drop(self.cluster);
        self.task.await.unwrap();
    }
}

fn ports(ports: impl IntoIterator<Item = u16>) -> Update {
    Update::Endpoints(ports.into_iter().map(|port| Endpoint::new(([127, 0, 0, 1], port).into())).collect())
}

#[tokio::test(start_paused = true)]
async fn a_shrink_waits_for_its_time_and_the_metrics_say_so() {
    let followed = Followed::start(&config(), None);
    let metrics = followed.cluster.metrics();
    followed.hear(ports(1..=6), Applied).await;
    followed.hear(ports([6, 7]), ShrinkHeld).await;
    assert_eq!(followed.ports(), [1, 2, 3, 4, 5, 6, 7], "what is new counts, what is missing stays");
    assert_eq!((metrics.held.get(), metrics.stale.get()), (5, 1));
    let begin = Instant::now();
    followed.until(Confirmed, 1).await;
    assert!((299..=301).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!((followed.ports(), metrics.held.get(), metrics.stale.get()), (vec![6, 7], 0, 0));
    let Update::Endpoints(none) = ports([]) else { unreachable!() };
    let keys = [6, 7].map(|port| Endpoint::new(([127, 0, 0, 1], port).into()).key);
    followed.hear(Update::Endpoints(none.removed(keys)), Applied).await;
    assert_eq!(followed.ports(), [0_u16; 0], "tombstones need no time");
    followed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_holds_for_who_is_held_already() {
    let followed = Followed::start(&config(), None);
    followed.hear(ports(1..=6), Applied).await;
    followed.hear(ports([6, 7]), ShrinkHeld).await;
    let begin = Instant::now();
    let shorter = HoldConfig::default().confirm_after(Duration::from_secs(10));
    followed.cluster.reconfigure(&config().discover_hold(shorter));
    followed.until(Confirmed, 1).await;
    assert!((9..=11).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(followed.ports(), [6, 7]);
    followed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_during_an_outage_serves_from_the_snapshot_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
    let file = |dir: &std::path::Path| {
        let clock: Arc<dyn WallClock> = Arc::clone(&clock) as _;
        let discover = PlugConfig::new("dns", &serde_json::json!("payments:1"));
        SnapshotFile::new(dir, "payments", &discover, Duration::from_secs(86_400), clock)
    };
    let start = || Followed::start(&config(), Some(file(dir.path())));
    let written = |followed: &Followed| followed.cluster.metrics().snapshot_timestamp.get();
    let until_written = async |followed: &Followed, at: i64| {
        while written(followed) != at {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };

    let first = start();
    first.hear(ports(1..=4), Applied).await;
    until_written(&first, 1_800_000_000).await;
    clock.advance(Duration::from_secs(60));
    let begin = Instant::now();
    until_written(&first, 1_800_000_060).await;
    assert!(begin.elapsed() >= Duration::from_secs(590), "unchanged, it is written seldom: {:?}", begin.elapsed());
    first.end().await;

    // The source is silent, cannot see, or has lost everything.
    for word in [None, Some(Update::Stale(ResolveError("down".into()))), Some(ports([])), Some(ports([4]))] {
        let followed = start();
        let begin = Instant::now();
        if let Some(word) = word.clone() {
            followed.say.send(word).unwrap();
        }
        while followed.ports().len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(begin.elapsed() < Duration::from_secs(1), "{word:?}: {:?}", followed.cluster);
        }
        assert_eq!(followed.cluster.metrics().stale.get(), 1, "{word:?}");
        let from_snapshot = matches!(word, None | Some(Update::Stale(_)));
        assert_eq!(followed.count(Snapshot), u64::from(from_snapshot), "{word:?}");
        followed.hear(ports(11..=14), Applied).await;
        assert_eq!((followed.ports(), followed.cluster.metrics().stale.get()), (vec![11, 12, 13, 14], 0), "{word:?}");
        // Not written before the process ends: the next start has the old ones.
        followed.end().await;
    }

    // A source that can see is asked, not the disk.
    let seeing = start();
    seeing.say.send(ports(1..=3)).unwrap();
    seeing.until(Applied, 1).await;
    assert_eq!((seeing.ports(), seeing.count(Snapshot)), (vec![1, 2, 3], 0));
    seeing.hear(Update::Gone, Gone).await;
    clock.advance(Duration::from_secs(60));
    until_written(&seeing, 1_800_000_120).await;
    seeing.end().await;
    let after = start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((after.ports(), after.count(Snapshot)), (Vec::new(), 0), "who is gone is gone after a restart too");
    after.end().await;

    std::fs::write(dir.path().join("payments.endpoints"), "rubbish").unwrap();
    let broken = start();
    broken.until(SnapshotRefused, 1).await;
    broken.hear(ports([1]), Applied).await;
    broken.end().await;

    let no_directory = dir.path().join("payments.endpoints");
    let failing = Followed::start(&config(), Some(file(&no_directory)));
    failing.hear(ports([1]), Applied).await;
    failing.until(SnapshotFailed, 1).await;
    assert_eq!(failing.ports(), [1]);
    failing.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_again_when_all_endpoints_are_out() {
    let outlier = config().outlier.consecutive_failures(1).max_ejection_percent(100);
    let cluster = Cluster::new("payments", &config().outlier(outlier), Rng::seeded(1), Arc::default(), |_, _| ());
    let (say, receiver) = mpsc::unbounded_channel();
    let source = Scripted::new(receiver);
    let task = tokio::spawn(cluster.follow(Arc::clone(&source)));
    say.send(ports([1, 2])).unwrap();
    cluster.until_resolved().await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        cluster
            .pick(&Tried::default(), Instant::now())
            .unwrap()
            .finish(Outcome::Failure { retry_after: None }, Instant::now());
        tokio::time::sleep(Duration::from_millis(1)).await;
        asked.push(source.1.load(Ordering::SeqCst));
    }
    assert_eq!(asked, [0, 0, 1], "the third pick finds both out");
    drop(cluster);
    task.await.unwrap();
}
