//! A rolling restart under load, beside peers that idle, stream, or never let go.
//!
//! `MESH_RESTART_RATE` is how many charges a second are made of ten servers (default 500); with `--release` two cores bear
//! 2,000.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::BodyExt;
use mesh_core::cluster::EndpointReport;
use mesh_core::config::{ClusterConfig, HttpVersion, ListenerConfig, NoPolicy, OutlierConfig, PlugConfig, PoolConfig};
use mesh_core::identity::SpiffeId;
use mesh_tower::Client;
use mesh_tower::test_util::{RunningTestMesh, TestMesh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::kit::{from_env, soon, tls, until, until_within};

const ORDERS: &str = "spiffe://test/ns/test/sa/orders";
const WEB: &str = "spiffe://test/ns/test/sa/web";
/// How long a stopping server waits for requests in flight.
const GRACE: Duration = Duration::from_secs(2);
const CHUNKS: usize = 20;

/// A body that takes 400 ms, well within the grace period.
fn streamed() -> Body {
    Body::from_stream(stream::unfold(0, |n| async move {
        sleep(Duration::from_millis(20)).await;
        (n < CHUNKS).then(|| (Ok::<_, Infallible>(Bytes::from_static(b"chunk\n")), n + 1))
    }))
}

fn router() -> Router {
    let charge = |body: String| async move {
        sleep(Duration::from_millis(2)).await;
        body
    };
    Router::new()
        .route("/charge", post(charge))
        .route("/stream", get(|| async { streamed() }))
        .route("/idle", get(|| async { "" }))
        .route(
            "/endless",
            get(|| async { Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[0; 65536])))) }),
        )
        .route("/stuck", get(std::future::pending::<()>))
}

/// One server of `orders`, in a mesh of its own as in a process of its own.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(net: &RunningTestMesh, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let orders = net
            .mesh_with(ORDERS, move |config| {
                config.no_policy = NoPolicy::Allow;
                config.listeners.insert("default".to_owned(), ListenerConfig::new(address).drain_timeout(GRACE));
            })
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = mesh_tower::serve(&orders, listener, router());
        let server = server.with_graceful_shutdown(async { drop(stopped.await) }).into_future();
        let running = tokio::spawn(async move { server.await.unwrap() });
        Self { address, stop, running }
    }

    /// Ends it; how long that took.
    async fn end(self, graceful: bool) -> Duration {
        let start = Instant::now();
        if graceful {
            self.stop.send(()).unwrap();
            soon("the server to stop", self.running).await.unwrap();
        } else {
            self.running.abort();
            drop(self.running.await);
        }
        start.elapsed()
    }
}

/// Callers that never rest: charges, which must not be sent twice, and streams.
struct Load {
    tasks: JoinSet<Vec<String>>,
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    client: Client,
}

/// How many charges are made.
#[derive(Debug, Clone, Copy)]
enum Charges {
    /// By so many callers, each one after the other.
    Callers(usize),
    /// So many a second, whoever waits for another one.
    PerSecond(u64),
}

async fn charge(client: Client) -> Option<String> {
    let answer = async { client.post("/charge").body("1 EUR").send().await?.text().await };
    match answer.await {
        Ok(body) => {
            assert_eq!(body, "1 EUR");
            None
        }
        Err(error) => Some(format!("charge: {error:?}")),
    }
}

async fn read(client: Client) -> Option<String> {
    let answer = async { client.get("/stream").send().await?.text().await };
    match answer.await {
        Ok(body) => {
            assert_eq!(body.len(), 6 * CHUNKS);
            None
        }
        Err(error) => Some(format!("stream: {error:?}")),
    }
}

impl Load {
    async fn start(net: &RunningTestMesh, servers: &[Server], http: HttpVersion, charges: Charges) -> Self {
        let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
        let web = net
            .mesh_with(WEB, move |config| {
                let discover = PlugConfig::new("static", &serde_json::json!(addresses));
                let cluster = ClusterConfig::new(discover, vec![SpiffeId::parse(ORDERS).unwrap()]);
                // Restarted twice within a minute, a server is one that flaps, and out for a minute by default.
                let outlier = OutlierConfig::default().base_ejection(Duration::from_secs(1));
                let cluster = cluster.pool(PoolConfig::default().http(http)).outlier(outlier);
                config.clusters.insert("orders".to_owned(), cluster);
            })
            .await
            .unwrap();
        let client = Client::new(&web, "orders").unwrap();
        let mut load =
            Self { tasks: JoinSet::new(), over: Arc::default(), done: Arc::default(), client: client.clone() };
        match charges {
            Charges::Callers(callers) => (0..callers).for_each(|_| load.repeat(charge)),
            Charges::PerSecond(rate) => load.charge_at(rate),
        }
        (0..2 * servers.len()).for_each(|_| load.repeat(read));
        load
    }

