//! The stack over in-memory servers: what callers see when endpoints die, freeze, refuse or lie.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::config::{BudgetConfig, ClusterConfig, PlugConfig, RetryConfig};
use mesh_core::deadline::Deadline as Until;
use mesh_core::discover::Endpoint as Address;
use mesh_core::retry::{RetryBudget, RetryPolicy};
use mesh_core::telemetry::{ConnectFailure, RetryReason};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use super::authenticate::AuthenticateLayer;
use super::balance::BalanceLayer;
use super::call::Call;
use super::deadline::DeadlineLayer;
use super::endpoint::EndpointLayer;
use super::pool::{Dial, DialFailure, DialFuture, Dialed, Transport};
use super::registry::RuntimeCluster;
use super::request_body::RequestBody;
use super::retry::RetryLayer;
use super::*;
use crate::connect::Dialing;
use crate::context::{RequestContext, TraceContext};
use crate::error::{Error, ErrorKind};

mod attempts;
mod bursts;
mod cancelled;
mod checks;
mod connections;
mod hostile;
mod limits;
mod pooling;
mod restart;
mod retries;
mod wire;

type Answer = Response<RequestBody>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Servers by address, behind pipes instead of sockets.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<HashMap<SocketAddr, Host>>>);

#[derive(Clone)]
struct Host {
    handler: Handler,
    http2: bool,
    streams: u32,
    /// Connections end when it changes; `true` also refuses new ones.
    kill: watch::Sender<bool>,
    dialed: Arc<AtomicUsize>,
    /// Dials under way.
    dialing: Arc<AtomicUsize>,
    /// How long a dial waits for its turn, and then takes.
    times: (Duration, Duration),
    frozen: bool,
}

/// Gives back what was counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Net {
    fn host(&self, n: u8, handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> SocketAddr {
        self.slow_host(n, move |request| std::future::ready(handler(request)))
    }

    fn slow_host<F>(&self, n: u8, handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> SocketAddr
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let address = SocketAddr::from(([10, 0, 0, n], 80));
        let host = Host {
            handler: Arc::new(move |request| Box::pin(handler(request))),
            http2: true,
            streams: 100,
            kill: watch::Sender::new(false),
            dialed: Arc::default(),
            dialing: Arc::default(),
            times: Default::default(),
            frozen: false,
        };
        self.0.lock().unwrap().insert(address, host);
        address
    }

    fn edit(&self, address: SocketAddr, edit: impl FnOnce(&mut Host)) {
        edit(self.0.lock().unwrap().get_mut(&address).unwrap());
    }

    fn kill(&self, address: SocketAddr) {
        self.edit(address, |host| _ = host.kill.send_replace(true));
    }

    fn revive(&self, address: SocketAddr) {
        self.edit(address, |host| _ = host.kill.send_replace(false));
    }

    fn dialing(&self, address: SocketAddr) -> usize {
        self.0.lock().unwrap()[&address].dialing.load(SeqCst)
    }

    fn dialed(&self, address: SocketAddr) -> usize {
        self.0.lock().unwrap()[&address].dialed.load(SeqCst)
    }
}

impl Dial for Net {
    fn dial<'a>(&'a self, address: SocketAddr, dialing: &'a Dialing) -> DialFuture<'a> {
        let host = self.0.lock().unwrap().get(&address).cloned();
        Box::pin(async move {
            let refused = || DialFailure::new(ErrorKind::Connect, ConnectFailure::Tcp, "refused");
            let host = host.ok_or_else(refused)?;
            host.dialed.fetch_add(1, SeqCst);
            host.dialing.fetch_add(1, SeqCst);
            let _counted = Counted(Arc::clone(&host.dialing));
            let (turn, handshake) = host.times;
            if !turn.is_zero() {
                let _here = dialing.stand();
                tokio::time::sleep(turn).await;
            }
            if !handshake.is_zero() {
                tokio::time::sleep(handshake).await;
            }
            if host.frozen {
                std::future::pending::<()>().await;
            }
            if *host.kill.borrow() {
                return Err(refused());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            let http2 = host.http2;
            tokio::spawn(serve(far, host));
            Ok(Dialed { io: Box::new(near), http2, peer: None, retire_at: None })
        })
    }
}

async fn serve(io: tokio::io::DuplexStream, host: Host) {
    let mut killed = host.kill.subscribe();
    let handler = host.handler;
    let service = hyper::service::service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let connection = async {
        if host.http2 {
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.timer(TokioTimer::new()).max_concurrent_streams(host.streams);
            let _ = server.serve_connection(TokioIo::new(io), service).await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
        }
    };
    tokio::select! {
        () = connection => {}
        _ = killed.changed() => {}
    }
}

/// What the route layer would find.
#[derive(Clone)]
struct Rig {
    net: Net,
    route: Arc<mesh_core::route::Route>,
    cluster: Arc<RuntimeCluster>,
}

impl Rig {
    fn new(net: &Net, hosts: &[SocketAddr], retry: Option<RetryConfig>) -> Self {
        Self::with(net, hosts, retry, |_| {})
    }

