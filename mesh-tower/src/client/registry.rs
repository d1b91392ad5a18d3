//! One live cluster per configured cluster and mesh, however many clients call it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::cluster::Cluster;
use mesh_core::config::{ClusterConfig, PoolConfig};
use mesh_core::snapshot::Versioned;
use mesh_core::token::TokenSource;
use mesh_core::{Mesh, Revision};

use super::pool::{Dial, MeshDial, Pool, PoolContext};
use crate::connect::Dialer;
use crate::error::{Error, ErrorKind};

/// A cluster with its pools, its resolver's task and its token source.
pub(crate) struct RuntimeCluster {
    pub(crate) cluster: Cluster<Pool>,
    pub(crate) token: Option<Arc<dyn TokenSource>>,
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

    /// The live cluster of this name; made at first use, brought in line with each new revision.
    pub(crate) fn find(
        &self,
        mesh: &Mesh,
        revision: &Versioned<Revision>,
        name: &Arc<str>,
    ) -> Result<Arc<RuntimeCluster>, Error> {
        if self.generation.load(Acquire) >= revision.generation()
            && let Some(cluster) = self.clusters.load().get(name)
        {
            return Ok(Arc::clone(cluster));
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clusters = HashMap::clone(&self.clusters.load());
        // A request that pinned an older revision does not turn the others back.
        if self.generation.load(Acquire) < revision.generation() {
            clusters.retain(|name, cluster| match revision.config.clusters.get(&**name) {
                Some(config) => cluster.reconfigure(mesh, config),
                None => false,
            });
        }
        let cluster = match clusters.get(name) {
            Some(cluster) => Arc::clone(cluster),
            None => {
                let Some(config) = revision.config.clusters.get(&**name) else {
                    return Err(Error::new(ErrorKind::Unroutable, format!("cluster `{name}` is not configured")));
                };
                let cluster = Arc::new(RuntimeCluster::start(mesh, name, config)?);
                clusters.insert(Arc::clone(name), Arc::clone(&cluster));
                cluster
            }
        };
        self.clusters.store(Arc::new(clusters));
        self.generation.fetch_max(revision.generation(), Release);
        Ok(cluster)
    }
}

impl RuntimeCluster {
    fn start(mesh: &Mesh, name: &str, config: &ClusterConfig) -> Result<Self, Error> {
        let broken = |what: &str, error| {
            Error::new(ErrorKind::Unroutable, format!("cluster `{name}`: cannot build its {what}")).caused_by(error)
        };
        let resolver = mesh.resolver(name).map_err(|error| broken("resolver", error))?;
        let token = mesh.token_source(name).map_err(|error| broken("token source", error))?;
        let settings = Arc::new(ArcSwap::from_pointee(config.pool.clone()));
        let dial = Arc::new(ArcSwap::from_pointee(dial(mesh, config)));
        let context = PoolContext {
            dial: Arc::clone(&dial),
            settings: Arc::clone(&settings),
            identity: Some(mesh.identity().clone()),
            clock: Some(Arc::clone(mesh.clock())),
            rng: mesh.rng().clone(),
            metrics: mesh.metrics().client.cluster(name),
        };
        let make =
            move |endpoint: &mesh_core::discover::Endpoint, readiness| Pool::new(endpoint.address, &context, readiness);
        let cluster = Cluster::new(name, config, mesh.rng().fork(), Arc::clone(mesh.metrics()), make);
        // Ends with the last handle of the cluster.
        mesh.spawn("resolve", cluster.follow(resolver));
        Ok(Self { cluster, token, config: ArcSwap::from_pointee(config.clone()), settings, dial })
    }

    /// Puts new settings in force. `false` if the cluster must be made anew, because it is another set of endpoints or
    /// other identities are trusted.
    fn reconfigure(&self, mesh: &Mesh, config: &ClusterConfig) -> bool {
        let old = self.config.load();
        if **old == *config {
            return true;
        }
        if old.discover != config.discover || old.identities != config.identities || old.token != config.token {
            return false;
        }
        self.dial.store(Arc::new(dial(mesh, config)));
        self.settings.store(Arc::new(config.pool.clone()));
        self.cluster.reconfigure(config);
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
        let context = PoolContext {
            dial: Arc::clone(&dial),
            settings: Arc::clone(&settings),
            identity: None,
            clock: None,
            rng: rng.clone(),
            metrics: metrics.client.cluster(name),
        };
        let make =
            move |endpoint: &mesh_core::discover::Endpoint, readiness| Pool::new(endpoint.address, &context, readiness);
        let cluster = Cluster::new(name, config, rng, metrics, make);
        Self { cluster, token: None, config: ArcSwap::from_pointee(config.clone()), settings, dial }
    }
}

fn dial(mesh: &Mesh, config: &ClusterConfig) -> Box<dyn Dial> {
    let PoolConfig { http, connect_timeout, .. } = config.pool;
    Box::new(MeshDial {
        dialer: Dialer::new(mesh, config.identities.clone(), http, connect_timeout),
        identity: mesh.identity().clone(),
        clock: Arc::clone(mesh.clock()),
    })
}