    /// One caller who never rests.
    fn repeat<F: Future<Output = Option<String>> + Send + 'static>(&mut self, call: fn(Client) -> F) {
        let (client, over, done) = (self.client.clone(), Arc::clone(&self.over), Arc::clone(&self.done));
        self.tasks.spawn(async move {
            let mut failed = Vec::new();
            while !over.load(SeqCst) {
                failed.extend(call(client.clone()).await);
                done.fetch_add(1, SeqCst);
            }
            failed
        });
    }

    /// Callers who come at fixed distances and do not wait for each other.
    fn charge_at(&mut self, rate: u64) {
        let (client, over, done) = (self.client.clone(), Arc::clone(&self.over), Arc::clone(&self.done));
        self.tasks.spawn(async move {
            let mut calls = JoinSet::new();
            let (begin, mut made) = (Instant::now(), 0);
            while !over.load(SeqCst) {
                let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
                for _ in made..due {
                    let (client, done) = (client.clone(), Arc::clone(&done));
                    calls.spawn(async move {
                        let failed = charge(client).await;
                        done.fetch_add(1, SeqCst);
                        failed
                    });
                }
                made = due;
                sleep(Duration::from_millis(1)).await;
            }
            calls.join_all().await.into_iter().flatten().collect()
        });
    }

    async fn more(&self, requests: usize) {
        let target = self.done.load(SeqCst) + requests;
        until("more requests", async || (self.done.load(SeqCst) >= target).then_some(())).await;
    }

    async fn end(self) -> (Vec<String>, usize) {
        self.over.store(true, SeqCst);
        let failed = soon("the load to end", self.tasks.join_all()).await.concat();
        (failed, self.done.load(SeqCst))
    }
}

/// Connections that a stopping server must end by itself.
struct Peers {
    /// Each ends when its server closes it.
    idle: JoinSet<()>,
    stuck: JoinSet<()>,
}

