//! A network of pipes, an issuer that can go away, and workloads that renew themselves.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use futures_util::stream;
use mesh_core::Mesh;
use mesh_core::audit::MemorySink;
use mesh_core::clock::WallClock;
use mesh_core::config::{ClusterConfig, Config, HttpVersion, IdentityConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::dev_ca::{DevCa, SvidPem};
use mesh_core::identity::{
    Identity, IdentityError, IdentitySource, IdentityUpdates, Renewal, SpiffeId, TrustBundleSet, TrustDomain, X509Svid,
};
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_tower::accept::Accept;
use mesh_tower::connect::{self, BoxIo, Connecting, Connector};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) const S: Duration = Duration::from_secs(1);

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

pub(crate) fn id(name: &str) -> SpiffeId {
    SpiffeId::for_workload(&domain(), "shop", name).unwrap()
}

/// Calendar time that moves with tokio's, and may be set wrong.
#[derive(Debug)]
pub(crate) struct Calendar {
    start: Instant,
    wrong_by: AtomicI64,
}

impl Calendar {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), wrong_by: AtomicI64::new(0) })
    }

    /// Sets it wrong by so many seconds.
    pub(crate) fn skew(&self, secs: i64) {
        self.wrong_by.store(secs, SeqCst);
    }
}

impl WallClock for Calendar {
    fn now(&self) -> SystemTime {
        let true_time = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.start.elapsed();
        let wrong_by = self.wrong_by.load(SeqCst);
        let by = Duration::from_secs(wrong_by.unsigned_abs());
        if wrong_by < 0 { true_time - by } else { true_time + by }
    }
}

/// The issuer of everybody's certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    ca: DevCa,
    ttl: Duration,
    pub(crate) down: AtomicBool,
}

impl Authority {
    pub(crate) fn new(ttl: Duration, clock: Arc<dyn WallClock>) -> Arc<Self> {
        let ca = DevCa::in_memory(&domain(), clock).unwrap();
        Arc::new(Self { ca, ttl, down: AtomicBool::new(false) })
    }

    fn issue(&self, id: &SpiffeId) -> Result<Identity, IdentityError> {
        if self.down.load(SeqCst) {
            return Err(IdentityError { source_kind: "test", message: "the issuer is down".to_owned() });
        }
        Ok(self.identity(self.ca.issue(id, self.ttl).unwrap()))
    }

    fn identity(&self, svid: X509Svid) -> Identity {
        Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(TrustBundleSet::of(self.ca.bundle().unwrap())) }
    }

    /// An identity for whoever is no mesh, and the same as PEM.
    pub(crate) fn bare(&self, id: &SpiffeId, ttl: Duration) -> (Snapshot<Identity>, SvidPem) {
        let pem = self.ca.issue_pem(id, ttl).unwrap();
        let svid = X509Svid::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes()).unwrap();
        (Snapshot::new(self.identity(svid)), pem)
    }
}

/// How a workload keeps its certificate: as every source does, by [`Renewal`].
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) authority: Arc<Authority>,
    pub(crate) id: SpiffeId,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) rng: Rng,
    /// `false` takes the renewal away.
    pub(crate) renews: bool,
}

impl IdentitySource for Agent {
    fn watch(&self) -> IdentityUpdates {
        let (authority, id, clock, renews) =
            (Arc::clone(&self.authority), self.id.clone(), Arc::clone(&self.clock), self.renews);
        let start = (Renewal::new(self.rng.fork()), Duration::ZERO, false);
        Box::pin(stream::unfold(start, move |(mut renewal, mut wait, issued)| {
            let (authority, id, clock) = (Arc::clone(&authority), id.clone(), Arc::clone(&clock));
            async move {
                loop {
                    if issued && !renews {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(wait).await;
                    if !renewal.is_due(clock.now()) {
                        wait = renewal.wait(clock.now()).min(S / 2);
                        continue;
                    }
                    let answer = authority.issue(&id);
                    match &answer {
                        Ok(identity) => {
                            let svid = identity.svid().unwrap();
                            renewal.issued(svid.not_before(), svid.not_after(), clock.now());
                            wait = renewal.wait(clock.now()).min(S / 2);
                        }
                        Err(_) => wait = renewal.failed(),
                    }
                    let issued = issued || answer.is_ok();
                    return Some((answer, (renewal, wait, issued)));
                }
            }
        }))
    }
}

/// One connection's life, as seen from the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// When the first of both certificates ends; when it was opened, if that is later, and it can only be refused.
    pub(crate) not_after: SystemTime,
    pub(crate) closed: Option<SystemTime>,
}

/// Servers by address, and the lives of all connections between them.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    hosts: Arc<Mutex<HashMap<SocketAddr, Host>>>,
    pub(crate) lives: Arc<Mutex<Vec<Life>>>,
    clock: Arc<dyn WallClock>,
}

#[derive(Debug, Clone)]
struct Host {
    incoming: mpsc::Sender<Wire>,
    identity: Snapshot<Identity>,
}

