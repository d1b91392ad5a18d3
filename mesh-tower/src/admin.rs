//! The plain port for kubelet and Prometheus, which have no SVID.
//!
//! It answers three paths and knows no other, because every further one would be an open door:
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process can answer |
//! | `/readyz` | 200 when this process should get traffic, else 503; one line says why |
//! | `/metrics` | OpenMetrics text |
//!
//! `serve` starts it when `health:` is configured, once for each mesh. Each connection carries one request and lives
//! at most ten seconds. Where all places are taken, whoever has said nothing for longest gives way, so that strangers cannot
//! starve the probes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::Mesh;
use mesh_core::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::accept::Incoming;
use crate::serve::ServeError;
use crate::transport::{HalfOpen, Seats};

const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 8 * 1024;
const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Where the health listener of `mesh` is bound.
///
/// `None` before `serve` started it, or without `health:`.
pub fn address(mesh: &Mesh) -> Option<SocketAddr> {
    State::of(mesh).address.get().copied()
}

/// Whether the process of `mesh` should get traffic, as `/readyz` says it; if not, why.
///
/// Not before `serve` runs, not while it drains, and not without a valid identity: fails closed. Asking later does not
/// keep the mesh alive.
pub fn readiness(mesh: &Mesh) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
    let (state, identity) = (State::of(mesh), mesh.readiness());
    move || {
        identity().map_err(|error| error.to_string())?;
        state.unready().map_or(Ok(()), |reason| Err(reason.to_owned()))
    }
}

/// What the listener knows of the servers of one mesh.
#[derive(Debug, Default)]
struct State {
    address: OnceCell<SocketAddr>,
    serving: AtomicUsize,
    draining: AtomicUsize,
}

impl State {
    fn of(mesh: &Mesh) -> Arc<Self> {
        mesh.extension(Self::default)
    }

    /// Why this process should get no traffic, as far as its servers know.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) > 0 {
            Some("draining")
        } else if self.serving.load(Ordering::Relaxed) == 0 {
            Some("not serving")
        } else {
            None
        }
    }
}

/// One server that runs; from [`drain`](Self::drain) on it asks for no more traffic.
pub(crate) struct Serving {
    state: Arc<State>,
    draining: bool,
}

impl Serving {
    pub(crate) fn begin(mesh: &Mesh) -> Self {
        let state = State::of(mesh);
        state.serving.fetch_add(1, Ordering::Relaxed);
        Self { state, draining: false }
    }

    pub(crate) fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.state.draining.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.state.serving.fetch_sub(1, Ordering::Relaxed);
        if self.draining {
            self.state.draining.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Binds the health listener unless it is bound already, or not configured.
pub(crate) async fn start(mesh: &Mesh) -> Result<(), ServeError> {
    let Some(address) = mesh.revision().load().config.health.as_ref().map(|health| health.address) else {
        return Ok(());
    };
    let state = State::of(mesh);
    let bound = state.address.get_or_try_init(|| async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let answers = Answers { ready: Box::new(readiness(mesh)), metrics: Arc::clone(mesh.metrics()) };
        mesh.spawn("health", run(listener, Arc::new(answers)));
        tracing::info!(address = %bound, "health listener started");
        Ok(bound)
    });
    let what = "`health:`".to_owned();
    bound.await.map(drop).map_err(|source| ServeError::Bind { what, address, source })
}

async fn run(listener: TcpListener, answers: Arc<Answers>) {
    let half_open = HalfOpen::new(Arc::default());
    let mut incoming = Incoming::new(
        listener,
        ("health", Seats::new(MAX_CONNECTIONS)),
        Arc::clone(&half_open),
        Arc::clone(&answers.metrics),
    );
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased; // no more connections end than came
            Some(_) = connections.join_next() => {}
            Some((stream, _, slot)) = incoming.next(MAX_CONNECTIONS) => {
                let answers = Arc::clone(&answers);
                let (place, evicted) = half_open.enter();
                connections.spawn(async move {
                    let _slot = slot;
                    // Until it has asked for something.
                    let place = Mutex::new(Some(place));
                    let service = service_fn(move |request| {
                        drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
                        let answer = answers.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let connection = builder().serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        biased;
                        ended = tokio::time::timeout(MAX_CONNECTION_TIME, connection) => if let Ok(Err(error)) = ended {
                            tracing::debug!(%error, "health connection failed");
                        },
                        Ok(()) = evicted => tracing::debug!("health connection that said nothing gave way"),
                    }
                });
            }
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(MAX_CONNECTION_TIME)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false);
    builder
}

/// What the answers are made of. Holds no `Mesh`, so that it does not keep it alive.
struct Answers {
    ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    metrics: Arc<Metrics>,
}

impl Answers {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
        }
        match request.uri().path() {
            "/livez" => respond(StatusCode::OK, PLAIN, "ok\n"),
            "/readyz" => match (self.ready)() {
                Ok(()) => respond(StatusCode::OK, PLAIN, "ready\n"),
                Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
            },
            "/metrics" => respond(StatusCode::OK, OPENMETRICS, self.metrics.encode()),
            _ => respond(StatusCode::NOT_FOUND, PLAIN, "not found\n"),
        }
    }
}

fn respond(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