    fn with(
        net: &Net,
        hosts: &[SocketAddr],
        retry: Option<RetryConfig>,
        edit: impl FnOnce(&mut ClusterConfig),
    ) -> Self {
        let budget = retry.as_ref().map(|retry| retry.budget.clone()).unwrap_or_default();
        let mut config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
        edit(&mut config);
        let cluster = RuntimeCluster::for_test("shop", &config, Box::new(net.clone()));
        if !hosts.is_empty() {
            cluster.cluster.update(hosts.iter().map(|host| Address::new(*host)).collect(), Instant::now());
        }
        let route = mesh_core::route::Route {
            hash: Vec::new(),
            name: "shop[0]".into(),
            cluster: "shop".into(),
            timeout: Duration::from_secs(15),
            retry: retry.as_ref().map(RetryPolicy::new),
            budget: Arc::new(RetryBudget::new(budget, Instant::now())),
        };
        Self { net: net.clone(), route: Arc::new(route), cluster: Arc::new(cluster) }
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Response<Body>, Error> {
        self.stack().oneshot(self.mark(request)).await
    }

    fn stack(
        &self,
    ) -> impl Service<Request<RequestBody>, Response = Response<Body>, Error = Error, Future: Send> + Send + use<> {
        let attempt = BalanceLayer::new()
            .layer(EndpointLayer::for_test().layer(AuthenticateLayer::new().layer(Transport::default())));
        DeadlineLayer::new().layer(RetryLayer::for_test().layer(attempt))
    }

    fn mark<B>(&self, mut request: Request<B>) -> Request<B> {
        let call = Call {
            hash: None,
            route: Arc::clone(&self.route),
            cluster: Arc::clone(&self.cluster),
            grpc: crate::grpc::is_grpc(request.headers()),
            headers_by: None,
            whole_by: None,
            allowed: Duration::ZERO,
            chosen: None,
            tried: Default::default(),
            retry: None,
        };
        request.extensions_mut().insert(call);
        request
    }

    async fn get(&self) -> Result<Response<Body>, Error> {
        self.send(get()).await
    }

    fn in_flight(&self) -> usize {
        self.cluster.cluster.endpoints().iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Waits until `fact` holds; paused time makes this instantaneous.
    async fn until(&self, fact: impl Fn(&Self) -> bool) {
        let reached = timeout(Duration::from_secs(60), async {
            while !fact(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        reached.await.expect("never came true");
    }
}

fn request(method: Method) -> http::request::Builder {
    Request::builder().method(method).uri("https://shop/x")
}

fn get() -> Request<RequestBody> {
    request(Method::GET).body(RequestBody::new(Empty::<Bytes>::new())).unwrap()
}

fn post(body: &'static str) -> Request<RequestBody> {
    request(Method::POST).body(RequestBody::new(Full::new(Bytes::from_static(body.as_bytes())))).unwrap()
}

fn grpc_call() -> Request<RequestBody> {
    let request = request(Method::POST).header("content-type", "application/grpc");
    request.body(RequestBody::new(Full::new(Bytes::from_static(b"\0\0\0\0\0")))).unwrap()
}

fn answer(status: u16, body: &'static str) -> Answer {
    let body = RequestBody::new(Full::new(Bytes::from_static(body.as_bytes())));
    Response::builder().status(status).body(body).unwrap()
}

fn ok(_: Request<Incoming>) -> Answer {
    answer(200, "ok")
}

async fn frozen(_: Request<Incoming>) -> Answer {
    std::future::pending().await
}

fn grpc_answer(trailers_only: bool, code: &'static str) -> Answer {
    let status: HeaderMap = [("grpc-status".parse().unwrap(), code.parse().unwrap())].into_iter().collect();
    let response = Response::builder().header("content-type", "application/grpc");
    if trailers_only {
        let mut response = response.body(RequestBody::new(Empty::<Bytes>::new())).unwrap();
        response.headers_mut().extend(status);
        return response;
    }
    let frames = futures_util::stream::iter([Ok::<_, Error>(Frame::<Bytes>::trailers(status))]);
    response.body(RequestBody::new(StreamBody::new(frames))).unwrap()
}

fn retry(edit: impl FnOnce(&mut RetryConfig)) -> RetryConfig {
    let mut config = RetryConfig::default();
    edit(&mut config);
    config
}

async fn text(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn attempts(response: &Response<Body>) -> String {
    response.extensions().get::<Attempts>().unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn giving_up_anywhere_frees_everything() {
    let body_never_ends = || {
        let first = futures_util::stream::iter([Ok::<_, Error>(Frame::data(Bytes::from_static(b"x")))]);
        let rest = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        Response::new(RequestBody::new(StreamBody::new(rest)))
    };
    // Given up while connecting, while waiting for headers, while reading the body.
    for (http2, connecting, body) in [
        (true, true, false),
        (true, false, false),
        (true, false, true),
        (false, true, false),
        (false, false, false),
        (false, false, true),
    ] {
        let net = Net::default();
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        let host = net.slow_host(1, move |_| {
            count.fetch_add(1, SeqCst);
            async move {
                if !body {
                    std::future::pending::<()>().await;
                }
                body_never_ends()
            }
        });
        net.edit(host, |host| (host.http2, host.frozen, host.streams) = (http2, connecting, 1));
        let rig = Rig::with(&net, &[host], Some(retry(|_| {})), |config| config.pool.max_connections = 1);
        for _ in 0..3 {
            let call = timeout(Duration::from_millis(20), async {
                let response = rig.get().await.unwrap();
                text(response).await
            });
            assert!(call.await.is_err(), "it never finishes");
            rig.until(|rig| rig.in_flight() == 0).await;
        }
        let expected = if connecting { 0 } else { 3 };
        assert_eq!(hits.load(SeqCst), expected, "each call got the only stream: http2 {http2}, body {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_nearest_deadline_wins_and_is_told() {
    let net = Net::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let host = net.host(1, move |request| {
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        log.lock().unwrap().push((
            header("x-envoy-expected-rq-timeout-ms"),
            header("grpc-timeout"),
            header("traceparent"),
        ));
        ok(request)
    });
    let rig = Rig::new(&net, &[host], None);
    let context = |ms| {
        let deadline = Until::after(Instant::now(), Duration::from_millis(ms));
        RequestContext::new(
            TraceContext::parse(b"00-11111111111111111111111111111111-2222222222222222-01").unwrap(),
            Some(deadline),
        )
    };
    rig.get().await.unwrap();
    context(300).scope(rig.get()).await.unwrap();
    rig.send(grpc_call()).await.unwrap();
    context(300).scope(rig.send(grpc_call())).await.unwrap();
    let mut request = grpc_call();
    request.extensions_mut().insert(CallTimeout(Duration::from_millis(200)));
    context(300).scope(rig.send(request)).await.unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    let timeouts: Vec<_> = told.iter().map(|(http, grpc, _)| (http.as_deref(), grpc.as_deref())).collect();
    let [(Some("15000"), None), (Some("300"), None), (None, None), (None, Some(inherited)), (None, Some(own))] =
        &timeouts[..]
    else {
        panic!("{timeouts:?}")
    };
    let read = |value: &str| crate::grpc::parse_timeout(&value.parse().unwrap()).unwrap();
    assert_eq!((read(inherited), read(own)), (Duration::from_millis(300), Duration::from_millis(200)));
    assert!(told.iter().all(|(.., trace)| trace.is_some()));

    let error = context(0).scope(rig.get()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::Timeout, true));
    assert_eq!(net.dialed(host), 1);
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_calls_wait_for_discovery_to_their_deadline() {
    let net = Net::default();
    let host = net.host(1, ok);
    let rig = Rig::new(&net, &[], None);
    let error = rig.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unresolved, "{error}");

    let (late, waiting) = (rig.clone(), rig.clone());
    let call = tokio::spawn(async move { waiting.get().await.map(|response| response.status()) });
    tokio::time::sleep(Duration::from_secs(5)).await;
    late.cluster.cluster.update(vec![Address::new(host)], Instant::now());
    assert_eq!(call.await.unwrap().unwrap(), 200);

    late.cluster.cluster.update(Vec::new(), Instant::now());
    assert_eq!(rig.get().await.unwrap_err().kind(), ErrorKind::NoEndpoints);
}

#[tokio::test(start_paused = true)]
async fn every_layer_is_ready_and_alone_it_refuses() {
    async fn refuses<S, B>(mut layer: S, request: Request<B>)
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Error>,
    {
        let ready = std::future::poll_fn(|cx: &mut Context<'_>| Poll::Ready(layer.poll_ready(cx).is_ready())).await;
        assert!(ready);
        assert_eq!(layer.call(request).await.unwrap_err().kind(), ErrorKind::Wiring);
    }
    let transport = Transport::default;
    let one = || get().map(ReplayBody::once);
    refuses(transport(), one()).await;
    refuses(AuthenticateLayer::new().layer(transport()), one()).await;
    refuses(EndpointLayer::for_test().layer(transport()), one()).await;
    refuses(BalanceLayer::new().layer(transport()), one()).await;
    refuses(RetryLayer::for_test().layer(transport()), get()).await;
    refuses(DeadlineLayer::new().layer(transport()), one()).await;

    // Without the balancer, the innermost has no endpoint.
    let rig = Rig::new(&Net::default(), &[], None);
    let stack = EndpointLayer::for_test().layer(AuthenticateLayer::new().layer(transport()));
    refuses(stack, rig.mark(one())).await;
}

#[test]
fn an_unknown_service_suggests_the_nearest() {
    for (asked, nearest) in [("payment", Some("payments")), ("Payments", Some("payments")), ("stock", None)] {
        let error = UnknownService::new(asked, &["orders", "payments"]);
        assert_eq!(error.nearest.as_deref(), nearest, "{error}");
    }
}