impl Network {
    pub(crate) fn new(clock: Arc<dyn WallClock>) -> Self {
        Self { hosts: Arc::default(), lives: Arc::default(), clock }
    }

    /// Serves `router` as `mesh` at `address`.
    pub(crate) fn serve(&self, mesh: &Mesh, address: SocketAddr, router: Router) {
        let listener = self.listen(address, mesh.identity().clone());
        tokio::spawn(mesh_tower::serve(mesh, listener, router).into_future());
    }

    /// Whoever accepts here presents `identity`.
    pub(crate) fn listen(&self, address: SocketAddr, identity: Snapshot<Identity>) -> Listener {
        let (incoming, listener) = mpsc::channel(64);
        self.hosts.lock().unwrap().insert(address, Host { incoming, identity });
        Listener { incoming: listener, address }
    }

    /// Lets the clients of `mesh` reach the others.
    pub(crate) fn join(&self, mesh: &Mesh) {
        connect::install(mesh, Arc::new(self.dialler(mesh.identity().clone())));
    }

    /// Reaches the others for somebody who presents `identity`.
    pub(crate) fn dialler(&self, identity: Snapshot<Identity>) -> impl Connector {
        Dialler { network: self.clone(), identity }
    }

    /// How much longer than a certificate a connection lived, at worst.
    pub(crate) fn overstay(&self) -> Duration {
        let now = self.clock.now();
        let lives = self.lives.lock().unwrap();
        let over = lives.iter().map(|life| life.closed.unwrap_or(now).duration_since(life.not_after));
        over.map(Result::unwrap_or_default).max().unwrap_or_default()
    }

    pub(crate) fn open(&self) -> usize {
        self.lives.lock().unwrap().iter().filter(|life| life.closed.is_none()).count()
    }
}

#[derive(Debug)]
struct Dialler {
    network: Network,
    identity: Snapshot<Identity>,
}

impl Connector for Dialler {
    fn connect(&self, address: SocketAddr) -> Connecting {
        let (network, own) = (self.network.clone(), self.identity.load());
        Box::pin(async move {
            let host = network.hosts.lock().unwrap().get(&address).cloned();
            let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
            let ends = [own.svid(), host.identity.load().svid()].map(|svid| svid.unwrap().not_after());
            let number = {
                let mut lives = network.lives.lock().unwrap();
                let not_after = ends[0].min(ends[1]).max(network.clock.now());
                lives.push(Life { not_after, closed: None });
                lives.len() - 1
            };
            let (near, far) = tokio::io::duplex(64 * 1024);
            let wire = |pipe| Wire { pipe, network: network.clone(), number };
            let (near, far) = (wire(near), wire(far));
            host.incoming.send(far).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as BoxIo)
        })
    }
}

/// One end of a connection; the life ends when either end is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    pipe: DuplexStream,
    network: Network,
    number: usize,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let now = self.network.clock.now();
        if let Some(life) = self.network.lives.lock().unwrap().get_mut(self.number) {
            life.closed.get_or_insert(now);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The accepting end of an address.
#[derive(Debug)]
pub(crate) struct Listener {
    incoming: mpsc::Receiver<Wire>,
    address: SocketAddr,
}

impl Accept for Listener {
    type Io = Wire;

    async fn accept(&mut self) -> io::Result<(Wire, SocketAddr)> {
        match self.incoming.recv().await {
            Some(wire) => Ok((wire, ([10, 0, 0, 9], 50_000).into())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A workload `shop/NAME` that lets every identity in. `calls` names clusters: their protocol and server.
pub(crate) async fn workload(
    name: &str,
    source: Arc<dyn IdentitySource>,
    clock: Arc<dyn WallClock>,
    calls: &[(&str, HttpVersion, SocketAddr, &str)],
) -> Mesh {
    let source_config = PlugConfig::new("memory", &serde_json::Value::Null);
    let mut config = Config::new(Workload::new(name, "shop"), IdentityConfig::new(domain(), source_config));
    config.no_policy = NoPolicy::Allow;
    for (cluster, http, address, server) in calls {
        let discover = PlugConfig::new("static", &serde_json::json!([address.to_string()]));
        let mut made = ClusterConfig::new(discover, vec![id(server)]);
        made.pool.http = *http;
        config.clusters.insert((*cluster).to_owned(), made);
    }
    Mesh::builder()
        .config(config)
        .identity_source(source)
        .audit_sink(Box::new(MemorySink::default()))
        .clock(clock)
        .rng(Rng::seeded(name.len() as u64))
        .start()
        .await
        .unwrap()
}

/// The sum of every series of `name` whose labels contain none of `but`.
pub(crate) fn counted(mesh: &Mesh, name: &str, but: &[&str]) -> u64 {
    let text = mesh.metrics().encode();
    let lines = text.lines().filter(|line| line.starts_with(name) && !but.iter().any(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
