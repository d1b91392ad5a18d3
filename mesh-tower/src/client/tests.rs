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
use super::pool::{Dial, DialFailure, Dialed, Transport};
use super::registry::RuntimeCluster;
use super::replay::RequestBody;
use super::retry::RetryLayer;
use super::*;
use crate::context::{RequestContext, TraceContext};
use crate::error::{Error, ErrorKind};

mod attempts;
mod cancelled;
mod checks;
mod connections;
mod limits;
mod restart;
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
    frozen: bool,
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

    fn dialed(&self, address: SocketAddr) -> usize {
        self.0.lock().unwrap()[&address].dialed.load(SeqCst)
    }
}

impl Dial for Net {
    fn dial(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = Result<Dialed, DialFailure>> + Send + '_>> {
        let host = self.0.lock().unwrap().get(&address).cloned();
        Box::pin(async move {
            let refused = || DialFailure::new(ErrorKind::Connect, ConnectFailure::Tcp, "refused");
            let host = host.ok_or_else(refused)?;
            host.dialed.fetch_add(1, SeqCst);
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
        let attempt = BalanceLayer::new()
            .layer(EndpointLayer::for_test().layer(AuthenticateLayer::new().layer(Transport::default())));
        let stack = DeadlineLayer::new().layer(RetryLayer::for_test().layer(attempt));
        stack.oneshot(self.mark(request)).await
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
async fn an_endpoint_that_dies_under_load_costs_no_idempotent_request() {
    for http2 in [true, false] {
        let net = Net::default();
        let slow = |_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answer(200, "ok")
        };
        let hosts = [net.slow_host(1, slow), net.slow_host(2, slow), net.slow_host(3, slow)];
        hosts.iter().for_each(|host| net.edit(*host, |host| host.http2 = http2));
        let budget = BudgetConfig::default().min_per_second(100);
        let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.budget = budget)));

        let mut calls = tokio::task::JoinSet::new();
        for i in 0..300_u64 {
            let rig = rig.clone();
            calls.spawn(async move {
                tokio::time::sleep(Duration::from_millis(i)).await;
                let response = rig.get().await?;
                let (status, attempts) = (response.status(), attempts(&response));
                text(response).await;
                Ok::<_, Error>((status, attempts.matches(',').count()))
            });
            if i == 150 {
                let net = net.clone();
                calls.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(152)).await;
                    net.kill(hosts[0]);
                    Ok((StatusCode::OK, 0))
                });
            }
        }
        let mut repeated = 0;
        while let Some(result) = calls.join_next().await {
            let (status, retries) = result.unwrap().expect("a call failed");
            assert_eq!(status, 200);
            repeated += retries;
        }
        assert!(repeated > 0, "the kill hit requests under way, or this test shows nothing");
        let dead = &rig.cluster.cluster.endpoints()[0];
        assert!(!dead.available(Instant::now()), "a dead endpoint is not picked");

        rig.net.revive(hosts[0]);
        rig.until(|rig| rig.cluster.cluster.endpoints()[0].available(Instant::now())).await;
        assert_eq!(rig.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_once_is_never_called_unsent() {
    let net = Net::default();
    let host = net.slow_host(1, frozen);
    let rig = Rig::new(&net, &[host], Some(retry(|_| {})));
    let calling = rig.clone();
    let call = tokio::spawn(async move { calling.get().await });
    rig.until(|rig| rig.in_flight() == 1 && rig.net.dialed(host) == 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    net.kill(host);
    let error = call.await.unwrap().unwrap_err();
    assert!(error.attempts().len() > 1 && error.kind() == ErrorKind::Connect, "{error:?}");
    assert!(!error.is_never_sent(), "the first attempt reached its server");
    let error = rig.get().await.unwrap_err();
    assert!(error.is_never_sent(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_endpoint_costs_one_attempt_timeout() {
    let net = Net::default();
    let hosts = [net.slow_host(1, frozen), net.host(2, ok)];
    let config = retry(|retry| retry.per_try_timeout = Some(Duration::from_millis(100)));
    let rig = Rig::new(&net, &hosts, Some(config));
    let mut timed_out = 0;
    for _ in 0..20 {
        let started = Instant::now();
        let response = rig.get().await.unwrap();
        let log = attempts(&response);
        assert_eq!(text(response).await, "ok");
        if log == "10.0.0.1:80 timeout, 10.0.0.2:80 200" {
            timed_out += 1;
            assert!((100..200).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        } else {
            assert_eq!(log, "10.0.0.2:80 200");
        }
    }
    assert!((1..=5).contains(&timed_out), "{timed_out} of 20: the frozen endpoint must lose its good name");
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_sent_once_and_what_was_not_is_sent_again() {
    let net = Net::default();
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, killer) = (Arc::clone(&seen), net.clone());
    let first = SocketAddr::from(([10, 0, 0, 1], 80));
    net.slow_host(1, move |_| {
        count.fetch_add(1, SeqCst);
        killer.kill(first);
        std::future::pending::<Answer>()
    });
    let rig = Rig::new(&net, &[first], Some(retry(|_| {})));
    let error = rig.send(post("charge")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_never_sent(), seen.load(SeqCst)), (ErrorKind::Connection, false, 1), "{error}");
    assert_eq!(error.attempts().len(), 1);

    // Dead from the start: provably never sent, so even a POST without retry rules goes elsewhere.
    let second = net.host(2, ok);
    let rig = Rig::new(&net, &[first, second], None);
    for _ in 0..10 {
        assert_eq!(rig.send(post("charge")).await.unwrap().status(), 200);
    }
    assert_eq!(seen.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_declared_post_is_repeated_with_the_same_body_and_one_over_the_cap_is_not() {
    let net = Net::default();
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let handler = |log: &Arc<Mutex<Vec<Bytes>>>, status| {
        let log = Arc::clone(log);
        move |request: Request<Incoming>| {
            let log = Arc::clone(&log);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                log.lock().unwrap().push(body);
                answer(status, "")
            }
        }
    };
    let hosts = [net.slow_host(1, handler(&bodies, 503)), net.slow_host(2, handler(&bodies, 503))];
    let rig = Rig::new(&net, &hosts, Some(retry(|retry| (retry.attempts, retry.max_replay_bytes) = (2, 6))));
    for (body, sent) in [("charge", 2), ("charges", 1)] {
        let mut request = post(body);
        request.extensions_mut().insert(Idempotent);
        let response = rig.send(request).await.unwrap();
        assert_eq!(response.status(), 503, "the last answer is the caller's");
        assert_eq!(std::mem::take(&mut *bodies.lock().unwrap()), vec![Bytes::from_static(body.as_bytes()); sent]);
    }
    // Nobody declared this one.
    assert_eq!(rig.send(post("x")).await.unwrap().status(), 503);
    assert_eq!(bodies.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_ends_retries() {
    let net = Net::default();
    let hosts = [net.host(1, |_| answer(503, "")), net.host(2, |_| answer(503, ""))];
    let budget = BudgetConfig::default().ratio(0.1).min_per_second(0);
    let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.budget = budget)));
    let mut made = 0;
    for _ in 0..100 {
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), 503);
        // Whoever is answered with this must not spend a budget of its own on it.
        assert!(response.headers().contains_key(crate::classify::NO_RETRY));
        made += response.extensions().get::<Attempts>().unwrap().len();
    }
    assert_eq!(made, 110, "a tenth more, and no more");
    let metrics = rig.cluster.cluster.metrics();
    assert_eq!(metrics.retries.count(RetryReason::Failure), 10);
    assert!(metrics.budget_exhausted.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_above_is_told_when_repeating_is_of_no_use() {
    let poor = BudgetConfig::default().ratio(0.0).min_per_second(0);
    let rules = |attempts, budget: &BudgetConfig| {
        Some(retry(|retry| (retry.attempts, retry.budget) = (attempts, budget.clone())))
    };
    let (rich, told) = (BudgetConfig::default(), &["mesh-no-retry"][..]);
    for (what, status, marks, rules, post_it, attempts, spent) in [
        ("nothing to repeat", 200, &[][..], rules(3, &rich), false, 1, false),
        ("repeated in vain", 503, &[], rules(3, &rich), false, 3, true),
        ("the budget is exhausted", 503, &[], rules(3, &poor), false, 1, true),
        ("no rules of ours", 503, &[], None, false, 1, false),
        ("one attempt by our rules", 503, &[], rules(1, &rich), false, 1, false),
        ("not ours to repeat", 503, &[], rules(3, &rich), true, 1, false),
        ("the endpoint said so", 502, told, rules(3, &rich), false, 1, true),
        ("it said so, and we never would", 502, told, None, false, 1, true),
        ("it said so, of a charge", 500, told, rules(3, &rich), true, 1, true),
    ] {
        let net = Net::default();
        let host = net.host(1, move |_| {
            let mut response = answer(status, "");
            for mark in marks {
                response.headers_mut().insert(*mark, http::HeaderValue::from_static("1"));
            }
            response
        });
        let rig = Rig::new(&net, &[host], rules);
        let response = rig.send(if post_it { post("charge") } else { get() }).await.unwrap();
        let made = response.extensions().get::<Attempts>().unwrap();
        assert_eq!((made.len(), made.is_in_vain()), (attempts, spent), "{what}");
    }
    // What was repeated and came to something was not in vain, whatever it is.
    let (net, calls) = (Net::default(), AtomicUsize::new(0));
    let host = net.host(1, move |_| answer(if calls.fetch_add(1, SeqCst) == 0 { 503 } else { 404 }, ""));
    let response = Rig::new(&net, &[host], rules(3, &rich)).get().await.unwrap();
    let made = response.extensions().get::<Attempts>().unwrap();
    assert_eq!((response.status().as_u16(), made.len(), made.is_in_vain()), (404, 2, false));
    assert!(!response.headers().contains_key(crate::classify::NO_RETRY));
}

#[tokio::test(start_paused = true)]
async fn grpc_unavailable_is_repeated_wherever_it_stands() {
    for trailers_only in [true, false] {
        let net = Net::default();
        let hosts = [
            net.host(1, move |_| grpc_answer(trailers_only, "14")),
            net.host(2, |_| grpc_answer(true, "0")),
            net.host(3, move |_| grpc_answer(trailers_only, "14")),
        ];
        let rig = Rig::new(&net, &hosts, Some(retry(|retry| retry.idempotent = Some(true))));
        let mut repeated = 0;
        for _ in 0..10 {
            let response = rig.send(grpc_call()).await.unwrap();
            let log = attempts(&response);
            assert!(log.ends_with("10.0.0.2:80 grpc-status 0"), "{log}");
            repeated += usize::from(log.contains("grpc-status 14"));
        }
        assert!(repeated > 0);
        rig.until(|rig| rig.in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bidirectional_stream_is_not_held_back_by_the_peek() {
    let net = Net::default();
    // Answers with headers at once, and with a message only after it has one.
    let echo = |request: Request<Incoming>| {
        Response::builder()
            .header("content-type", "application/grpc")
            .body(RequestBody::new(request.into_body()))
            .unwrap()
    };
    let host = net.host(1, echo);
    let rig = Rig::new(&net, &[host], Some(retry(|retry| retry.idempotent = Some(true))));
    let (send, mut receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| {
        receive.poll_recv(cx).map(|data| data.map(|data| Ok::<_, Error>(Frame::data(data))))
    });
    let request = request(Method::POST).header("content-type", "application/grpc");
    let request = request.body(RequestBody::new(StreamBody::new(stream))).unwrap();
    let mut response = timeout(Duration::from_secs(1), rig.send(request)).await.expect("deadlock").unwrap();
    send.send(Bytes::from_static(b"ping")).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "ping");
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
async fn more_connections_are_opened_when_streams_run_out_and_then_callers_queue() {
    let net = Net::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = Arc::clone(&gate);
    let host = net.slow_host(1, move |_| {
        let gate = Arc::clone(&open);
        async move {
            gate.acquire().await.unwrap().forget();
            answer(200, "ok")
        }
    });
    net.edit(host, |host| host.streams = 2);
    let rig = Rig::with(&net, &[host], None, |config| {
        config.pool.max_connections = 3;
        config.pool.max_pending = 4;
    });
    // The peer's limit is known from the first answer on.
    gate.add_permits(1);
    text(rig.get().await.unwrap()).await;

    let calls: Vec<_> = (0..10)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { Ok::<_, Error>(text(rig.get().await?).await) })
        })
        .collect();
    rig.until(|rig| rig.in_flight() == 10 && rig.net.dialed(host) == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = rig.send(get()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "3 x 2 streams, 4 pending: {error}");
    assert_eq!(rig.net.dialed(host), 3);

    gate.add_permits(10);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "ok");
    }
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longest_is_served_next() {
    let net = Net::default();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let host = net.host(1, move |_| {
        count.fetch_add(1, SeqCst);
        answer(200, "ok")
    });
    net.edit(host, |host| host.streams = 1);
    let rig = Rig::with(&net, &[host], None, |config| config.pool.max_connections = 1);
    text(rig.get().await.unwrap()).await;
    // Each asks for the only stream in the moment it gives it back: without a queue, one of them has it all the time.
    let greedy = || {
        let rig = rig.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                text(rig.get().await.unwrap()).await;
            }
        })
    };
    let others = [greedy(), greedy()];
    for _ in 0..10 {
        tokio::task::yield_now().await;
        let before = served.load(SeqCst);
        text(rig.get().await.unwrap()).await;
        let between = served.load(SeqCst) - before;
        assert!(between <= 4, "{between} were served before one that waited");
    }
    for other in others {
        other.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn streams_wait_until_the_peer_has_said_how_many_it_allows() {
    let net = Net::default();
    let host = net.slow_host(1, |_| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer(200, "ok")
    });
    net.edit(host, |host| host.streams = 16);
    let rig = Rig::with(&net, &[host], None, |config| config.pool.max_connections = 2);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { attempts(&rig.get().await.unwrap()) })
        })
        .collect();
    for call in calls {
        let attempts = call.await.unwrap();
        assert!(!attempts.contains(','), "refused first: {attempts}");
    }
    assert_eq!(
        net.dialed(host),
        2,
        "40 are too many for one connection, not for 16 streams of two, one after the other"
    );
}

