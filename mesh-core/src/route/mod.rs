//! From service and request to a cluster, a timeout and a retry policy.
//!
//! A caller names a *service*; which endpoints serve it, how long it may take and what may be repeated are the
//! operator's words. A [`RouteTable`] is compiled from a validated configuration, replaced whole on reload, and keeps
//! the retry budgets of routes that did not change: a reload in an outage must not hand out fresh retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{BalancePolicy, BudgetConfig, Config, HashKey, RouteConfig, RouteMatch, nearest};
use crate::retry::{RetryBudget, RetryPolicy};

/// One compiled way.
#[derive(Debug)]
pub struct Route {
    /// `SERVICE` of a default route, `SERVICE[INDEX]` of a configured one; in logs, metrics and spans.
    pub name: Arc<str>,
    /// The cluster to pick an endpoint of.
    pub cluster: Arc<str>,
    /// From the call to the response headers, all attempts together.
    pub timeout: Duration,
    /// Absent: only what was provably never sent is repeated.
    pub retry: Option<RetryPolicy>,
    /// What its requests are told apart by, its own keys before those of the cluster; the first that one has counts.
    pub hash: Vec<HashKey>,
    /// What retries of this route may cost together. Survives reloads that do not change it.
    pub budget: Arc<RetryBudget>,
}

impl Route {
    /// The rules that hold, also where none are configured.
    pub fn retry_policy(&self) -> &RetryPolicy {
        self.retry.as_ref().unwrap_or(&RetryPolicy::UNSENT_ONLY)
    }
}

/// All routes of a configuration.
#[derive(Debug)]
pub struct RouteTable {
    services: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    matches: RouteMatch,
    route: Arc<Route>,
}

impl RouteTable {
    /// Compiles the `routes:` section.
    ///
    /// Every cluster without routes gets a default one of its own name. Budgets of unchanged routes are taken over from
    /// `previous`.
    pub fn compile(config: &Config, previous: Option<&RouteTable>) -> Self {
        let mut services = BTreeMap::new();
        for (service, routes) in &config.routes {
            let compiled = routes.iter().enumerate().map(|(index, route)| {
                let name = format!("{service}[{index}]");
                Entry { matches: route.matches.clone(), route: compile(&name, service, route, config, previous) }
            });
            services.insert(service.clone(), compiled.collect());
        }
        for cluster in config.clusters.keys() {
            services.entry(cluster.clone()).or_insert_with(|| {
                let route = compile(cluster, cluster, &RouteConfig::to(cluster), config, previous);
                vec![Entry { matches: RouteMatch::default(), route }]
            });
        }
        Self { services }
    }

    /// The first route of `service` that matches. `path` is without query.
    pub fn find(&self, service: &str, method: &str, path: &str) -> Option<&Arc<Route>> {
        let entries = self.services.get(service)?;
        entries.iter().find(|entry| entry.matches.matches(method, path)).map(|entry| &entry.route)
    }

    /// The routes of `service` in order, what each takes, and whether it matches.
    pub fn considered(
        &self,
        service: &str,
        method: &str,
        path: &str,
    ) -> impl Iterator<Item = (&Arc<Route>, &RouteMatch, bool)> {
        let entries = self.services.get(service).into_iter().flatten();
        entries.map(move |entry| (&entry.route, &entry.matches, entry.matches.matches(method, path)))
    }

    /// The service names that can be called, sorted.
    pub fn services(&self) -> Vec<&str> {
        self.services.keys().map(String::as_str).collect()
    }

    /// The service that a misspelt name was probably meant to be.
    pub fn nearest(&self, service: &str) -> Option<&str> {
        nearest(service, self.services.keys().map(String::as_str))
    }

    fn budget(&self, service: &str, name: &str, config: &BudgetConfig) -> Option<&Arc<RetryBudget>> {
        let same = self.services.get(service)?.iter().find(|entry| *entry.route.name == *name)?;
        Some(&same.route.budget).filter(|budget| budget.config() == config)
    }
}

/// The keys of the route, then those of its cluster.
fn hash_keys(config: &Config, route: &RouteConfig) -> Vec<HashKey> {
    let policy = config.clusters.get(&route.cluster).map(|cluster| &cluster.balance.policy);
    let of_cluster = match policy {
        Some(BalancePolicy::RingHash(ring)) => ring.hash.as_slice(),
        _ => &[],
    };
    route.hash.iter().chain(of_cluster).cloned().collect()
}

fn compile(
    name: &str,
    service: &str,
    route: &RouteConfig,
    config: &Config,
    previous: Option<&RouteTable>,
) -> Arc<Route> {
    let budget = route.retry.as_ref().map(|retry| retry.budget.clone()).unwrap_or_default();
    let kept = previous.and_then(|table| table.budget(service, name, &budget)).cloned();
    Arc::new(Route {
        name: name.into(),
        cluster: route.cluster.as_str().into(),
        timeout: route.timeout,
        retry: route.retry.as_ref().map(RetryPolicy::new),
        hash: hash_keys(config, route),
        budget: kept.unwrap_or_else(|| Arc::new(RetryBudget::new(budget, Instant::now()))),
    })
}

#[cfg(test)]
mod tests;
