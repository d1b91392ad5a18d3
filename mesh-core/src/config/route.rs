//! `routes:` - which cluster a request goes to, how long it may take, and whether it may be sent again.

use std::fmt;
use std::time::Duration;

use super::balance::HashKeys;
use super::checker::Checker;
use super::hash::HashKey;
use super::issue::Errors;
use super::values::{Percent, Size};
use super::walk::Fields;
use super::yaml::Decode;
use super::yaml::Node;

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
    /// What requests are told apart by where the cluster's `balance.policy` goes by a key; the first that a request
    /// has, before those of the cluster. Empty (default): the cluster's.
    pub hash: Vec<HashKey>,
}

impl RouteConfig {
    /// The default overall timeout.
    pub const TIMEOUT: Duration = Duration::from_secs(15);

    /// A route of every request to `cluster`, without retries.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self {
            matches: RouteMatch::default(),
            cluster: cluster.into(),
            timeout: Self::TIMEOUT,
            retry: None,
            hash: Vec::new(),
        }
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
#[non_exhaustive]
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
#[non_exhaustive]
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

const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Decode for RouteConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (matches, cluster) = (fields.optional("match"), fields.required::<String>("cluster"));
        let (timeout, retry) = (fields.or("timeout", Self::TIMEOUT), fields.optional("retry"));
        let hash = fields.optional::<HashKeys>("hash").unwrap_or_default().0;
        fields.finish();
        Some(Self { matches: matches.unwrap_or_default(), timeout, retry, hash, ..Self::to(cluster?) })
    }
}

impl RouteConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("timeout", self.timeout, MILLI..=DAY);
        self.hash.iter().for_each(|key| key.check("hash", at));
        if let Some(retry) = &self.retry {
            at.below("retry", |at| retry.check(self.timeout, at));
        }
    }
}

impl RouteMatch {
    /// Whether a request is meant. `path` is without query.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|expected| expected == method)
            && self.path.as_ref().is_none_or(|expected| match expected {
                PathMatch::Exact(exact) => exact == path,
                PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
            })
    }
}

impl fmt::Display for RouteMatch {
    /// `POST /a/*`, or `any request`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_deref();
        match (&self.path, method) {
            (None, None) => f.write_str("any request"),
            (None, Some(method)) => write!(f, "{method} of any path"),
            (Some(PathMatch::Exact(path)), method) => write!(f, "{} {path}", method.unwrap_or("any method")),
            (Some(PathMatch::Prefix(prefix)), method) => write!(f, "{} {prefix}*", method.unwrap_or("any method")),
        }
    }
}

impl Decode for RouteMatch {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (method, path) = (fields.optional::<String>("method"), fields.optional("path"));
        if let Some(method) = method.as_ref().filter(|method| !is_method(method)) {
            let place = fields.place("method");
            let message = format!("{method:?} is no method: methods are upper-case words such as GET (RFC 9110 9.1)");
            fields.errors().push(&place, message);
        }
        fields.finish();
        Some(Self { method, path })
    }
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

impl Decode for PathMatch {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let text = String::decode(node, errors)?;
        let (prefix, path) = match text.strip_suffix('*') {
            Some(path) => (true, path),
            None => (false, text.as_str()),
        };
        if !path.starts_with('/') || path.contains(['*', '?', '#']) {
            let message = format!("{text:?} is no path: write \"/a/b\", or \"/a/*\" for all that begins with \"/a/\"");
            errors.push(&node.place, message);
            return None;
        }
        Some(if prefix { Self::Prefix(path.to_owned()) } else { Self::Exact(path.to_owned()) })
    }
}

impl Decode for RetryConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let replay: Option<Size> = fields.optional("max_replay_bytes");
        let retry = Self {
            attempts: fields.or("attempts", default.attempts),
            per_try_timeout: fields.optional("per_try_timeout"),
            idempotent: fields.optional("idempotent"),
            backoff: fields.or("backoff", default.backoff),
            max_backoff: fields.or("max_backoff", default.max_backoff),
            max_replay_bytes: replay
                .map_or(default.max_replay_bytes, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
            budget: fields.or("budget", default.budget),
        };
        fields.finish();
        Some(retry)
    }
}

impl RetryConfig {
    fn check(&self, timeout: Duration, at: &mut Checker<'_>) {
        at.range("attempts", self.attempts, 1..=10);
        if let Some(per_try) = self.per_try_timeout {
            at.range("per_try_timeout", per_try, MILLI..=DAY);
            at.at_most("per_try_timeout", per_try, "the route's timeout", timeout);
        }
        at.range("backoff", self.backoff, Duration::ZERO..=MINUTE);
        at.range("max_backoff", self.max_backoff, Duration::ZERO..=MINUTE);
        at.at_least("max_backoff", self.max_backoff, "backoff", self.backoff);
        at.range("max_replay_bytes", Size(self.max_replay_bytes as u64), Size(0)..=Size(64 << 20));
        at.below("budget", |at| {
            at.range("ratio", Percent(self.budget.ratio), Percent(0.0)..=Percent(10.0));
            at.range("min_per_second", self.budget.min_per_second, 0..=1_000_000);
            at.range("window", self.budget.window, Duration::from_secs(1)..=MINUTE);
        });
    }
}

impl Decode for BudgetConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let budget = Self {
            ratio: fields.or("ratio", Percent(default.ratio)).0,
            min_per_second: fields.or("min_per_second", default.min_per_second),
            window: fields.or("window", default.window),
        };
        fields.finish();
        Some(budget)
    }
}
