//! One live cluster per configured cluster and mesh, however many clients call it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::cluster::Cluster;
use mesh_core::config::{ClusterConfig, HealthCheckConfig, PoolConfig};
use mesh_core::discover::Endpoint;
use mesh_core::health::HealthCheck;
use mesh_core::snapshot::Versioned;
use mesh_core::{Mesh, Revision};

use super::attached::Attached;
use super::limits::ClusterLimits;
use super::pool::{Dial, MeshDial, Pool, PoolContext};
use crate::connect::Dialer;
use crate::error::{Error, ErrorKind};

/// A cluster with its pools, its resolver's task and its token source.
pub(crate) struct RuntimeCluster {
    pub(crate) cluster: Cluster<Pool>,
    pub(crate) token: Option<Attached>,
    pub(crate) limits: Arc<ClusterLimits>,
    /// What its endpoints are asked.
    pub(crate) check: Option<(Arc<dyn HealthCheck>, HealthCheckConfig)>,
    config: ArcSwap<ClusterConfig>,
    settings: Arc<ArcSwap<PoolConfig>>,
    dial: Arc<ArcSwap<Box<dyn Dial>>>,
}

impl std::fmt::Debug for RuntimeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeCluster").field("name", self.cluster.name()).finish_non_exhaustive()
    }
}

/// The live clusters of one mesh, kept beside it.
///
/// It never owns a [`Mesh`]: that would keep the mesh alive for ever.
pub(crate) struct ClusterRegistry {
    clusters: ArcSwap<HashMap<Arc<str>, Arc<RuntimeCluster>>>,
    /// The revision that `clusters` was brought in line with.
    generation: AtomicU64,
    changing: Mutex<()>,
}

impl ClusterRegistry {
    pub(crate) fn of(mesh: &Mesh) -> Arc<Self> {
        mesh.extension(|| Self {
            clusters: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changing: Mutex::new(()),
        })
    }

    /// The live cluster of this name as it is, if some call has made it.
    pub(crate) fn peek(&self, name: &str) -> Option<Arc<RuntimeCluster>> {
        self.clusters.load().get(name).cloned()
    }

    /// The live cluster of this name; made at first use, brought in line with each new revision. `begin` is called for one
    /// that was made.
    pub(crate) fn find(
        &self,
        mesh: &Mesh,
        revision: &Versioned<Revision>,
        name: &Arc<str>,
        begin: impl FnOnce(&Mesh, &Arc<RuntimeCluster>),
    ) -> Result<Arc<RuntimeCluster>, Error> {
        if self.generation.load(Acquire) >= revision.generation()
            && let Some(cluster) = self.clusters.load().get(name)
        {
            return Ok(Arc::clone(cluster));
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest one, whatever this request has pinned: what an old revision made would stay for all.
        let newest = mesh.revision().load();
        let mut clusters = HashMap::clone(&self.clusters.load());
        if self.generation.load(Acquire) < newest.generation() {
            clusters.retain(|name, cluster| match newest.config.clusters.get(&**name) {
                Some(config) => cluster.reconfigure(mesh, config),
                None => false,
            });
        }
        let found = match (clusters.get(name), newest.config.clusters.get(&**name)) {
            (Some(cluster), _) => Ok(Arc::clone(cluster)),
            (None, Some(config)) => {
                RuntimeCluster::start(mesh, name, config).map(Arc::new).inspect(|cluster| begin(mesh, cluster))
            }
            (None, None) => Err(Error::new(ErrorKind::Unroutable, format!("cluster `{name}` is not configured"))),
        };
        if let Ok(cluster) = &found {
            clusters.insert(Arc::clone(name), Arc::clone(cluster));
        }
        self.clusters.store(Arc::new(clusters));
        self.generation.fetch_max(newest.generation(), Release);
        found
    }
}

impl RuntimeCluster {
    fn start(mesh: &Mesh, name: &str, config: &ClusterConfig) -> Result<Self, Error> {
        let broken = |what: &str, error| {
            Error::new(ErrorKind::Unroutable, format!("cluster `{name}`: cannot build its {what}")).caused_by(error)
        };
        let feed = mesh.feed(name).map_err(|error| broken("resolver", error))?;
        let token = mesh.token_source(name).map_err(|error| broken("token source", error))?;
        let picker = mesh.balancer(name).map_err(|error| broken("balancer", error))?;
        let check = mesh.health_check(name).map_err(|error| broken("health check", error))?;
        let settings = Arc::new(ArcSwap::from_pointee(config.pool.clone()));
        let limits = Arc::new(ClusterLimits::new(config.limits, mesh.metrics().client.cluster(name)));
        let dial = Arc::new(ArcSwap::from_pointee(dial(mesh, config, &limits)));
        let context = Arc::new(PoolContext {
            limits: Arc::clone(&limits),
            dial: Arc::clone(&dial),
            settings: Arc::clone(&settings),
            identity: Some(mesh.identity().clone()),
            clock: Some(Arc::clone(mesh.clock())),
            rng: mesh.rng().clone(),
            metrics: mesh.metrics().client.cluster(name),
        });
        let make = move |_: &Endpoint, _| Pool::new(&context);
        let cluster = Cluster::new(name, config, mesh.rng().fork(), Arc::clone(mesh.metrics()), make)
            .located(mesh.workload().locality.clone())
            .balanced_by(picker);
        // Ends with the last handle of the cluster.
        mesh.spawn("resolve", cluster.follow(feed));
        let token = token.map(Attached::new);
        let check = check.zip(config.health_check.clone());
        Ok(Self { cluster, token, limits, check, config: ArcSwap::from_pointee(config.clone()), settings, dial })
    }