impl Peers {
    async fn connect(net: &RunningTestMesh, address: SocketAddr) -> Self {
        let mut peers = Self { idle: JoinSet::new(), stuck: JoinSet::new() };
        let svid = net.svid_pem(WEB).unwrap();
        let open = async |alpn| tls(address, Some(&svid), alpn).await.unwrap();
        let send = async |alpn, bytes: &[u8]| {
            let mut stream = open(alpn).await;
            stream.write_all(bytes).await.unwrap();
            stream
        };
        // Idle ones: they had an answer, and wait.
        let mut idle = send("http/1.1", b"GET /idle HTTP/1.1\r\nhost: orders\r\n\r\n").await;
        assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
        peers.idle.spawn(async move { drop(idle.read_to_end(&mut Vec::new()).await) });
        let io = hyper_util::rt::TokioIo::new(open("h2").await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
        let ended = tokio::spawn(connection);
        let request = Request::get("https://orders/idle").body(Body::empty()).unwrap();
        sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        peers.idle.spawn(async move {
            let _sender = sender;
            drop(ended.await);
        });
        // Stuck ones: in a request that has no end, half a head, half a body, a response that nobody reads; and silent.
        let rows: [(&str, &[u8]); 5] = [
            ("http/1.1", b"GET /stuck HTTP/1.1\r\nhost: orders\r\n\r\n"),
            ("http/1.1", b"GET /idle HTTP/1.1\r\nhost: "),
            ("http/1.1", b"POST /charge HTTP/1.1\r\nhost: orders\r\ncontent-length: 9\r\n\r\nhalf"),
            ("http/1.1", b"GET /endless HTTP/1.1\r\nhost: orders\r\n\r\n"),
            ("h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ];
        for (alpn, bytes) in rows {
            let stream = send(alpn, bytes).await;
            peers.stuck.spawn(async move {
                let _stream = stream;
                std::future::pending().await
            });
        }
        // HTTP/2 without a window: hyper reads nothing, because nobody asks the body for more.
        let io = hyper_util::rt::TokioIo::new(open("h2").await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let mut requests = Vec::new();
        for path in ["/endless", "/stuck"] {
            let request = Request::get(format!("https://orders{path}")).body(Body::empty()).unwrap();
            let mut response = Box::pin(sender.send_request(request));
            let answered = tokio::time::timeout(Duration::from_millis(50), response.as_mut()).await.ok();
            requests.push((response, answered));
        }
        peers.stuck.spawn(async move {
            let _held = (sender, requests);
            std::future::pending().await
        });
        // No handshake at all.
        let silent = TcpStream::connect(address).await.unwrap();
        peers.stuck.spawn(async move {
            let _silent = silent;
            std::future::pending().await
        });
        peers
    }
}

/// Who is restarted under which load, one after the other.
#[derive(Debug, Clone, Copy)]
struct Rollout {
    servers: usize,
    restarts: usize,
    http: HttpVersion,
    charges: Charges,
    /// Asked to stop, rather than killed.
    graceful: bool,
    /// Beside peers that never let go.
    stuck: bool,
}

/// What a rollout came to.
struct RolledOut {
    failed: Vec<String>,
    of: usize,
    /// How long each server took to end.
    ends: Vec<Duration>,
    took: Duration,
}

impl Rollout {
    /// Each of two servers, twice.
    fn twice(http: HttpVersion) -> Self {
        Self { servers: 2, restarts: 4, http, charges: Charges::Callers(8), graceful: true, stuck: false }
    }

    /// Each of ten, once.
    fn of_ten() -> Self {
        let charges = Charges::PerSecond(from_env("MESH_RESTART_RATE", || 500));
        Self { servers: 10, restarts: 10, charges, ..Self::twice(HttpVersion::Http2) }
    }

    async fn run(self) -> RolledOut {
        let net = TestMesh::new().start().await.unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut servers = Vec::new();
        for _ in 0..self.servers {
            servers.push(Server::start(&net, anywhere).await);
        }
        let (load, start) = (Load::start(&net, &servers, self.http, self.charges).await, Instant::now());
        let mut ends = Vec::new();
        for _ in 0..self.restarts {
            load.more(100).await;
            let server = servers.remove(0);
            let mut peers = if self.stuck { Some(Peers::connect(&net, server.address).await) } else { None };
            let address = server.address;
            let took = server.end(self.graceful);
            let idle_gone = async {
                let Some(peers) = &mut peers else { return };
                let start = Instant::now();
                while soon("idle connections to end", peers.idle.join_next()).await.is_some() {}
                assert!(start.elapsed() < GRACE / 2, "idle connections were kept for {:?}", start.elapsed());
            };
            ends.push(tokio::join!(took, idle_gone).0);
            let server = Server::start(&net, address).await;
            if self.graceful {
                // Nobody restarts the next one before callers have found this one. (One that crashed is ejected for long.)
                let found = async || {
                    let usable = |endpoint: EndpointReport| endpoint.usable && endpoint.ejected_until.is_none();
                    load.client.endpoints().into_iter().all(usable).then_some(())
                };
                // Refused connects, between the old server's end and the new one's begin, eject it.
                until_within(Duration::from_secs(20), "callers to find the new server", found).await;
            }
            servers.push(server);
        }
        load.more(100).await;
        let took = start.elapsed();
        let (failed, of) = load.end().await;
        println!("{self:?}: {} of {of} failed in {took:?}; ends: {ends:?}", failed.len());
        RolledOut { failed, of, ends, took }
    }

    /// It has to fail somebody.
    async fn fails(self) {
        let RolledOut { failed, of, .. } = Self { graceful: false, ..self }.run().await;
        println!("control: {} of {of} failed", failed.len());
        assert!(!failed.is_empty(), "none of {of}: {self:?} proves nothing when nobody is killed");
    }
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request_and_waits_no_longer_than_its_grace() {
    for http in [HttpVersion::Http2, HttpVersion::Http1] {
        for stuck in [false, true] {
            let RolledOut { failed, of, ends, .. } = Rollout { stuck, ..Rollout::twice(http) }.run().await;
            assert!(failed.is_empty(), "{http:?}: {} of {of}: {:?}", failed.len(), failed.first());
            for took in ends {
                // Without stuck peers it is over with the last stream; with them, at the end of the grace period.
                let (least, most) = if stuck { (GRACE, GRACE + GRACE / 2) } else { (Duration::ZERO, GRACE) };
                assert!(least <= took && took < most, "{http:?}: {took:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_rolling_crash_does_fail_requests() {
    for http in [HttpVersion::Http2, HttpVersion::Http1] {
        Rollout::twice(http).fails().await;
    }
}

/// Charges, which must not be sent twice, come at their rate whoever is away, and streams never rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_ten_servers_fails_no_request() {
    let RolledOut { failed, of, ends, took } = Rollout::of_ten().run().await;
    let rate = of as f64 / took.as_secs_f64();
    println!(
        "seen: {} of {of} failed, {rate:.0} requests a second, {} restarts in {took:.1?}",
        failed.len(),
        ends.len()
    );
    assert!(failed.is_empty(), "{} of {of}: {:?}", failed.len(), failed.first());
    assert!(ends.iter().all(|took| *took < GRACE), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_crash_of_ten_servers_does_fail_requests() {
    Rollout::of_ten().fails().await;
}