#[tokio::test(start_paused = true)]
async fn http1_connections_are_reused_and_idle_ones_are_closed() {
    let net = Net::default();
    let host = net.host(1, ok);
    net.edit(host, |host| host.http2 = false);
    let rig = Rig::new(&net, &[host], None);
    for _ in 0..20 {
        text(rig.get().await.unwrap()).await;
    }
    assert_eq!(net.dialed(host), 1);
    let endpoints = rig.cluster.cluster.endpoints();
    assert_eq!(endpoints[0].transport().connections(), 1);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(endpoints[0].transport().connections(), 0, "unused for twice the idle timeout");
    assert_eq!(rig.cluster.cluster.metrics().connections.get(), 0);
    assert!(endpoints[0].available(Instant::now()), "idle is not unreachable");
    assert_eq!(net.dialed(host), 1, "nobody asked for another");
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

/// Dials a TLS server that demands a certificate which this side does not have.
struct RefusesUs(tokio_rustls::TlsAcceptor, tokio_rustls::TlsConnector);

impl RefusesUs {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = rcgen::generate_simple_self_signed(["shop".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let callers =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(callers.build().unwrap())
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(server).into(), Arc::new(client).into())
    }
}

impl Dial for RefusesUs {
    fn dial(&self, _: SocketAddr) -> Pin<Box<dyn Future<Output = Result<Dialed, DialFailure>> + Send + '_>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(self.0.accept(far));
            let io = self.1.connect("shop".try_into().unwrap(), near).await.expect("TLS 1.3 tells it only later");
            Ok(Dialed { io: Box::new(io), http2: true, peer: None, retire_at: None })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_our_certificate_is_named_as_the_reason() {
    let host = SocketAddr::from(([10, 0, 0, 1], 80));
    let mut rig = Rig::new(&Net::default(), &[], None);
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(RefusesUs::new())));
    rig.cluster.cluster.update(vec![Address::new(host)], Instant::now());
    for _ in 0..5 {
        let error = rig.send(post("charge")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::PeerIdentity, true), "{error}");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
    assert!(!rig.cluster.cluster.endpoints()[0].available(Instant::now()));
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_grows_old_is_replaced_without_failing_a_request() {
    /// Connections that retire after a minute.
    struct Aging(Net);
    impl Dial for Aging {
        fn dial(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = Result<Dialed, DialFailure>> + Send + '_>> {
            Box::pin(async move {
                let dialed = self.0.dial(address).await?;
                Ok(Dialed { retire_at: Some(Instant::now() + Duration::from_secs(60)), ..dialed })
            })
        }
    }
    let net = Net::default();
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        answer(200, "ok")
    };
    let host = net.slow_host(1, slow);
    let mut rig = Rig::new(&net, &[], None);
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(Aging(net.clone()))));
    rig.cluster.cluster.update(vec![Address::new(host)], Instant::now());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        let (one, two) = tokio::join!(rig.get(), async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            rig.get().await
        });
        assert_eq!((one.unwrap().status(), two.unwrap().status()), (StatusCode::OK, StatusCode::OK));
    }
    assert_eq!(net.dialed(host), 6, "the first, and one a minute");
    assert_eq!(rig.cluster.cluster.endpoints()[0].transport().connections(), 1);
}
