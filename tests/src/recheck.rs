//! Open connections obey: what trust or policy takes away ends within 5 s, and nothing else does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::Mesh;
use mesh_core::clock::SystemClock;
use mesh_core::config::{Config, ForwardedConfig, IdentityConfig, ListenerConfig, PlugConfig, Workload};
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{Identity, MemorySource, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain};
use mesh_tower::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::kit::{soon, tls, until};

const WEB: &str = "spiffe://test/ns/test/sa/web";
const BATCH: &str = "spiffe://test/ns/test/sa/batch";
const GATEWAY: &str = "spiffe://test/ns/test/sa/gateway";
const ORDERS: &str = "spiffe://test/ns/test/sa/orders";
/// As gRPC has it: a call in both directions.
const ECHO: &str = "/echo.Echo/Echo";
const HOUR: Duration = Duration::from_secs(3600);

/// What the issue promises between a change and the last byte.
const PROMISE: Duration = Duration::from_secs(5);

/// A service that trusts two authorities of one domain, and lets in `web` and `batch`.
struct World {
    old: DevCa,
    new: DevCa,
    identity: MemorySource,
    mesh: Mesh,
    address: SocketAddr,
    policy: PathBuf,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("test").unwrap()
}

fn authority() -> DevCa {
    DevCa::in_memory(&domain(), Arc::new(SystemClock)).unwrap()
}

fn trusting(ca: &DevCa, id: &str, authorities: &[&DevCa]) -> Identity {
    let svid = ca.issue(&SpiffeId::parse(id).unwrap(), HOUR).unwrap();
    let authorities = authorities.iter().map(|ca| Arc::clone(ca.certificate())).collect();
    let bundle = TrustBundle::new(domain(), authorities).unwrap();
    Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(TrustBundleSet::of(bundle)) }
}

fn config(name: &str) -> Config {
    let source = PlugConfig::new("memory", &serde_json::Value::Null);
    Config::new(Workload::new(name, "test"), IdentityConfig { trust_domain: domain(), source })
}

fn allow(callers: &[&str]) -> String {
    let callers: Vec<String> = callers.iter().map(|caller| format!("test/ns/test/sa/{caller}")).collect();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: callers, namespace: test }}\n\
         spec: {{ rules: [{{ from: [{{ source: {{ principals: [{}] }} }}] }}] }}\n",
        callers.join(", ")
    )
}

/// Says "begun", and then nothing for ever.
async fn endless() -> Body {
    let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from("begun")))]);
    Body::new(StreamBody::new(begun.chain(stream::pending())))
}

impl World {
    async fn start() -> Self {
        Self::with(&["web", "batch"], |_| {}).await
    }

