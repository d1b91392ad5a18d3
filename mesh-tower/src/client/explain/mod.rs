//! What the client would make of a request, and why, without sending it.
//!
//! Everything is read from where calls read it, by the code that calls run: the route, the deadline of the context that
//! asks, the budget, the endpoints, and the randomness of the next pick. Nothing is taken, counted or begun.

mod text;

use std::time::Duration;

use http::Request;
use mesh_core::cluster::{ClusterExplanation, Foreseen, PickError};
use mesh_core::config::{BudgetConfig, PoolConfig};
use mesh_core::deadline::Deadline;
use mesh_core::retry::BudgetState;
use mesh_core::route::Route;
use serde::Serialize;
use tokio::time::Instant;

use super::attempts::{millis, text};
use super::call::NoRetry;
use super::limits::LimitsExplanation;
use super::pool::Pool;
use super::registry::RuntimeCluster;
use super::{Client, deadline, endpoint, key, retry, route};
use crate::error::ErrorKind;
use crate::grpc;

/// Routes that are listed at most, the one that matched included.
const MAX_ROUTES: usize = 32;

/// What would become of a request now. `Display` tells it to people, `Serialize` to tools.
///
/// Lists are bounded: [`MAX_LISTED`](mesh_core::cluster::MAX_LISTED) endpoints, the rest is counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service that is called.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path, without query.
    pub path: String,
    /// It is a gRPC call.
    pub grpc: bool,
    /// The routes of the service in their order, to the one that matched.
    pub routes: Vec<RouteExplanation>,
    /// What the matched route says; `None` if none did.
    pub call: Option<CallExplanation>,
    /// What it comes to.
    pub verdict: CallVerdict,
}

/// One route that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RouteExplanation {
    /// `SERVICE`, or `SERVICE[INDEX]`.
    pub name: String,
    /// What it takes: `POST /a/*`, or `any request`.
    pub takes: String,
    /// Its cluster.
    pub cluster: String,
    /// It takes this request.
    pub matched: bool,
}

/// What holds for a call on its route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CallExplanation {
    /// How long it may take.
    pub timeouts: TimeoutsExplanation,
    /// What would be repeated.
    pub retry: RetryExplanation,
    /// What its cluster holds of this process; `None` if no call has made the cluster yet.
    pub limits: Option<LimitsExplanation>,
    /// Its endpoints; `None` if no call has made the cluster yet.
    pub cluster: Option<ClusterExplanation>,
    /// The configuration was reloaded since the last call: the next one brings the cluster in line with it first.
    pub cluster_is_behind: bool,
}

/// How long a call may take, and by whose word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TimeoutsExplanation {
    /// The route's, to the response headers.
    #[serde(rename = "route_ms", serialize_with = "millis")]
    pub route: Duration,
    /// The call's own, for the whole answer.
    #[serde(rename = "own_ms", serialize_with = "millis")]
    pub own: Option<Duration>,
    /// What is left of the deadline of the request that is being answered here.
    #[serde(rename = "inherited_ms", serialize_with = "millis")]
    pub inherited: Option<Duration>,
    /// To the response headers: the nearest of all.
    #[serde(rename = "headers_ms", serialize_with = "millis")]
    pub headers: Duration,
    /// To the end of the answer; `None`: it is not bounded.
    #[serde(rename = "whole_ms", serialize_with = "millis")]
    pub whole: Option<Duration>,
    /// One attempt.
    #[serde(rename = "per_try_ms", serialize_with = "millis")]
    pub per_try: Option<Duration>,
    /// What the endpoint is told, in `grpc-timeout` or `x-envoy-expected-rq-timeout-ms`.
    #[serde(rename = "told_ms", serialize_with = "millis")]
    pub told: Option<Duration>,
    /// TCP and TLS together, without the wait for a turn (`limits.max_handshakes`).
    #[serde(rename = "connect_ms", serialize_with = "millis")]
    pub connect: Option<Duration>,
    /// Silence of a response body; zero: for ever.
    #[serde(rename = "stream_idle_ms", serialize_with = "millis")]
    pub stream_idle: Option<Duration>,
}

/// What would be repeated, and what pays for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetryExplanation {
    /// The route has rules of its own; without, only what was provably never sent is repeated.
    pub configured: bool,
    /// Attempts in all; 1 if the caller asked for one.
    pub attempts: u32,
    /// It may be sent again although it may have been processed: by its method, the route, or its caller's word.
    pub idempotent: bool,
    /// The first upper bound of the waits in between.
    #[serde(rename = "backoff_ms", serialize_with = "millis")]
    pub backoff: Duration,
    /// The last one.
    #[serde(rename = "max_backoff_ms", serialize_with = "millis")]
    pub max_backoff: Duration,
    /// Bytes of the request body that are kept for another attempt.
    pub max_replay_bytes: usize,
    /// Retries for each request.
    pub budget_ratio: f64,
    /// Retries a second in any case.
    pub budget_min_per_second: u32,
    /// How long a request counts.
    #[serde(rename = "budget_window_ms", serialize_with = "millis")]
    pub budget_window: Duration,
    /// What the budget holds.
    pub budget: BudgetState,
}

/// What a request would come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallVerdict {
    /// It is sent to this endpoint.
    Sent {
        /// Its key.
        endpoint: mesh_core::discover::EndpointKey,
    },
    /// It waits for discovery, to its deadline.
    Waits,
    /// It fails at once, and nothing is sent.
    Fails {
        /// The [`ErrorKind`]'s name.
        #[serde(serialize_with = "text")]
        kind: &'static str,
        /// The error's message.
        message: String,
    },
    /// It is sent, or fails, as a balancing policy of the program's own says.
    Unforeseeable,
}

