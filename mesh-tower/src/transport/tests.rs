//! The accept loop and its connections over in-memory pipes, under paused time.

mod endings;
mod modes;
mod recheck;
mod timeouts;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::Revision;
use mesh_core::clock::WallClock;
use mesh_core::config::{
    Config, Errors, HttpVersion, IdentityConfig, ListenerConfig, Mtls, NoPolicy, PlugConfig, Workload,
};
use mesh_core::identity::{Identity, TrustDomain};
use mesh_core::policy::{EngineOptions, PolicyEngine, parse_documents};
use mesh_core::rng::Rng;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::Metrics;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tower::service_fn;

use super::lifetime::CloseReason;
use super::standing::{Order, Standing};
use super::{Ground, Shared};
use crate::Connection;
use crate::accept::{Accept, Stop, run};
use crate::connection::{Fate, Unfit};
use crate::fixture::{Ca, DAY};
use crate::tls::{HandshakeRefused, PeerRefused, alert_in, for_test};

mod flood;
mod limits;
mod progress;
mod shutdown;
mod sizes;
mod supervision;

const S: Duration = Duration::from_secs(1);
const WEB: &str = "spiffe://td/ns/shop/sa/web";
const ORDERS: &str = "spiffe://td/ns/shop/sa/orders";

/// Calendar time that moves with tokio's.
#[derive(Debug)]
struct Calendar(Instant);

impl WallClock for Calendar {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// A listener whose connections are pipes.
struct Pipes {
    incoming: mpsc::Receiver<DuplexStream>,
    errors: Vec<io::Error>,
    max_open: Option<usize>,
}

impl Accept for Pipes {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.errors.pop() {
            Some(error) => Err(error),
            None => match self.incoming.recv().await {
                Some(io) => Ok((io, client_address())),
                None => pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([10, 0, 0, 1], 8443).into())
    }

    fn max_open(&self) -> Option<usize> {
        self.max_open
    }
}

fn client_address() -> SocketAddr {
    ([10, 0, 0, 2], 50_000).into()
}

/// The policies in `yaml`; without any, everybody may do everything.
fn revision(yaml: &str) -> Revision {
    let trust_domain = TrustDomain::parse("td").unwrap();
    let source = PlugConfig::new("memory", &serde_json::json!({}));
    let identity = IdentityConfig { trust_domain: trust_domain.clone(), source };
    let config = Config::new(Workload::new("orders", "shop"), identity);
    let mut errors = Errors::default();
    let documents = parse_documents("<test>", yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}", errors.issues());
    let mut options = EngineOptions::new(trust_domain);
    options.no_policy = NoPolicy::Allow;
    Revision {
        policy: Arc::new(PolicyEngine::compile(&documents, &config.workload, &options)),
        tokens: Arc::default(),
        routes: Arc::new(RouteTable::compile(&config, None)),
        config: Arc::new(config),
    }
}

fn ground(
    identity: &Snapshot<Identity>,
    revision: &Snapshot<Revision>,
    clock: &Arc<dyn WallClock>,
    metrics: &Arc<Metrics>,
) -> Ground {
    Ground {
        tls: for_test::server(identity, clock),
        metrics: Arc::clone(metrics),
        clock: Arc::clone(clock),
        rng: Rng::seeded(1),
        identity: identity.clone(),
        revision: revision.clone(),
        mesh: None,
    }
}

/// A server under test and what its clients need.
struct Net {
    clock: Arc<dyn WallClock>,
    ca: Ca,
    server: Snapshot<Identity>,
    web: Snapshot<Identity>,
    policy: Snapshot<Revision>,
    metrics: Arc<Metrics>,
    dial: mpsc::Sender<DuplexStream>,
    stop: Option<oneshot::Sender<()>>,
    /// To cut everything, once it is stopping.
    cut: Option<oneshot::Sender<()>>,
    stopped: JoinHandle<io::Result<()>>,
}

impl Net {
    fn start<F, R>(edit: impl FnOnce(&mut ListenerConfig), handler: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_on(Vec::new(), None, edit, handler)
    }