    /// Lets `callers` in; its configuration is as `edit` makes it.
    async fn with(callers: &[&str], edit: impl FnOnce(&mut Config)) -> Self {
        let (old, new, dir) = (authority(), authority(), tempfile::tempdir().unwrap());
        let policy = dir.path().join("callers.yaml");
        std::fs::write(&policy, allow(callers)).unwrap();
        let mut config = config("orders");
        config.policies = vec![policy.clone()];
        edit(&mut config);
        let identity = MemorySource::new(trusting(&new, ORDERS, &[&old, &new]));
        let source = Arc::new(identity.clone());
        let mesh = Mesh::builder().config(config).identity_source(source).start().await.unwrap();
        let app = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/endless", get(endless))
            .route(ECHO, post(|body: Body| async { body }))
            .route("/upload", post(|body: Bytes| async move { body.len().to_string() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = mesh_tower::serve(&mesh, listener, app).into_future();
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { old, new, identity, mesh, address, policy, server, _dir: dir }
    }

    async fn connect(&self, ca: &DevCa, id: &str, version: Version) -> Peer {
        let svid = ca.issue_pem(&SpiffeId::parse(id).unwrap(), HOUR).unwrap();
        let alpn = if version == Version::HTTP_2 { "h2" } else { "http/1.1" };
        let io = TokioIo::new(tls(self.address, Some(&svid), alpn).await.unwrap());
        if version == Version::HTTP_2 {
            let (send, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            Peer { send: Sender::H2(send), ended: tokio::spawn(async { drop(connection.await) }) }
        } else {
            let (send, connection) = http1::handshake(io).await.unwrap();
            Peer { send: Sender::H1(send), ended: tokio::spawn(async { drop(connection.await) }) }
        }
    }

    fn closed_for(&self, reason: &'static str) -> u64 {
        self.mesh.metrics().transport.closed_for(reason)
    }
}

/// One connection that is never replaced, and the end of it.
struct Peer {
    send: Sender,
    ended: JoinHandle<()>,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Peer {
    async fn send(&mut self, method: &str, path: &str, body: Body) -> hyper::Result<Response<Incoming>> {
        let kind = if path == ECHO { "application/grpc" } else { "text/plain" };
        let request = Request::builder().method(method).header("content-type", kind);
        match &mut self.send {
            Sender::H1(send) => {
                send.ready().await?;
                send.send_request(request.uri(path).header("host", "orders").body(body).unwrap()).await
            }
            Sender::H2(send) => {
                send.send_request(request.uri(format!("https://orders{path}")).body(body).unwrap()).await
            }
        }
    }

    async fn get(&mut self) -> Result<(), String> {
        let response = self.send("GET", "/", Body::empty()).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        (status == 200 && body == "ok").then_some(()).ok_or_else(|| format!("{status}"))
    }

    /// Opens a stream that is silent from now on. What it gives ends with the stream.
    async fn open(&mut self, path: &'static str) -> JoinHandle<()> {
        let silent = || {
            let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from("begun")))]);
            Body::new(StreamBody::new(begun.chain(stream::pending())))
        };
        match path {
            // The handler only reads, and has not answered.
            "/upload" => match &mut self.send {
                Sender::H1(send) => {
                    send.ready().await.unwrap();
                    let request = Request::post(path).header("host", "orders").body(silent()).unwrap();
                    let response = send.send_request(request);
                    tokio::spawn(async move { drop(response.await) })
                }
                Sender::H2(send) => {
                    let request = Request::post("https://orders/upload").body(silent()).unwrap();
                    let response = send.send_request(request);
                    tokio::spawn(async move { drop(response.await) })
                }
            },
            _ => {
                let (method, body) = if path == ECHO { ("POST", silent()) } else { ("GET", Body::empty()) };
                let response = soon("a stream", self.send(method, path, body)).await.unwrap();
                assert_eq!(response.status(), 200);
                let mut body = response.into_body();
                assert_eq!(soon("a frame", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "begun");
                tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} })
            }
        }
    }
}

/// Everything that one peer may have open, with what it is and its end, and what keeps it open.
async fn everything_open(world: &World, ca: &DevCa, id: &str) -> (Vec<(String, JoinHandle<()>)>, Vec<Sender>) {
    let (mut open, mut senders) = (Vec::new(), Vec::new());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        // HTTP/1.1 has one stream to a connection.
        let connections = match version {
            Version::HTTP_11 => vec![vec![], vec!["/endless"], vec![ECHO], vec!["/upload"]],
            _ => vec![vec![], vec!["/endless", ECHO, "/upload"]],
        };
        for streams in connections {
            let mut peer = world.connect(ca, id, version).await;
            peer.get().await.unwrap();
            for path in &streams {
                open.push((format!("{version:?} stream of {path}"), peer.open(path).await));
            }
            open.push((format!("{version:?} connection with {streams:?}"), peer.ended));
            senders.push(peer.send);
        }
    }
    (open, senders)
}

/// Requests on connections of their own, one after the other, until told to stop.
struct Others {
    load: JoinSet<Vec<String>>,
    done: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    streams: Vec<JoinHandle<()>>,
    _senders: Vec<Peer>,
}

impl Others {
    async fn start(world: &World) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (done, mut load) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let (mut streams, mut senders) = (Vec::new(), Vec::new());
        for version in [Version::HTTP_11, Version::HTTP_2, Version::HTTP_11, Version::HTTP_2] {
            let mut peer = world.connect(&world.new, BATCH, version).await;
            let (done, stopped) = (Arc::clone(&done), stopped.clone());
            load.spawn(async move {
                let mut failed = Vec::new();
                while !*stopped.borrow() {
                    failed.extend(peer.get().await.err());
                    done.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(2)).await;
                }
                failed
            });
            let mut streaming = world.connect(&world.new, BATCH, version).await;
            streams.push(streaming.open("/endless").await);
            senders.push(streaming);
        }
        Self { load, done, stop, streams, _senders: senders }
    }

    async fn more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("more requests", async || (self.done.load(Ordering::Relaxed) > before + 100).then_some(())).await;
    }

    /// How many requests were made. None failed, and no stream ended.
    async fn all_well(self) -> usize {
        self.stop.send_replace(true);
        let failed: Vec<String> = self.load.join_all().await.into_iter().flatten().collect();
        assert_eq!(failed, Vec::<String>::new(), "of {} requests", self.done.load(Ordering::Relaxed));
        assert!(self.streams.iter().all(|stream| !stream.is_finished()), "a stream of another peer was cut");
        self.done.load(Ordering::Relaxed)
    }
}