impl Client {
    /// What would become of `request` now, and why.
    ///
    /// Route, timeouts, retries, limits, every endpoint and how it fares, and whom the next pick would choose. Sends nothing,
    /// takes no place and changes nothing. The current [`RequestContext`](crate::RequestContext) counts as it would for the
    /// call: its deadline, and its caller where the hash key is the caller. Costs a look at every endpoint: for people, not
    /// for each request.
    ///
    /// ```no_run
    /// # fn example(payments: mesh_tower::Client) -> Result<(), mesh_tower::Error> {
    /// println!("{}", payments.get("/charges/7").explain()?);
    /// # Ok(()) }
    /// ```
    pub fn explain<B>(&self, request: &Request<B>) -> Explanation {
        let revision = self.mesh.revision().load();
        let (method, path) = (request.method().as_str(), route::path_of(request));
        let considered = revision.routes.considered(&self.service, method, path);
        let (mut routes, mut matched) = (Vec::new(), None);
        for (route, takes, matches) in considered {
            if routes.len() < MAX_ROUTES - 1 || matches {
                let (name, cluster) = (route.name.to_string(), route.cluster.to_string());
                routes.push(RouteExplanation { name, takes: takes.to_string(), cluster, matched: matches });
            }
            if matches {
                matched = Some(route);
                break;
            }
        }
        let (call, verdict) = match matched {
            Some(route) => {
                let runtime = self.registry.peek(&route.cluster);
                let wanted = revision.config.clusters.get(&*route.cluster);
                let pool = wanted.map(|config| &config.pool);
                let behind = runtime.as_ref().is_some_and(|runtime| wanted != Some(&*runtime.config()));
                let (mut call, verdict) = explain_call(request, route, runtime.as_deref(), pool, Instant::now());
                call.cluster_is_behind = behind;
                (Some(call), verdict)
            }
            None => (None, CallVerdict::of(&route::unroutable(method, path))),
        };
        Explanation {
            service: self.service.to_string(),
            method: method.to_owned(),
            path: path.to_owned(),
            grpc: grpc::is_grpc(request.headers()),
            routes,
            call,
            verdict,
        }
    }
}

impl CallVerdict {
    fn of(error: &crate::Error) -> Self {
        Self::Fails { kind: error.kind().as_str(), message: error.message().to_owned() }
    }
}

fn explain_call<B>(
    request: &Request<B>,
    route: &Route,
    runtime: Option<&RuntimeCluster>,
    pool: Option<&PoolConfig>,
    now: Instant,
) -> (CallExplanation, CallVerdict) {
    let due = deadline::due(request, route.timeout, now);
    let per_try = route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
    let grpc = grpc::is_grpc(request.headers());
    let left = |deadline: Deadline| deadline.remaining(now);
    let timeouts = TimeoutsExplanation {
        route: route.timeout,
        own: due.own.map(left),
        inherited: due.inherited.map(left),
        headers: left(due.headers_by),
        whole: due.whole_by().map(left),
        per_try,
        told: endpoint::told(grpc, Some(due.headers_by), due.whole_by(), per_try, now),
        connect: pool.map(|pool| pool.connect_timeout),
        stream_idle: pool.map(|pool| pool.stream_idle_timeout),
    };
    let limits = runtime.map(|runtime| runtime.limits.explain(pool.map_or(0, |pool| pool.max_pending)));
    let hash = key::hash(&route.hash, request.headers());
    let cluster = runtime.map(|runtime| runtime.cluster.explain(hash, now, Pool::report));
    let verdict = if due.headers_by.expired(now) {
        CallVerdict::of(&deadline::passed())
    } else {
        match (&cluster, &limits, runtime) {
            (Some(cluster), Some(limits), Some(runtime)) => {
                let full = runtime.limits.would_refuse();
                full.map_or_else(|| foretell(cluster, limits), |error| CallVerdict::of(&error))
            }
            _ => CallVerdict::Waits, // the first call makes the cluster, and waits for discovery
        }
    };
    let retry = explain_retry(request, route, now);
    (CallExplanation { timeouts, retry, limits, cluster, cluster_is_behind: false }, verdict)
}

fn foretell(cluster: &ClusterExplanation, limits: &LimitsExplanation) -> CallVerdict {
    match &cluster.pick {
        Foreseen::Endpoint { key, .. } => {
            let listed = cluster.endpoints.iter().find(|endpoint| endpoint.key == *key);
            let waiting = listed.map_or(0, |endpoint| endpoint.transport.waiting);
            if waiting > 0 && waiting >= limits.max_pending {
                return CallVerdict::of(&super::pool::overloaded(limits.max_pending));
            }
            CallVerdict::Sent { endpoint: key.clone() }
        }
        Foreseen::Nobody(PickError::Unresolved) => CallVerdict::Waits,
        Foreseen::Nobody(error) => {
            CallVerdict::Fails { kind: ErrorKind::NoEndpoints.as_str(), message: error.to_string() }
        }
        _ => CallVerdict::Unforeseeable,
    }
}

fn explain_retry<B>(request: &Request<B>, route: &Route, now: Instant) -> RetryExplanation {
    let policy = route.retry_policy();
    let once = request.extensions().get::<NoRetry>().is_some();
    let BudgetConfig { ratio, min_per_second, window, .. } = *route.budget.config();
    RetryExplanation {
        configured: route.retry.is_some(),
        attempts: if once { 1 } else { policy.attempts },
        idempotent: retry::is_idempotent(route, request.method(), request.extensions()),
        backoff: policy.backoff.base,
        max_backoff: policy.backoff.max,
        max_replay_bytes: policy.max_replay_bytes,
        budget_ratio: ratio,
        budget_min_per_second: min_per_second,
        budget_window: window,
        budget: route.budget.state(now),
    }
}
