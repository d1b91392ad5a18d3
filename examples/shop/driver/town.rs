//! Everything that runs: the processes by name, their addresses, and those who call them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_tower::Mesh;

use super::layout::Layout;
use super::process::Process;
use super::tokens::Issuer;
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

/// One run of the shop.
pub(crate) struct Town {
    pub(crate) layout: Layout,
    pub(crate) tokens: Issuer,
    processes: BTreeMap<&'static str, Process>,
}

impl Town {
    pub(crate) fn build() -> Result<Self, Error> {
        let layout = Layout::make()?;
        let tokens = Issuer::make(&layout.root().join("jwks.json"))?;
        Ok(Self { layout, tokens, processes: BTreeMap::new() })
    }

    /// Starts one process on a free port, or on its former one if it ran before, and tells everybody where it is.
    pub(crate) async fn start(&mut self, name: &'static str) -> Result<&Process, Error> {
        let role = role_of(name)?;
        let port = self.processes.get(name).map_or(0, |process| process.at.address.port());
        self.layout.write_service(name, role, port)?;
        let process = Process::start(role, &self.layout.process(name)).await?;
        self.processes.insert(name, process);
        self.layout.write_endpoints(role.name(), &self.addresses(role))?;
        self.process(name)
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

    /// A mesh of the driver's own, with the identity `spiffe://shop.example/ns/shop/sa/NAME`.
    pub(crate) async fn caller(&self, name: &str) -> Result<Mesh, Error> {
        let config = self.layout.write_caller(name)?;
        Ok(Mesh::builder().config_file(config).start().await?)
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

fn role_of(name: &str) -> Result<Role, Error> {
    let known = PROCESSES.iter().find(|(known, _)| *known == name);
    known.map(|(_, role)| *role).ok_or_else(|| format!("no process `{name}`").into())
}
