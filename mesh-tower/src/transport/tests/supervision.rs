//! What becomes of open connections when the task that judges them again panics.

use std::sync::atomic::AtomicUsize;

use super::*;

/// A clock that panics so many times when it is asked.
#[derive(Debug)]
struct Exploding {
    calendar: Calendar,
    left: AtomicUsize,
}

impl WallClock for Exploding {
    fn now(&self) -> SystemTime {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "the clock has exploded, as the test wants it");
        self.calendar.now()
    }
}

/// A listener's own state with one connection in it, which `net` made, and its supervised task.
struct Guarded {
    net: Net,
    clock: Arc<Exploding>,
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    task: JoinHandle<()>,
}

impl Guarded {
    async fn start() -> Self {
        let (tell, mut connections) = mpsc::unbounded_channel();
        let net = Net::start(
            |_| {},
            move |request| {
                tell.send(Arc::clone(request.extensions().get::<Arc<Connection>>().unwrap())).unwrap();
                hello(request)
            },
        );
        net.connect(HttpVersion::Http2).await.get("/").await.unwrap();
        let connection = connections.recv().await.unwrap();
        let clock = Arc::new(Exploding { calendar: Calendar(Instant::now()), left: AtomicUsize::new(0) });
        let ground = Ground { clock: clock.clone(), ..net.ground() };
        let listener = ListenerConfig::new(client_address());
        let shared = Arc::new(Shared::new(ground, Arc::from("default"), &listener, client_address()));
        let standing = Standing::new(connection, net.server.generation());
        shared.recheck(&standing);
        let task = tokio::spawn({
            let (shared, standing) = (Arc::clone(&shared), Arc::clone(&standing));
            async move {
                let _enrolled = shared.roster.enrol(standing);
                shared.supervise().await;
            }
        });
        Self { net, clock, shared, standing, task }
    }

    fn panics(&self) -> u64 {
        self.net.metrics.runtime.task_panics.get()
    }

    /// What the connection was ordered to do, once the task had `seconds` for it.
    async fn order_after(&self, seconds: u32) -> Option<Order> {
        tokio::time::sleep(seconds * S).await;
        assert!(!self.task.is_finished());
        order_of(&self.standing).await
    }
}

const CUT: Option<Order> = Some(Order::Cut(CloseReason::Distrusted));

#[tokio::test(start_paused = true)]
async fn it_is_begun_again_and_what_was_judged_stays() {
    let guarded = Guarded::start().await;
    assert_eq!(guarded.order_after(1).await, None);
    guarded.clock.left.store(1, Ordering::SeqCst);
    assert_eq!(guarded.order_after(40).await, None, "judged by what is in force: nothing to cut it for");
    assert_eq!(guarded.panics(), 1);
    // Another revision that vouches for it, and one that does not.
    guarded.net.server.publish(guarded.net.ca.issue(ORDERS, DAY));
    assert_eq!(guarded.order_after(2).await, None);
    let other = Ca::new("other", &guarded.net.clock);
    let bundles = Arc::new(Ca::trust(&[&other]));
    guarded.net.server.publish(Identity { bundles, ..guarded.net.ca.issue(ORDERS, DAY) });
    assert_eq!(guarded.order_after(2).await, CUT, "nobody walks any more");
    assert_eq!(guarded.panics(), 1);
    drop(guarded.shared);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_judge_any_more_is_cut() {
    for change in ["trust", "policy"] {
        let guarded = Guarded::start().await;
        assert_eq!(guarded.order_after(1).await, None);
        guarded.clock.left.store(usize::MAX, Ordering::SeqCst);
        // Neither has anything against the peer; only nobody finds that out.
        match change {
            "trust" => guarded.net.server.publish(guarded.net.ca.issue(ORDERS, DAY)),
            _ => guarded.net.policy.publish(revision("")),
        };
        assert_eq!(guarded.order_after(1).await, CUT, "{change}");
        tokio::time::sleep(60 * S).await;
        assert!((5..30).contains(&guarded.panics()), "{} panics in a minute: no pause between them", guarded.panics());
        guarded.clock.left.store(0, Ordering::SeqCst);
        assert_eq!(guarded.order_after(6).await, CUT, "{change}: repeated until it is gone");
        assert_eq!(guarded.order_after(10).await, None, "{change}: judged, and good");
    }
}