    /// The configuration that is in force.
    pub(crate) fn config(&self) -> Arc<ClusterConfig> {
        self.config.load_full()
    }

    /// Puts new settings in force. `false` if the cluster must be made anew, because it is another set of endpoints, other
    /// identities are trusted, or its endpoints are asked something else.
    fn reconfigure(&self, mesh: &Mesh, config: &ClusterConfig) -> bool {
        let old = self.config.load();
        if **old == *config {
            return true;
        }
        let other = old.discover != config.discover || old.identities != config.identities || old.token != config.token;
        if other || old.health_check != config.health_check {
            return false;
        }
        self.dial.store(Arc::new(dial(mesh, config, &self.limits)));
        self.settings.store(Arc::new(config.pool.clone()));
        self.limits.reconfigure(config.limits);
        match mesh.balancer(self.cluster.name()) {
            Ok(picker) => self.cluster.reconfigure_with(config, picker),
            Err(error) => {
                tracing::error!(cluster = %self.cluster.name(), %error, "the cluster is balanced as before");
                self.cluster.reconfigure(config);
            }
        }
        self.config.store(Arc::new(config.clone()));
        true
    }

    /// A cluster of these endpoints without mesh, TLS or resolver.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str, config: &ClusterConfig, dial: Box<dyn Dial>) -> Self {
        let metrics = Arc::new(mesh_core::telemetry::Metrics::default());
        let rng = mesh_core::rng::Rng::seeded(1);
        let settings = Arc::new(ArcSwap::from_pointee(config.pool.clone()));
        let dial = Arc::new(ArcSwap::from_pointee(dial));
        let limits = Arc::new(ClusterLimits::new(config.limits, metrics.client.cluster(name)));
        let context = Arc::new(PoolContext {
            limits: Arc::clone(&limits),
            dial: Arc::clone(&dial),
            settings: Arc::clone(&settings),
            identity: None,
            clock: None,
            rng: rng.clone(),
            metrics: metrics.client.cluster(name),
        });
        let make = move |_: &Endpoint, _| Pool::new(&context);
        let cluster = Cluster::new(name, config, rng, metrics, make);
        Self {
            cluster,
            token: None,
            limits,
            check: None,
            config: ArcSwap::from_pointee(config.clone()),
            settings,
            dial,
        }
    }
}

