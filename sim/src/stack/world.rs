//! One simulation: hosts that run meshes, and what the world does to them.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mesh_core::Mesh;
use mesh_core::audit::{AuditLine, AuditSink};
use mesh_core::config::{ClusterConfig, Config, IdentityConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::MemorySource;
use mesh_core::rng::Rng;
use mesh_tower::connect;
use tokio::sync::watch;
use turmoil::{Builder, Sim};

use super::Fault;
use super::net::{Calendar, Dialler, Listener, PORT, node};

/// The host that [`run`]s.
pub(super) const CLIENT: &str = "client";

/// One way, on every link.
pub(super) const LATENCY: Duration = Duration::from_millis(1);

/// A simulated network with the settings that simulations are reliable with.
pub(super) fn network<'a>(seed: u64, longest: Duration) -> Sim<'a> {
    Builder::new()
        .rng_seed(seed)
        .epoch(Calendar::epoch())
        .simulation_duration(longest)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(LATENCY)
        .max_message_latency(LATENCY)
        .tcp_capacity(4096)
        .build()
}

/// Virtual time since the simulation began, the same on every host.
pub(super) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Where the host `name` listens.
pub(super) fn address(sim: &Sim<'_>, name: &str) -> SocketAddr {
    SocketAddr::new(sim.lookup(name), PORT)
}

/// Forgets every record: what is audited is tested elsewhere.
#[derive(Debug)]
struct Forget;

impl AuditSink for Forget {
    fn write(&mut self, _lines: &[AuditLine]) -> std::io::Result<()> {
        Ok(())
    }

    fn never_waits(&self) -> bool {
        true // a thread of its own would come back whenever the machine lets it
    }
}

/// Starts the mesh of one workload, on the host that is running.
pub(super) async fn mesh(
    name: &str,
    rng: Rng,
    edit: impl FnOnce(&mut Config) -> Result<(), Fault>,
) -> Result<Mesh, Fault> {
    let (domain, _, identity) = node()?;
    let source = PlugConfig::new("memory", &serde_json::Value::Null);
    let mut config = Config::new(Workload::new(name, "sim"), IdentityConfig::new(domain, source));
    config.no_policy = NoPolicy::Allow;
    config.poll_interval = Duration::from_secs(60); // no file is ever changed
    edit(&mut config)?;
    let mesh = Mesh::builder()
        .config(config)
        .identity_source(Arc::new(MemorySource::new(identity)))
        .audit_sink(Box::new(Forget))
        .clock(Arc::new(Calendar))
        .rng(rng)
        .start()
        .await?;
    connect::install(&mesh, Arc::new(Dialler));
    Ok(mesh)
}

/// A cluster of these endpoints, with default settings.
pub(super) fn cluster(endpoints: &[SocketAddr]) -> Result<ClusterConfig, Fault> {
    let (_, id, _) = node()?;
    let addresses: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    Ok(ClusterConfig::new(PlugConfig::new("static", &serde_json::json!(addresses)), vec![id]))
}

/// What `client` finds, which runs on a host of its own; the simulation ends with it.
pub(super) fn run<T: 'static>(
    mut sim: Sim<'_>,
    client: impl Future<Output = Result<T, Fault>> + 'static,
) -> Result<T, Fault> {
    let found = Rc::new(RefCell::new(None));
    sim.client(CLIENT, {
        let found = Rc::clone(&found);
        async move {
            found.replace(Some(client.await?));
            Ok(())
        }
    });
    sim.run()?;
    found.take().ok_or_else(|| "the client has not ended".into())
}

/// Starts hosts of which each serves what `router` makes; where they listen, and their processes.
pub(super) fn servers<R>(
    sim: &mut Sim<'_>,
    names: impl Iterator<Item = String>,
    rng: &Rng,
    edit: impl Fn(&mut Config) -> Result<(), Fault> + Clone + 'static,
    router: R,
) -> Vec<(SocketAddr, Process)>
where
    R: Fn(&Mesh, Rng) -> Result<Router, Fault> + Clone + 'static,
{
    let start = |name: String| {
        let (process, address) = (Process::running(), address(sim, &name));
        let (rng, edit, router, runs) = (rng.fork(), edit.clone(), router.clone(), process.clone());
        sim.host(name.clone(), move || runs.clone().serve(name.clone(), rng.fork(), edit.clone(), router.clone()));
        (address, process)
    };
    names.map(start).collect()
}

/// Whether a server's process runs. Its host lives on, so that whoever connects meanwhile is refused.
#[derive(Debug, Clone)]
pub(super) struct Process(watch::Sender<bool>);

impl Process {
    pub(super) fn running() -> Self {
        Self(watch::Sender::new(true))
    }

    /// `kill -9`: the port is closed and every connection is cut.
    pub(super) fn kill(&self) {
        self.0.send_replace(false);
    }

    /// Starts it again, as a new process.
    pub(super) fn start(&self) {
        self.0.send_replace(true);
    }

    /// Serves `router`, for HTTP and gRPC alike, as long as the process runs; each time in a new mesh.
    pub(super) async fn serve(
        self,
        name: String,
        rng: Rng,
        edit: impl Fn(&mut Config) -> Result<(), Fault>,
        router: impl Fn(&Mesh, Rng) -> Result<Router, Fault>,
    ) -> Result<(), Fault> {
        let mut runs = self.0.subscribe();
        loop {
            runs.wait_for(|runs| *runs).await?;
            let mesh = mesh(&name, rng.fork(), &edit).await?;
            let router = router(&mesh, rng.fork())?;
            let serving = mesh_tower::serve(&mesh, Listener::bind().await?, router.clone()).grpc(router);
            let mut serving = tokio::spawn(serving.into_future());
            tokio::select! {
                biased;
                // A panic of the accept loop must end the simulation.
                ended = &mut serving => return Ok(ended??),
                stopped = runs.wait_for(|runs| !*runs) => drop(stopped?),
            }
            serving.abort();
            if let Err(error) = serving.await
                && error.is_panic()
            {
                return Err(error.into());
            }
        }
    }
}
