//! One client process: its routes and budgets, and what it knows of each cluster.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::cluster::Cluster;
use mesh_core::config::{BalancePolicy, ClusterConfig, ClusterLimitsConfig, Config, PoolConfig};
use mesh_core::discover::{Endpoint, EndpointKey};
use mesh_core::rng::Rng;
use mesh_core::route::RouteTable;
use mesh_core::telemetry::{EjectReason, Label as _};
use tokio::time::Instant;

use super::balancer::{Balancer, Wire, address, server_at};
use super::report::Ejection;
use super::scenario::{Scenario, ServerGroup, TOWER_POLICY};
use super::tower::TowerBalancer;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) routes: RouteTable,
    /// By their number: their place in the order of names.
    pub(super) clusters: Vec<Known>,
    pub(super) rng: Rng,
}

/// A cluster as one process sees it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) balancer: Balancer,
    pub(super) limits: ClusterLimitsConfig,
    pub(super) pool: PoolConfig,
    /// Attempts under way, and the repeated ones among them or waiting for their turn.
    pub(super) requests: usize,
    pub(super) retries: usize,
    /// Ejections that were reported, and until when each server's last one lasts.
    ejections: u64,
    out: Vec<(usize, Instant)>,
}

/// tower's own default where the scenario says nothing: without a history an endpoint is taken for slow.
const TOWER_RTT: Duration = Duration::from_secs(1);

impl Process {
    /// `servers`: of each, its name and its group.
    pub(super) fn new(scenario: &Scenario, servers: &[(String, usize)], rng: Rng, start: Instant) -> Self {
        let config = &scenario.config;
        let clusters = config.clusters.iter().map(|(name, cluster)| {
            let own = servers.iter().enumerate().filter_map(|(server, (key, group))| {
                let group = scenario.servers.get(*group).filter(|group| group.cluster == *name)?;
                Some((server, key.as_str(), group))
            });
            Known::new(name, config, cluster, own, rng.fork(), start)
        });
        let clusters = clusters.collect();
        Self { routes: RouteTable::compile(config, None), clusters, rng }
    }
}

impl Known {
    fn new<'a>(
        name: &str,
        config: &Config,
        cluster: &ClusterConfig,
        servers: impl Iterator<Item = (usize, &'a str, &'a ServerGroup)>,
        rng: Rng,
        start: Instant,
    ) -> Self {
        let balancer = match &cluster.balance.policy {
            BalancePolicy::Custom(plug) if plug.kind == TOWER_POLICY => {
                let servers: Vec<usize> = servers.map(|(server, _, _)| server).collect();
                let balance = &cluster.balance;
                let unset = balance.default_rtt == mesh_core::config::BalanceConfig::default().default_rtt;
                let rtt = if unset { TOWER_RTT } else { balance.default_rtt };
                Balancer::Tower(Box::new(TowerBalancer::new(&servers, rtt, balance.decay, rng)))
            }
            _ => {
                let live = Cluster::new(name, cluster, rng, Arc::default(), |endpoint, readiness| Wire {
                    server: server_at(endpoint.address),
                    readiness,
                });
                let live = live.located(config.workload.locality.clone());
                live.update(servers.map(|(server, key, group)| endpoint(server, key, group)).collect(), start);
                Balancer::Mesh(live)
            }
        };
        let (limits, pool) = (cluster.limits, cluster.pool.clone());
        Self { balancer, limits, pool, requests: 0, retries: 0, ejections: 0, out: Vec::new() }
    }

    /// Ejections since this was asked last. Cheap where there was none.
    pub(super) fn new_ejections(&mut self, client: usize, now: Instant, start: Instant, found: &mut Vec<Ejection>) {
        let Balancer::Mesh(cluster) = &self.balancer else { return };
        let metrics = cluster.metrics();
        let ejections = EjectReason::ALL.iter().map(|reason| metrics.ejections.count(*reason)).sum();
        if ejections == self.ejections {
            return;
        }
        self.ejections = ejections;
        for report in cluster.report(now) {
            let Some(until) = report.ejected_until else { continue };
            let server = server_at(report.address);
            match self.out.iter_mut().find(|(other, _)| *other == server) {
                Some((_, known)) if *known == until => continue,
                Some((_, known)) => *known = until,
                None => self.out.push((server, until)),
            }
            let since = |at: Instant| at.saturating_duration_since(start);
            let reason = report.reason.map_or("", |reason| reason.as_str());
            found.push(Ejection { at: since(now), client, server, reason, until: since(until) });
        }
    }
}

impl Known {
    /// How many servers are ejected now.
    pub(super) fn ejected(&self, now: Instant) -> u64 {
        self.out.iter().filter(|(_, until)| *until > now).count() as u64
    }
}

fn endpoint(server: usize, key: &str, group: &ServerGroup) -> Endpoint {
    let mut endpoint = Endpoint::new(address(server));
    endpoint.key = EndpointKey(key.into());
    endpoint.locality = group.locality.clone();
    endpoint.priority = group.priority;
    endpoint.weight = group.weight;
    endpoint
}
