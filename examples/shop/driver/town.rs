//! Everything that runs: the processes by name, their addresses, and those who call them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mesh_tower::Mesh;
use serde_json::Value;

use super::caller::Caller;
use super::layout::Layout;
use super::process::Process;
use super::tokens::Issuer;
use super::wait::until;
use crate::Error;
use crate::role::Role;

/// Processes in the order in which they are started: each finds those it calls.
pub(crate) const PROCESSES: [(&str, Role); 5] = [
    ("payments-1", Role::Payments),
    ("payments-2", Role::Payments),
    ("payments-3", Role::Payments),
    ("orders", Role::Orders),
    ("gateway", Role::Gateway),
];

const AUDITED: Duration = Duration::from_secs(5);

/// One run of the shop.
pub(crate) struct Town {
    pub(crate) layout: Layout,
    pub(crate) tokens: Issuer,
    processes: BTreeMap<&'static str, Process>,
    orders: Arc<AtomicU64>,
}

impl Town {
    pub(crate) fn build() -> Result<Self, Error> {
        let layout = Layout::make()?;
        let tokens = Issuer::make(&layout.root().join("jwks.json"))?;
        Ok(Self { layout, tokens, processes: BTreeMap::new(), orders: Arc::new(AtomicU64::new(1)) })
    }

    /// Starts one process on a free port, or on its former one if it ran before, and tells everybody where it is.
    pub(crate) async fn start(&mut self, name: &'static str) -> Result<(), Error> {
        let known = PROCESSES.iter().find(|(known, _)| *known == name);
        let (_, role) = *known.ok_or_else(|| format!("no process `{name}`"))?;
        let port = self.processes.get(name).map_or(0, |process| process.at.address.port());
        self.layout.write_service(name, role, port)?;
        let process = Process::start(role, &self.layout.process(name)).await?;
        self.processes.insert(name, process);
        self.layout.write_endpoints(role.name(), &self.addresses(role))
    }

    pub(crate) fn process(&self, name: &str) -> Result<&Process, Error> {
        self.processes.get(name).ok_or_else(|| format!("{name} does not run").into())
    }

    pub(crate) fn process_mut(&mut self, name: &str) -> Result<&mut Process, Error> {
        self.processes.get_mut(name).ok_or_else(|| format!("{name} does not run").into())
    }

    fn addresses(&self, role: Role) -> Vec<SocketAddr> {
        let running = PROCESSES.iter().filter(|(_, its)| *its == role);
        running.filter_map(|(name, _)| self.processes.get(name)).map(|process| process.at.address).collect()
    }

    /// Somebody with the identity `spiffe://shop.example/ns/shop/sa/NAME`, and no connection yet.
    pub(crate) async fn caller(&self, name: &str) -> Result<Caller, Error> {
        let config = self.layout.write_caller(name)?;
        let mesh = Mesh::builder().config_file(config).start().await?;
        Caller::new(mesh, Arc::clone(&self.orders))
    }

    /// The last audit record of one of these processes that `wanted` takes. Records are written a little later than
    /// the answer is sent.
    pub(crate) async fn audited(&self, processes: &[&str], wanted: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        let look = || async {
            for name in processes {
                if let Some(record) = self.layout.audit(name)?.into_iter().rev().find(&wanted) {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        };
        Ok(until("an audit record", AUDITED, look).await?.0)
    }

    /// Asks every process to end, callers first.
    pub(crate) async fn stop(&mut self) {
        for (name, _) in PROCESSES.iter().rev() {
            if let Some(process) = self.processes.remove(name) {
                process.stop().await;
            }
        }
    }
}
