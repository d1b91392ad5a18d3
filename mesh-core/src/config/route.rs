//! `routes:` - which cluster a request goes to, how long it may take, and whether it may be sent again.

use std::time::Duration;

/// One way for some of a service's requests.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteConfig {
    /// Which requests; the default matches all.
    pub matches: RouteMatch,
    /// The cluster they go to.
    pub cluster: String,
    /// From the call to the end of the response headers, all attempts together. Default 15 s (Envoy), range 1 ms to
    /// 24 h. A nearer deadline of the caller wins.
    pub timeout: Duration,
    /// Whether and how a failed attempt is repeated; absent: only requests that were provably never sent.
    pub retry: Option<RetryConfig>,
}

impl RouteConfig {
    /// The default overall timeout.
    pub const TIMEOUT: Duration = Duration::from_secs(15);

    /// A route of every request to `cluster`, without retries.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self { matches: RouteMatch::default(), cluster: cluster.into(), timeout: Self::TIMEOUT, retry: None }
    }
}

/// Which requests; every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RouteMatch {
    /// The exact method.
    pub method: Option<String>,
    /// The path, without query.
    pub path: Option<PathMatch>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// `/a/b`: this path.
    Exact(String),
    /// `/a/*`: paths that start with what stands before the star.
    Prefix(String),
}

/// When and how often a failed attempt is repeated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Attempts in all, the first included. Default 3, range 1 to 10.
    pub attempts: u32,
    /// How long one attempt may take. Default: the route's timeout. Range 1 ms to 24 h.
    pub per_try_timeout: Option<Duration>,
    /// The caller vouches that sending twice does no harm. Default: true for GET, HEAD, OPTIONS, TRACE, PUT, DELETE
    /// (RFC 9110 9.2.2), false for the rest.
    pub idempotent: Option<bool>,
    /// The wait before the second attempt; it doubles, with full jitter. Default 25 ms, range 0 to 60 s. (Envoy)
    pub backoff: Duration,
    /// The longest wait. Default 250 ms, range 0 to 60 s, at least `backoff`. (Envoy)
    pub max_backoff: Duration,
    /// Bytes of a request body kept for another attempt; a longer body is sent once. Default 64 KiB, range 0 to
    /// 64 MiB. (Linkerd)
    pub max_replay_bytes: usize,
    /// What all retries of this route together may cost.
    pub budget: BudgetConfig,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            per_try_timeout: None,
            idempotent: None,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            max_replay_bytes: 64 * 1024,
            budget: BudgetConfig::default(),
        }
    }
}

/// Retries as a share of requests, plus a floor, over a sliding window. (Finagle's `RetryBudget`)
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetConfig {
    /// Retries per request. Default 20 %, range 0 to 1,000 %.
    pub ratio: f64,
    /// Retries a second that are granted in any case. Default 10, range 0 to 1,000,000.
    pub min_per_second: u32,
    /// How long a request counts. Default 10 s, range 1 s to 60 s.
    pub window: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { ratio: 0.2, min_per_second: 10, window: Duration::from_secs(10) }
    }
}
