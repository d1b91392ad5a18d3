//! One service of a test.

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use mesh_core::config::{Config, IdentityConfig, IssuerConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::plugin::Plugin;
use mesh_core::policy::AuthorizationPolicy;
use mesh_core::{Mesh, MeshBuilder};
use tokio::net::TcpListener;

use super::{Directory, TestIssuer};
use crate::{BoxError, ServeError};

type App = Box<dyn FnOnce(&Mesh) -> Result<Router, BoxError> + Send>;
type Server = Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>;
type Serving = Box<dyn FnOnce(&Mesh, TcpListener) -> Result<Server, BoxError> + Send>;
type Edit = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// One service of a test.
///
/// Its routes, and as much of its real configuration as the test should cover.
///
/// With [`config_file`](Self::config_file) everything in that file holds - policies, limits, tokens, routes - but for
/// what a test must replace: where certificates come from, listeners and the health port, and the addresses and
/// identities of those clusters that are services of the same test. Without it, every identity of the trust domain may
/// call unless a [`policy`](Self::policy) is given.
pub struct TestService {
    name: String,
    cluster: Option<String>,
    config_file: Option<PathBuf>,
    policies: Vec<String>,
    edits: Vec<Edit>,
    issuers: Vec<IssuerConfig>,
    plugins: Vec<Plugin>,
    app: Option<App>,
    grpc: Option<App>,
    serving: Option<Serving>,
}

impl TestService {
    /// A service without routes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cluster: None,
            config_file: None,
            policies: Vec::new(),
            edits: Vec::new(),
            issuers: Vec::new(),
            plugins: Vec::new(),
            app: None,
            grpc: None,
            serving: None,
        }
    }

    /// Makes it one endpoint of the cluster `name`, beside all that say the same.
    ///
    /// Default: a cluster of its own name.
    pub fn endpoint_of(mut self, cluster: impl Into<String>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// Its routes, made when its mesh has started, so that they can hold clients.
    pub fn app(mut self, app: impl FnOnce(&Mesh) -> Result<Router, BoxError> + Send + 'static) -> Self {
        self.app = Some(Box::new(app));
        self
    }

    /// Its gRPC routes; with mesh-tonic, `mesh_tonic::router(routes)`.
    pub fn grpc(mut self, app: impl FnOnce(&Mesh) -> Result<Router, BoxError> + Send + 'static) -> Self {
        self.grpc = Some(Box::new(app));
        self
    }

    /// Serves it as its own `main` does, instead of by [`app`](Self::app) and [`grpc`](Self::grpc).
    ///
    /// ```
    /// # use mesh_tower::test_util::TestService;
    /// let orders = TestService::new("orders")
    ///     .serve_with(|mesh, listener| Ok(mesh_tower::serve(mesh, listener, axum::Router::new())));
    /// ```
    pub fn serve_with<F, S>(mut self, serve: F) -> Self
    where
        F: FnOnce(&Mesh, TcpListener) -> Result<S, BoxError> + Send + 'static,
        S: IntoFuture<Output = Result<(), ServeError>>,
        S::IntoFuture: Send + 'static,
    {
        self.serving = Some(Box::new(|mesh, listener| Ok(Box::pin(serve(mesh, listener)?.into_future()))));
        self
    }

    /// Its real `mesh.yaml`.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// One or more `AuthorizationPolicy` documents, as YAML.
    ///
    /// Once there is one, what it does not allow is denied.
    pub fn policy(mut self, yaml: impl Into<String>) -> Self {
        self.policies.push(yaml.into());
        self
    }

    /// Accepts the tokens of `issuer` for `audience`.
    ///
    /// If its configuration, or a `RequestAuthentication`, has an issuer of that name, only the keys change: the rest
    /// of it is what the test is for.
    pub fn issuer(mut self, issuer: &TestIssuer, audience: &str) -> Self {
        self.issuers.push(issuer.config(audience));
        self
    }

    /// Adds the kinds of another crate.
    pub fn plugin(mut self, plugin: Plugin) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// Any other change of its configuration.
    pub fn config(mut self, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.edits.push(Arc::new(edit));
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn cluster(&self) -> &str {
        self.cluster.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn spiffe_id(&self, domain: &TrustDomain, namespace: &str) -> Result<SpiffeId, BoxError> {
        let Some(file) = &self.config_file else {
            return Ok(SpiffeId::for_workload(domain, namespace, &self.name)?);
        };
        let (config, _policies) = mesh_core::load(file)?;
        if config.identity.trust_domain != *domain {
            let found = &config.identity.trust_domain;
            return Err(format!(
                "{}: the trust domain is `{found}`, that of the test `{domain}`: say `TestMesh::new().trust_domain(\"{found}\")`",
                file.display()
            )
            .into());
        }
        let workload = &config.workload;
        Ok(SpiffeId::for_workload(domain, &workload.namespace, &workload.service_account)?)
    }

    /// The builder of its mesh, and how it is served.
    pub(super) fn into_parts(
        self,
        domain: &TrustDomain,
        id: &SpiffeId,
        directory: &Arc<Directory>,
    ) -> Result<(MeshBuilder, Serving), BoxError> {
        let mut builder = Mesh::builder();
        builder = match &self.config_file {
            Some(file) => builder.config_file(file),
            None => builder.config(config_of(domain, id, &self.name, self.policies.is_empty())?),
        };
        for yaml in &self.policies {
            builder = builder.policies(AuthorizationPolicy::from_yaml(yaml)?);
        }
        let directory = Arc::clone(directory);
        builder = builder.edit(move |config| directory.write_to(config));
        builder = self.plugins.into_iter().fold(builder, MeshBuilder::with);
        for edit in self.edits {
            builder = builder.edit(move |config| edit(config));
        }
        builder = self.issuers.into_iter().fold(builder, MeshBuilder::issuer);
        let (app, grpc) = (self.app, self.grpc);
        let default = move |mesh: &Mesh, listener| {
            let router = app.map_or_else(|| Ok(Router::new()), |app| app(mesh))?;
            let mut serve = crate::serve(mesh, listener, router);
            if let Some(grpc) = grpc {
                serve = serve.grpc(grpc(mesh)?);
            }
            Ok(serve.into_future())
        };
        Ok((builder, self.serving.unwrap_or_else(|| Box::new(default))))
    }
}

impl fmt::Debug for TestService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestService").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A configuration of defaults for a workload without a file.
pub(super) fn config_of(domain: &TrustDomain, id: &SpiffeId, name: &str, open: bool) -> Result<Config, BoxError> {
    let path =
        id.workload().ok_or_else(|| format!("{id} is not of the form `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`"))?;
    let mut workload = Workload::new(name, path.namespace);
    workload.service_account = path.service_account.to_owned();
    workload.labels.insert("app".to_owned(), name.to_owned());
    // The source in memory that the builder is given stands in for this one.
    let source = PlugConfig::new("memory", &serde_json::Value::Null);
    let mut config = Config::new(workload, IdentityConfig { trust_domain: domain.clone(), source });
    if open {
        config.no_policy = NoPolicy::Allow;
    }
    Ok(config)
}

impl Directory {
    /// Points every cluster that is a service of this test to where it really is.
    pub(super) fn write_to(&self, config: &mut Config) {
        config.listeners.clear();
        config.health = None;
        for (name, members) in &self.clusters {
            let addresses: Vec<_> = members.iter().map(|(address, _)| address.to_string()).collect();
            let discover = PlugConfig::new("static", &serde_json::json!(addresses));
            let identities: BTreeSet<_> = members.iter().map(|(_, id)| id.clone()).collect();
            let identities = identities.into_iter().collect();
            match config.clusters.get_mut(name) {
                Some(cluster) => (cluster.discover, cluster.identities) = (discover, identities),
                None => {
                    let cluster = mesh_core::config::ClusterConfig::new(discover, identities);
                    config.clusters.insert(name.clone(), cluster);
                }
            }
        }
    }
}
