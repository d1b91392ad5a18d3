//! A mesh inside one test: real certificates, real sockets, your own services and policies.
//!
//! A service behind a mesh is hard to test from outside: who may call depends on certificates. [`TestMesh`] starts any
//! number of services on loopback, each with an SVID of an authority that lives in memory, and gives out clients with
//! any identity you name. Nothing is mocked: what a test sees is what a peer would see. An identity is only ever
//! minted, never injected behind the handshake.
//!
//! ```
//! use axum::{Router, routing::get};
//! use mesh_tower::Principal;
//! use mesh_tower::test_util::TestMesh;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Router::new().route("/orders/{id}", get(|peer: Principal| async move { format!("for {peer}") }));
//!
//! let shop = TestMesh::new().service("orders", app).start().await?;
//! let web = shop.client_as("spiffe://test/ns/shop/sa/web", "orders").await?;
//!
//! let answer = web.get("/orders/7").send().await?;
//! assert_eq!(answer.text().await?, "for spiffe://test/ns/shop/sa/web");
//! # Ok(()) }
//! ```

mod issuer;
mod running;
mod service;

pub use issuer::TestIssuer;
pub use running::RunningTestMesh;
pub use service::TestService;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mesh_core::clock::SystemClock;
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{Identity, SpiffeId, TrustBundleSet, TrustDomain};
use tokio::net::TcpListener;

use crate::BoxError;

/// How long the SVIDs of a test are valid.
const SVID_TTL: Duration = Duration::from_secs(3600);

/// Why a test's mesh could not do what it was asked.
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct TestError(#[from] BoxError);

impl std::fmt::Debug for TestError {
    /// As for people: it is what `main` shows of an error that it returns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Services that are about to be started together.
#[derive(Debug)]
pub struct TestMesh {
    trust_domain: String,
    namespace: String,
    services: Vec<TestService>,
}

impl Default for TestMesh {
    fn default() -> Self {
        Self { trust_domain: "test".to_owned(), namespace: "test".to_owned(), services: Vec::new() }
    }
}

impl TestMesh {
    /// No services yet, in the trust domain `test`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The trust domain of all identities.
    ///
    /// Services with a `mesh.yaml` of their own must name the same.
    pub fn trust_domain(mut self, name: impl Into<String>) -> Self {
        self.trust_domain = name.into();
        self
    }

    /// The namespace of services without a `mesh.yaml`. Default: `test`.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// Adds a service that every identity of the trust domain may call.
    ///
    /// For policies, see [`with`](Self::with).
    pub fn service(self, name: impl Into<String>, app: Router) -> Self {
        self.with(TestService::new(name).app(move |_mesh| Ok(app)))
    }

    /// Adds a service with its own policies, configuration, gRPC routes, or calls to the others.
    pub fn with(mut self, service: TestService) -> Self {
        self.services.push(service);
        self
    }

    /// Binds every service to a free port of loopback, and starts it.
    ///
    /// Each is callable by the others under its name.
    ///
    /// Everything ends when the result is dropped.
    pub async fn start(self) -> Result<RunningTestMesh, TestError> {
        Ok(self.launch().await?)
    }

    async fn launch(self) -> Result<RunningTestMesh, BoxError> {
        let domain = TrustDomain::parse(&self.trust_domain)?;
        let authority = Arc::new(Authority::new(&domain)?);
        let mut listeners = Vec::new();
        let mut directory = Directory::default();
        for service in &self.services {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let id = service.spiffe_id(&domain, &self.namespace)?;
            let member = (listener.local_addr()?, id);
            directory.clusters.entry(service.cluster().to_owned()).or_default().push(member.clone());
            if directory.services.insert(service.name().to_owned(), member).is_some() {
                return Err(format!("two services are called `{}`", service.name()).into());
            }
            listeners.push(listener);
        }
        let directory = Arc::new(directory);
        let mut running = RunningTestMesh::new(domain, Arc::clone(&authority), Arc::clone(&directory));
        for (service, listener) in self.services.into_iter().zip(listeners) {
            running.launch(service, listener).await?;
        }
        Ok(running)
    }
}

/// Where every service is, and who.
#[derive(Debug, Default)]
struct Directory {
    services: BTreeMap<String, Member>,
    clusters: BTreeMap<String, Vec<Member>>,
}

type Member = (std::net::SocketAddr, SpiffeId);

/// The authority of one test.
struct Authority {
    ca: DevCa,
    bundles: Arc<TrustBundleSet>,
}

impl Authority {
    fn new(domain: &TrustDomain) -> Result<Self, BoxError> {
        let ca = DevCa::in_memory(domain, Arc::new(SystemClock))?;
        let bundles = Arc::new(TrustBundleSet::of(ca.bundle()?));
        Ok(Self { ca, bundles })
    }

    /// A fresh SVID of `id`, with what it trusts.
    fn mint(&self, id: &SpiffeId) -> Result<Identity, BoxError> {
        let svid = Arc::new(self.ca.issue(id, SVID_TTL)?);
        Ok(Identity { svids: vec![svid], bundles: Arc::clone(&self.bundles) })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", self.ca.trust_domain()).finish_non_exhaustive()
    }
}
