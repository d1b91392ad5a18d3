//! From service and request to a cluster, a timeout and a retry policy.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
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
    /// What retries of this route may cost together. Survives reloads that do not change it.
    pub budget: Arc<RetryBudget>,
}

/// All routes of a configuration.
#[derive(Debug)]
pub struct RouteTable {
    _private: (),
}

impl RouteTable {
    /// Compiles the `routes:` section; every cluster without routes gets a default one of its own name. Budgets of
    /// unchanged routes are taken over from `previous`.
    pub fn compile(config: &Config, previous: Option<&RouteTable>) -> Self {
        let _ = (config, previous);
        unimplemented!()
    }

    /// The first route of `service` that matches. `path` is without query.
    pub fn find(&self, service: &str, method: &str, path: &str) -> Option<&Arc<Route>> {
        let _ = (service, method, path);
        unimplemented!()
    }

    /// The service names that can be called, sorted.
    pub fn services(&self) -> Vec<&str> {
        unimplemented!()
    }
}