    /// On a listener that fails with `errors` first, and has files for `max_open` connections.
    fn start_on<F, R>(
        errors: Vec<io::Error>,
        max_open: Option<usize>,
        edit: impl FnOnce(&mut ListenerConfig),
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Body>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let clock: Arc<dyn WallClock> = Arc::new(Calendar(Instant::now()));
        let ca = Ca::new("root", &clock);
        let server = Snapshot::new(ca.issue(ORDERS, DAY));
        let web = Snapshot::new(ca.issue(WEB, DAY));
        let policy = Snapshot::new(revision(""));
        let metrics = Arc::new(Metrics::default());
        let mut config = ListenerConfig::new(([10, 0, 0, 1], 8443).into());
        edit(&mut config);
        let (dial, incoming) = mpsc::channel(64);
        let (stop, signal) = oneshot::channel::<()>();
        let (cut, cut_signal) = oneshot::channel::<()>();
        let service = service_fn(move |request| {
            let response = handler(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let stop_signal = async move { drop(signal.await) };
        let ground = ground(&server, &policy, &clock, &metrics);
        let configured = policy.clone();
        let stopped = tokio::spawn(async move {
            let cut = async {
                if cut_signal.await.is_err() {
                    pending().await
                }
            };
            let stop = Stop { signal: stop_signal, draining: || {}, cut };
            let settings = || configured.load().config.listeners.get("default").unwrap_or(&config).clone();
            let listener = Pipes { incoming, errors, max_open };
            run(ground, Arc::from("default"), listener, service, settings, stop).await
        });
        Self { clock, ca, server, web, policy, metrics, dial, stop: Some(stop), cut: Some(cut), stopped }
    }

    fn ground(&self) -> Ground {
        ground(&self.server, &self.policy, &self.clock, &self.metrics)
    }

    /// A byte stream to the server.
    async fn pipe(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.dial.send(theirs).await.unwrap();
        ours
    }

    async fn tls(
        &self,
        identity: &Snapshot<Identity>,
        expected: &[&str],
        http: HttpVersion,
    ) -> Result<TlsStream<DuplexStream>, HandshakeRefused> {
        let tls = for_test::client(identity, &self.clock, expected, http);
        tls.handshake(self.pipe().await, client_address()).await.map(|(stream, _)| stream)
    }

    async fn connect(&self, http: HttpVersion) -> Client {
        let stream = self.tls(&self.web, &[ORDERS], http).await.unwrap();
        Client::over(stream, http).await
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

/// One connection of a client, with what became of it.
struct Client {
    send: Sender,
    /// Ends when the server closes. Whether the goodbye could still be written to a closed pipe does not matter.
    ended: JoinHandle<()>,
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Client {
    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, http: HttpVersion) -> Self {
        let io = TokioIo::new(stream);
        if http == HttpVersion::Http1 {
            let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            Self { send: Sender::H1(send), ended: tokio::spawn(async { drop(connection.await) }) }
        } else {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (send, connection) = builder.timer(TokioTimer::new()).handshake(io).await.unwrap();
            Self { send: Sender::H2(send), ended: tokio::spawn(async { drop(connection.await) }) }
        }
    }

    async fn start(&mut self, path: &str, body: Body) -> hyper::Result<Response<hyper::body::Incoming>> {
        let request = Request::builder().method("POST");
        match &mut self.send {
            Sender::H1(send) => {
                let request = request.uri(path).header("host", "orders").body(body).unwrap();
                send.send_request(request).await
            }
            Sender::H2(send) => {
                let request = request.uri(format!("https://orders{path}")).body(body).unwrap();
                send.send_request(request).await
            }
        }
    }

    async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        let response = self.start(path, Body::empty()).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(bytes.to_vec()).unwrap()))
    }
}

async fn hello(_: Request<Body>) -> Response<Body> {
    Response::new(Body::from("hello"))
}

/// Waits, in virtual time, until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + 10 * S;
    while !condition() {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_knows_its_verified_peer() {
    let net = Net::start(
        |_| {},
        |request: Request<Body>| async move {
            let connection = request.extensions().get::<Arc<Connection>>().unwrap();
            let ConnectInfo(address) = *request.extensions().get::<ConnectInfo<SocketAddr>>().unwrap();
            assert_eq!(address, connection.peer().address);
            assert_eq!(connection.chain().len(), 1);
            assert_eq!(connection.http(), request.version());
            let id = &connection.peer().svid.as_ref().unwrap().id;
            Response::new(Body::from(format!("{id} {:?} {}", request.version(), connection.local_addr())))
        },
    );
    for (http, version) in [
        (HttpVersion::Http1, Version::HTTP_11),
        (HttpVersion::Http2, Version::HTTP_2),
        (HttpVersion::Auto, Version::HTTP_2),
    ] {
        let mut client = net.connect(http).await;
        for _ in 0..2 {
            let (status, body) = client.get("/").await.unwrap();
            assert_eq!((status, body), (StatusCode::OK, format!("{WEB} {version:?} 10.0.0.1:8443")));
        }
    }
    assert_eq!(net.metrics.transport.handshakes("ok"), 3);
    let stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http2).await.unwrap();
    let tls = stream.get_ref().1;
    assert_eq!(tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test(start_paused = true)]
async fn clients_that_prove_nothing_are_refused_and_counted() {
    let net = Net::start(|_| {}, hello);
    let (other, namesake) = (Ca::new("other", &net.clock), Ca::new("root", &net.clock));
    let server_bundles = || net.ca.issue(WEB, DAY).bundles;
    let refused = [
        // A stranger who trusts us, and whom we do not trust.
        (Identity { svids: other.issue(WEB, DAY).svids, bundles: server_bundles() }, "unknown_issuer"),
        (Identity { svids: namesake.issue(WEB, DAY).svids, bundles: server_bundles() }, "bad_signature"),
        (net.ca.issue("spiffe://elsewhere/ns/shop/sa/web", DAY), "unknown_trust_domain"),
        (Identity { svids: Vec::new(), bundles: server_bundles() }, "no_certificate"),
    ];
    for (identity, reason) in refused {
        // TLS 1.3: the handshake succeeds for the client, the refusal comes with the first read.
        let mut stream = net.tls(&Snapshot::new(identity), &[ORDERS], HttpVersion::Http2).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert!(alert_in(&error).is_some(), "{reason}: {error:?}");
        until(reason, || net.metrics.transport.handshakes(reason) == 1).await;
    }
    assert_eq!(net.metrics.transport.handshakes("ok"), 0);
    until("no connection is left", || net.metrics.transport.connections() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn old_tls_and_no_tls_get_nothing() {
    let net = Net::start(|_| {}, hello);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls12 = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::from(client_address().ip());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls12));
    let error = connector.connect(name, net.pipe().await).await.unwrap_err();
    assert_eq!(alert_in(&error), Some(rustls::AlertDescription::ProtocolVersion));
    until("TLS 1.2 is counted", || net.metrics.transport.handshakes("incompatible") == 1).await;

    let mut plain = net.pipe().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "answered in plaintext");
    until("plaintext is counted", || net.metrics.transport.handshakes("not_tls") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_with_another_name_is_refused_by_the_client() {
    let net = Net::start(|_| {}, hello);
    for expected in [&["spiffe://td/ns/shop/sa/payments"][..], &[]] {
        let refused = net.tls(&net.web, expected, HttpVersion::Http2).await.unwrap_err();
        assert_eq!(refused.reason(), "peer_id_mismatch");
        let HandshakeRefused::Peer(PeerRefused::IdMismatch { presented, .. }) = &refused else { panic!("{refused}") };
        assert_eq!(presented.as_str(), ORDERS);
    }
    until("the server counts", || net.metrics.transport.handshakes("refused_by_peer") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn after_rotation_new_connections_carry_the_new_serial_and_old_requests_finish() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let net = Net::start(
        |_| {},
        move |request| {
            let gate = Arc::clone(&opened);
            async move {
                if request.uri().path() == "/slow" {
                    gate.notified().await;
                }
                let connection = request.extensions().get::<Arc<Connection>>().unwrap();
                Response::new(Body::from(connection.peer().svid.as_ref().unwrap().serial.clone()))
            }
        },
    );
    let serial = |identity: &Snapshot<Identity>| identity.load().svid().unwrap().serial().to_owned();
    let server_serial = async || {
        let tls = for_test::client(&net.web, &net.clock, &[ORDERS], HttpVersion::Http2);
        tls.handshake(net.pipe().await, client_address()).await.unwrap().1.svid.serial.clone()
    };
    let (old_web, old_server) = (serial(&net.web), serial(&net.server));
    assert_eq!(server_serial().await, old_server);
    let mut client = net.connect(HttpVersion::Http2).await;
    assert_eq!(client.get("/").await.unwrap().1, old_web);
    let slow = tokio::spawn(async move { client.get("/slow").await.unwrap().1 });

    net.server.publish(net.ca.issue(ORDERS, DAY));
    net.web.publish(net.ca.issue(WEB, DAY));
    assert_ne!(serial(&net.server), old_server);
    assert_eq!(server_serial().await, serial(&net.server));
    assert_eq!(net.connect(HttpVersion::Http1).await.get("/").await.unwrap().1, serial(&net.web));
    gate.notify_one();
    assert_eq!(slow.await.unwrap(), old_web, "the open connection went on");
}

/// A handler whose response to `/slow` comes when the gate opens, and says when it was entered.
fn gated(gate: &Arc<Notify>, entered: &Arc<Notify>) -> impl Fn(Request<Body>) -> GatedFuture + Clone + use<> {
    let (gate, entered) = (Arc::clone(gate), Arc::clone(entered));
    move |request| {
        let (gate, entered) = (Arc::clone(&gate), Arc::clone(&entered));
        Box::pin(async move {
            if request.uri().path() == "/slow" {
                entered.notify_one();
                gate.notified().await;
            }
            Response::new(Body::from("done"))
        })
    }
}

type GatedFuture = std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

#[tokio::test(start_paused = true)]
async fn the_loop_survives_accept_errors_without_spinning() {
    const EMFILE: i32 = 24;
    let mut errors: Vec<_> = (0..5).map(|_| io::Error::from_raw_os_error(EMFILE)).collect();
    errors.push(io::ErrorKind::ConnectionAborted.into());
    let start = Instant::now();
    let net = Net::start_on(errors, None, |_| {}, hello);
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
    assert!((500..520).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let text = net.metrics.encode();
    assert!(text.contains("accept_errors_total{reason=\"resource\"} 5"), "{text}");
    assert!(text.contains("accept_errors_total{reason=\"connection\"} 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let net = Net::start(|config| config.max_connections = 1, hello);
    let mut first = net.connect(HttpVersion::Http2).await;
    first.get("/").await.unwrap();
    let second = net.connect(HttpVersion::Http2);
    let mut second = std::pin::pin!(second);
    let waited = tokio::time::timeout(5 * S, second.as_mut()).await;
    assert!(waited.is_err(), "a second connection was accepted");
    assert_eq!(net.metrics.transport.connections(), 1);
    assert_eq!(net.metrics.transport.waited_for("max_connections"), 1);
    drop(first);
    assert_eq!(second.await.get("/").await.unwrap().1, "hello");
}

#[tokio::test(start_paused = true)]
async fn bodies_and_heads_have_limits_and_grpc_bodies_do_not() {
    let net = Net::start(
        |config| {
            config.max_body_bytes = 10;
            config.max_header_bytes = 1024;
            config.max_headers = 8;
        },
        |request: Request<Body>| async move {
            if let Some(fate) = request.extensions().get::<Arc<Fate>>()
                && matches!(fate.get(), Some(Unfit::TooManyHeaders | Unfit::HeadersTooLarge))
            {
                return Response::builder().status(431).body(Body::empty()).unwrap(); // as the stack does
            }
            match request.into_body().collect().await {
                Ok(body) => Response::new(Body::from(body.to_bytes().len().to_string())),
                Err(error) => Response::new(Body::from(error.to_string())),
            }
        },
    );
    let mut client = net.connect(HttpVersion::Http2).await;
    let text = async |response: Response<hyper::body::Incoming>| {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    assert_eq!(text(client.start("/", Body::from("0123456789")).await.unwrap()).await, "10");
    assert_eq!(text(client.start("/", Body::from("0123456789a")).await.unwrap()).await, "length limit exceeded");
    let Sender::H2(send) = &mut client.send else { panic!("h2") };
    let grpc = Request::post("https://orders/a.B/C").header("content-type", "application/grpc+proto");
    let grpc = send.send_request(grpc.body(Body::from("0123456789a")).unwrap()).await.unwrap();
    assert_eq!(text(grpc).await, "11");
    let many = |count| (0..count).fold(Request::post("https://orders/"), |r, n| r.header("x", n.to_string()));
    for (count, status) in [(7, 200), (8, 431)] {
        // hyper adds `content-length: 0`
        let response = send.send_request(many(count).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{count} headers");
    }
    let large = Request::post("https://orders/").header("x", "y".repeat(2000)).body(Body::empty()).unwrap();
    let refused = send.send_request(large).await;
    assert!(refused.is_err() || refused.unwrap().status() == 431);

    let mut stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http1).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(2000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
}

/// An idle connection, and one whose request stays open.
async fn idle_and_busy(net: &Net, entered: &Notify, http: HttpVersion) -> (Client, JoinHandle<hyper::Result<()>>) {
    let mut idle = net.connect(http).await;
    idle.get("/").await.unwrap();
    let mut busy = net.connect(http).await;
    let request = tokio::spawn(async move { busy.get("/slow").await.map(drop) });
    entered.notified().await;
    (idle, request)
}

async fn order_of(standing: &Standing) -> Option<Order> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(standing.poll_order(cx))).await
}