/// Everything that `web` has open ends within [`PROMISE`] of `change`, and nobody else notices.
async fn ends_what_it_should(reason: &'static str, change: impl FnOnce(&World)) {
    let world = World::start().await;
    let others = Others::start(&world).await;
    let (open, _senders) = everything_open(&world, &world.old, WEB).await;
    others.more().await;
    // Nothing ends by itself.
    for (what, end) in &open {
        assert!(!end.is_finished(), "{what} ended before");
    }
    let (reasons_before, connections) = (world.closed_for(reason), world.mesh.metrics().transport.connections());
    let changed = Instant::now();
    change(&world);
    let mut slowest = (Duration::ZERO, String::new());
    for (what, end) in open {
        let left = PROMISE.saturating_sub(changed.elapsed());
        timeout(left, end).await.unwrap_or_else(|_| panic!("{what} is open {PROMISE:?} after")).unwrap();
        slowest = slowest.max((changed.elapsed(), what));
    }
    others.more().await;
    // 4 over HTTP/1.1, 2 over HTTP/2. A peer whose stream is cut over HTTP/1.1 may hang up before it is asked to.
    let closed = world.closed_for(reason) - reasons_before;
    assert!((3..=6).contains(&closed), "{closed} closed for {reason}:\n{}", world.mesh.metrics().encode());
    let left = world.mesh.metrics().transport.connections();
    assert_eq!(connections - left, 6, "others keep theirs");
    let requests = others.all_well().await;
    println!(
        "{reason}: the last of {connections} to go was {} after {:?}; {requests} requests of others, 0 failed",
        slowest.1, slowest.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_policy_is_removed_loses_its_connections_and_others_keep_theirs() {
    let edit = |world: &World| std::fs::write(&world.policy, allow(&["batch"])).unwrap();
    ends_what_it_should("policy_removed", edit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_root_is_removed_loses_its_connections_and_others_keep_theirs() {
    let rotate = |world: &World| world.identity.rotate(trusting(&world.new, ORDERS, &[&world.new]));
    ends_what_it_should("distrusted", rotate).await;
}

#[tokio::test]
async fn a_peer_that_policy_never_let_in_keeps_its_connection_and_gets_its_refusals() {
    let world = World::start().await;
    let mut stranger = world.connect(&world.new, "spiffe://test/ns/test/sa/stranger", Version::HTTP_2).await;
    assert_eq!(stranger.get().await, Err("403 Forbidden".to_owned()));
    let generation = world.mesh.revision().generation();
    std::fs::write(&world.policy, allow(&["batch"])).unwrap();
    until("the reload", async || (world.mesh.revision().generation() > generation).then_some(())).await;
    sleep(Duration::from_millis(200)).await; // longer than looking at one connection takes
    assert_eq!(stranger.get().await, Err("403 Forbidden".to_owned()));
}

#[tokio::test]
async fn a_pinned_gateway_keeps_its_connection_when_policy_changes_and_another_peer_does_not() {
    for pinned in [true, false] {
        let pin = |config: &mut Config| {
            let mut listener = ListenerConfig::new(([127, 0, 0, 1], 0).into());
            if pinned {
                listener = listener.forwarded_identity(ForwardedConfig::new(vec![SpiffeId::parse(GATEWAY).unwrap()]));
            }
            config.listeners.insert("default".to_owned(), listener);
        };
        let world = World::with(&["web", "batch", "gateway"], pin).await;
        let mut gateway = world.connect(&world.new, GATEWAY, Version::HTTP_2).await;
        gateway.get().await.unwrap();
        // It has no permission of its own any more, and neither has one of those in whose names it calls.
        let generation = world.mesh.revision().generation();
        std::fs::write(&world.policy, allow(&["batch"])).unwrap();
        until("the reload", async || (world.mesh.revision().generation() > generation).then_some(())).await;
        if !pinned {
            soon("the end of the connection", gateway.ended).await.unwrap();
            until("its count", async || (world.closed_for("policy_removed") == 1).then_some(())).await;
            continue;
        }
        assert!(timeout(Duration::from_millis(200), &mut gateway.ended).await.is_err(), "a gateway was sent away");
        let Sender::H2(send) = &mut gateway.send else { unreachable!() };
        for (caller, status) in [(BATCH, 200), (WEB, 403)] {
            let request = Request::get("https://orders/").header("x-forwarded-client-cert", format!("URI={caller}"));
            let response = send.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status, "{caller}");
        }
        assert_eq!(world.closed_for("policy_removed"), 0);
    }
}

/// A client's mesh of the first of `authorities` that trusts all of them and calls `world`.
async fn caller(world: &World, authorities: &[&DevCa]) -> (Mesh, MemorySource, Client) {
    let source = MemorySource::new(trusting(authorities[0], WEB, authorities));
    let mut config = config("web");
    let discover = PlugConfig::new("static", &serde_json::json!([world.address.to_string()]));
    let orders = SpiffeId::parse(ORDERS).unwrap();
    config.clusters.insert("orders".to_owned(), mesh_core::config::ClusterConfig::new(discover, vec![orders]));
    let mesh = Mesh::builder().config(config).identity_source(Arc::new(source.clone())).start().await.unwrap();
    let client = Client::new(&mesh, "orders").unwrap();
    (mesh, source, client)
}

#[tokio::test]
async fn a_client_that_meets_an_unknown_issuer_looks_for_newer_trust_and_connects_once_more() {
    let world = World::start().await;
    // The server's authority is `new`, of which this mesh has not heard. Its root is there now, and nobody told.
    let (mesh, source, client) = caller(&world, &[&world.old]).await;
    source.offer(trusting(&world.old, WEB, &[&world.old, &world.new]));
    let response = client.get("/").no_retry().send().await.unwrap();
    assert_eq!((response.status().as_u16(), mesh.identity().generation()), (200, 2));
    let handshakes = |result| world.mesh.metrics().transport.handshakes(result);
    assert_eq!((handshakes("refused_by_peer"), handshakes("ok")), (1, 1));

    // Where there is nothing newer it does not connect again.
    let (mesh, _source, client) = caller(&world, &[&world.old]).await;
    let error = client.get("/").no_retry().send().await.unwrap_err();
    assert!(error.to_string().contains("(bad_signature)"), "{error}");
    let asked = |line: &&str| line.starts_with("mesh_identity_refreshes_total") && line.contains("unchanged");
    assert!(mesh.metrics().encode().lines().find(asked).unwrap().ends_with(" 1"));
}

#[tokio::test]
async fn a_client_ends_its_streams_to_a_server_that_it_trusts_no_more() {
    let world = World::start().await;
    let (mesh, source, client) = caller(&world, &[&world.old, &world.new]).await;
    let mut body = client.get("/endless").send().await.unwrap().into_inner().into_body();
    assert_eq!(soon("a frame", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "begun");
    // A new certificate of its own changes nothing for the stream.
    source.rotate(trusting(&world.old, WEB, &[&world.old, &world.new]));
    until("the rotation", async || (mesh.identity().generation() == 2).then_some(())).await;
    assert!(timeout(Duration::from_millis(200), body.frame()).await.is_err(), "cut for nothing");

    let removed = Instant::now();
    source.rotate(trusting(&world.old, WEB, &[&world.old]));
    assert!(timeout(PROMISE, body.frame()).await.unwrap().is_none_or(|frame| frame.is_err()));
    println!("client: stream cut after {:?}", removed.elapsed());
    let error = client.get("/").no_retry().send().await.unwrap_err();
    assert!(error.to_string().contains("identity was refused"), "{error}");
    let closed = r#"mesh_client_connections_closed_total{cluster="orders",reason="distrusted"} 1"#;
    let text = mesh.metrics().encode();
    assert!(text.contains(closed), "{text}");
}

#[tokio::test]
async fn a_server_that_meets_an_unknown_issuer_looks_for_newer_trust_and_refuses() {
    let world = World::start().await;
    let third = authority();
    world.identity.offer(trusting(&world.new, ORDERS, &[&world.old, &world.new, &third]));
    let generation = world.mesh.identity().generation();
    let mut first = world.connect(&third, WEB, Version::HTTP_2).await;
    assert!(first.get().await.is_err(), "refused, whatever comes later");
    until("the new root", async || (world.mesh.identity().generation() > generation).then_some(())).await;
    world.connect(&third, WEB, Version::HTTP_2).await.get().await.unwrap();
    // Strangers cannot make it look as often as they like.
    let stranger = authority();
    let looks = |world: &World| {
        let text = world.mesh.metrics().encode();
        let lines = text.lines().filter(|line| line.starts_with("mesh_identity_refreshes_total"));
        let done = lines
            .filter(|line| !line.contains("joined"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        done.sum::<u64>()
    };
    let (before, start) = (looks(&world), Instant::now());
    for _ in 0..20 {
        assert!(world.connect(&stranger, WEB, Version::HTTP_2).await.get().await.is_err());
    }
    let allowed = start.elapsed().as_secs() + 1;
    assert!(looks(&world) - before <= allowed, "{} looks in {:?}", looks(&world) - before, start.elapsed());
}
