//! Services that run, and clients of any identity.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::audit::{AuditRecord, MemorySink};
use mesh_core::config::Config;
use mesh_core::identity::dev_ca::{DevCa, SvidPem};
use mesh_core::identity::{MemorySource, SpiffeId, TrustDomain};
use mesh_core::{Mesh, MeshBuilder};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::service::config_of;
use super::{Authority, Directory, SVID_TTL, TestError, TestService};
use crate::{BoxError, Client};

/// Services that run until this is dropped.
#[derive(Debug)]
pub struct RunningTestMesh {
    domain: TrustDomain,
    authority: Arc<Authority>,
    directory: Arc<Directory>,
    services: BTreeMap<String, Running>,
    callers: Mutex<BTreeMap<SpiffeId, Mesh>>,
}

#[derive(Debug)]
struct Running {
    mesh: Mesh,
    audit: MemorySink,
    identity: MemorySource,
    id: SpiffeId,
    server: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl RunningTestMesh {
    pub(super) fn new(domain: TrustDomain, authority: Arc<Authority>, directory: Arc<Directory>) -> Self {
        Self { domain, authority, directory, services: BTreeMap::new(), callers: Mutex::default() }
    }

    pub(super) async fn launch(&mut self, service: TestService, listener: TcpListener) -> Result<(), BoxError> {
        let name = service.name().to_owned();
        let (_, id) = self.find(&name)?;
        let (builder, serve) = service.into_parts(&self.domain, &id, &self.directory)?;
        let (identity, audit) = (MemorySource::new(self.authority.mint(&id)?), MemorySink::default());
        let builder = builder.identity_source(Arc::new(identity.clone())).audit_sink(Box::new(audit.clone()));
        let mesh = builder.start().await.map_err(|error| format!("service `{name}`: {error}"))?;
        let server = tokio::spawn(serve(&mesh, listener)?).abort_handle();
        self.services.insert(name, Running { mesh, audit, identity, id, server });
        Ok(())
    }

    /// An HTTP client of `service` with the identity `id` (`spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`).
    pub async fn client_as(&self, id: &str, service: &str) -> Result<Client, TestError> {
        Client::new(&self.mesh_as(id).await?, service).map_err(boxed)
    }

    /// The mesh of a caller with the identity `id`.
    ///
    /// Every service can be called by its name in it.
    ///
    /// For clients of another kind: `mesh_tonic::Channel::new(&mesh, "payments")`.
    pub async fn mesh_as(&self, id: &str) -> Result<Mesh, TestError> {
        Ok(self.caller(SpiffeId::parse(id).map_err(boxed)?).await?)
    }

    /// Like [`mesh_as`](Self::mesh_as), with more configuration: routes, timeouts, clusters outside of this test.
    pub async fn mesh_with(
        &self,
        id: &str,
        edit: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Result<Mesh, TestError> {
        let id = SpiffeId::parse(id).map_err(boxed)?;
        self.builder(&id)?.edit(edit).start().await.map_err(boxed)
    }

    async fn caller(&self, id: SpiffeId) -> Result<Mesh, BoxError> {
        let mut callers = self.callers.lock().await;
        if let Some(mesh) = callers.get(&id) {
            return Ok(mesh.clone());
        }
        let mesh = self.builder(&id)?.start().await?;
        callers.insert(id, mesh.clone());
        Ok(mesh)
    }

    fn builder(&self, id: &SpiffeId) -> Result<MeshBuilder, BoxError> {
        let name = id.workload().map_or("caller", |path| path.service_account).to_owned();
        let directory = Arc::clone(&self.directory);
        Ok(Mesh::builder()
            .config(config_of(&self.domain, id, &name, false)?)
            .edit(move |config| directory.write_to(config))
            .identity_source(Arc::new(MemorySource::new(self.authority.mint(id)?))))
    }

    /// Where `service` listens.
    pub fn address(&self, service: &str) -> Result<SocketAddr, TestError> {
        Ok(self.find(service)?.0)
    }

    /// The mesh that `service` runs in.
    pub fn mesh(&self, service: &str) -> Result<&Mesh, TestError> {
        Ok(&self.running(service)?.mesh)
    }

    /// Every audit record that `service` wrote so far: which policy and rule decided, and why.
    pub async fn audit(&self, service: &str) -> Result<Vec<AuditRecord>, TestError> {
        let running = self.running(service)?;
        running.mesh.audit().flush().await;
        Ok(running.audit.records())
    }

    /// Like [`audit`](Self::audit), and forgets them: many requests would fill the memory with theirs.
    pub async fn take_audit(&self, service: &str) -> Result<Vec<AuditRecord>, TestError> {
        let running = self.running(service)?;
        running.mesh.audit().flush().await;
        Ok(running.audit.take())
    }

    /// Gives every service a new certificate, as a rotation would.
    pub fn rotate(&self) -> Result<(), TestError> {
        for running in self.services.values() {
            running.identity.rotate(self.authority.mint(&running.id)?);
        }
        Ok(())
    }

    /// Ends `service` as a crash would.
    ///
    /// Its port is closed and every connection cut, while its audit records stay.
    pub fn stop(&self, service: &str) -> Result<(), TestError> {
        self.running(service)?.server.abort();
        Ok(())
    }

    /// A certificate of `id` as PEM, for a client that is no mesh client.
    pub fn svid_pem(&self, id: &str) -> Result<SvidPem, TestError> {
        let id = SpiffeId::parse(id).map_err(boxed)?;
        self.authority.ca.issue_pem(&id, SVID_TTL).map_err(boxed)
    }

    /// The authority that every certificate of this test is signed by.
    pub fn authority(&self) -> &DevCa {
        &self.authority.ca
    }

    fn find(&self, service: &str) -> Result<(SocketAddr, SpiffeId), BoxError> {
        self.directory.services.get(service).cloned().ok_or_else(|| unknown(service, &self.directory))
    }

    fn running(&self, service: &str) -> Result<&Running, BoxError> {
        self.services.get(service).ok_or_else(|| unknown(service, &self.directory))
    }
}

fn unknown(service: &str, directory: &Directory) -> BoxError {
    let known: Vec<_> = directory.services.keys().map(String::as_str).collect();
    format!("no service `{service}` in this test; there are: {}", known.join(", ")).into()
}

fn boxed(error: impl Into<BoxError>) -> TestError {
    TestError(error.into())
}