fn dial(mesh: &Mesh, config: &ClusterConfig, limits: &ClusterLimits) -> Box<dyn Dial> {
    let PoolConfig { http, connect_timeout, .. } = config.pool;
    let dialer = Dialer::new(mesh, config.identities.clone(), http, connect_timeout).tls(config.tls);
    Box::new(MeshDial {
        dialer: dialer.in_turns(Arc::clone(&limits.handshakes)),
        identity: mesh.identity().clone(),
        clock: Arc::clone(mesh.clock()),
        rng: mesh.rng().clone(),
        mesh: mesh.downgrade(),
        timeout: connect_timeout,
    })
}

#[cfg(test)]
#[cfg(feature = "dev-ca")]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// Everything that a request finds out about a cluster.
    fn seen(cluster: &RuntimeCluster) -> (String, usize) {
        let config = cluster.config.load();
        (config.identities[0].to_string(), config.pool.max_pending)
    }

    fn write(dir: &Path, clusters: &[(&str, &str, usize)]) {
        let mut text = "workload: { name: web, namespace: shop }\n\
                        identity: { trust_domain: td, source: { dev_ca: { dir: ca } } }\n\
                        clusters:\n"
            .to_owned();
        for (name, account, max_pending) in clusters {
            text.push_str(&format!(
                "  {name}: {{ discover: {{ static: ['127.0.0.1:1'] }}, \
                 identities: ['spiffe://td/ns/shop/sa/{account}'], pool: {{ max_pending: {max_pending} }} }}\n"
            ));
        }
        std::fs::write(dir.join("mesh.yaml"), text).unwrap();
    }

    async fn reloaded(mesh: &Mesh, dir: &Path, clusters: &[(&str, &str, usize)]) -> Arc<Versioned<Revision>> {
        let mut changes = mesh.revision().subscribe();
        write(dir, clusters);
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.expect("no reload")
    }

    #[tokio::test(start_paused = true)]
    async fn clusters_follow_reloads_and_old_requests_turn_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("payments", "payments", 1), ("stock", "stock", 1), ("gone", "gone", 1)]);
        let mesh = Mesh::builder().config_file(dir.path().join("mesh.yaml")).start().await.unwrap();
        let registry = ClusterRegistry::of(&mesh);
        let names = ["payments", "stock", "gone", "new"].map(Arc::<str>::from);
        let [payments, stock, gone, new] = &names;
        let old = mesh.revision().load();
        let first = [payments, stock, gone].map(|name| registry.find(&mesh, &old, name, |_, _| {}).unwrap());
        assert!(Arc::ptr_eq(&first[0], &registry.find(&mesh, &old, payments, |_, _| {}).unwrap()));

        // Another identity for one, another setting for another, one less, one more.
        let clusters = [("payments", "till", 1), ("stock", "stock", 2), ("new", "new", 1)];
        let revision = reloaded(&mesh, dir.path(), &clusters).await;
        let find = |revision, name| registry.find(&mesh, revision, name, |_, _| {});
        let kept = find(&revision, stock).unwrap();
        assert!(Arc::ptr_eq(&kept, &first[1]), "settings are put in force, connections are kept");
        assert_eq!(seen(&kept), ("spiffe://td/ns/shop/sa/stock".to_owned(), 2));
        assert_eq!((kept.settings.load().max_pending, first[1].settings.load().max_pending), (2, 2));

        // A request that began before the reload is the first to ask again: it must not bring the old identity back.
        let by_old = find(&old, payments).unwrap();
        let by_new = find(&revision, payments).unwrap();
        assert!(!Arc::ptr_eq(&by_new, &first[0]));
        assert!(Arc::ptr_eq(&by_new, &by_old));
        assert_eq!(seen(&by_new), ("spiffe://td/ns/shop/sa/till".to_owned(), 1));
        assert_eq!(seen(&first[0]).0, "spiffe://td/ns/shop/sa/payments", "a call under way keeps what it began with");

        assert!(find(&revision, new).is_ok());
        assert_eq!(find(&revision, gone).unwrap_err().kind(), ErrorKind::Unroutable);
        assert_eq!(registry.clusters.load().len(), 3);
    }
}
