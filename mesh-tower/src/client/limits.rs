//! What one cluster may hold of this process: requests, connections, retries.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::config::ClusterLimitsConfig;
use mesh_core::telemetry::{ClusterLimit, ClusterMetrics};
use serde::Serialize;

use crate::connect::Handshakes;
use crate::error::{Error, ErrorKind};
use crate::places::{Place, Places};

/// The places of one cluster, and how many there are. Taking one is an atomic addition; each is given back on drop.
#[derive(Debug)]
pub(crate) struct ClusterLimits {
    requests: Arc<Places>,
    connections: Arc<Places>,
    retries: Arc<Places>,
    /// Retries that wait as long as an endpoint asked for.
    postponed: Arc<Places>,
    /// Whose turn it is to shake hands.
    pub(super) handshakes: Arc<Handshakes>,
    config: ArcSwap<ClusterLimitsConfig>,
    metrics: Arc<ClusterMetrics>,
}

/// What one attempt holds until its body ends.
#[derive(Debug)]
pub(crate) struct Held {
    _request: Place,
    _retry: Option<Arc<Place>>,
}

impl ClusterLimits {
    pub(crate) fn new(config: ClusterLimitsConfig, metrics: Arc<ClusterMetrics>) -> Self {
        let (requests, connections, retries, postponed) = Default::default();
        let handshakes = Arc::new(Handshakes::new(config.max_handshakes, Arc::clone(&metrics)));
        Self { requests, connections, retries, postponed, handshakes, config: ArcSwap::from_pointee(config), metrics }
    }

    /// Other limits from now on; nobody is put out.
    pub(crate) fn reconfigure(&self, config: ClusterLimitsConfig) {
        if self.config.swap(Arc::new(config)).max_handshakes != config.max_handshakes {
            self.handshakes.reconfigure(config.max_handshakes);
        }
    }

    /// What is held, and how much may be.
    pub(super) fn explain(&self, max_pending: usize) -> LimitsExplanation {
        let config = self.config.load();
        let of = |places: &Places, max| LimitUse { held: places.held(), max };
        LimitsExplanation {
            requests: of(&self.requests, config.max_requests),
            connections: of(&self.connections, config.max_connections),
            handshakes: LimitUse {
                held: config.max_handshakes.saturating_sub(self.handshakes.free()),
                max: config.max_handshakes,
            },
            retries: config.max_retries.map(|max| of(&self.retries, max.of(self.requests.held()))),
            max_pending,
        }
    }

    /// The error that an attempt would fail with now.
    pub(super) fn would_refuse(&self) -> Option<Error> {
        let max = self.config.load().max_requests;
        (self.requests.held() >= max).then(|| full(max))
    }

    /// A place for an attempt, or the error that it fails with. `retry` is that of a repeated one.
    pub(crate) fn request(&self, retry: Option<Arc<Place>>) -> Result<Held, Error> {
        let max = self.config.load().max_requests;
        match Place::take(&self.requests, max) {
            Some(request) => Ok(Held { _request: request, _retry: retry }),
            None => {
                self.metrics.limit_overflows.inc(ClusterLimit::MaxRequests);
                Err(full(max))
            }
        }
    }

    /// A place for a repeated attempt; `None` inside where they are not limited.
    pub(crate) fn retry(&self) -> Result<Option<Place>, Overflow> {
        let Some(max) = self.config.load().max_retries else { return Ok(None) };
        Place::take(&self.retries, max.of(self.requests.held())).map(Some).ok_or(Overflow)
    }

    /// A place to wait in as long as an endpoint asked for. Whoever waits so long sends nothing, and would keep the places of
    /// retries from all who call other endpoints: these have as many as there are for requests.
    pub(crate) fn postpone(&self) -> Result<Option<Place>, Overflow> {
        let config = self.config.load();
        if config.max_retries.is_some_and(|max| max.of(usize::MAX) == 0) {
            return Err(Overflow);
        }
        Place::take(&self.postponed, config.max_requests).map(Some).ok_or(Overflow)
    }

    /// Counts a retry that is not made for want of a place.
    pub(crate) fn retry_refused(&self) {
        self.metrics.limit_overflows.inc(ClusterLimit::MaxRetries);
    }

    /// A place for a connection. `first`: its endpoint has no other, and gets one whatever the limit.
    pub(crate) fn connection(&self, first: bool) -> Option<Place> {
        let max = self.config.load().max_connections;
        let place = Place::take(&self.connections, max);
        if place.is_none() {
            self.metrics.limit_overflows.inc(ClusterLimit::MaxConnections);
        }
        place.or_else(|| first.then(|| Place::beyond(&self.connections)))
    }

    /// Counts a request that finds no place among those that wait for a connection.
    pub(crate) fn pending_refused(&self) {
        self.metrics.limit_overflows.inc(ClusterLimit::MaxPending);
    }
}

fn full(max: usize) -> Error {
    let message = format!("{max} requests are under way already (limits.max_requests)");
    Error::new(ErrorKind::LimitReached, message).never_sent()
}

/// What a cluster holds of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitsExplanation {
    /// Attempts under way.
    pub requests: LimitUse,
    /// Connections, those being made included.
    pub connections: LimitUse,
    /// TLS handshakes under way.
    pub handshakes: LimitUse,
    /// Repeated attempts, where those are limited.
    pub retries: Option<LimitUse>,
    /// Requests that may wait for a connection of one endpoint.
    pub max_pending: usize,
}

impl fmt::Display for LimitsExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} connections, {} handshakes", self.requests, self.connections, self.handshakes)?;
        if let Some(retries) = &self.retries {
            write!(f, ", {retries} retries")?;
        }
        write!(f, ", {} may wait for a connection of one endpoint", self.max_pending)
    }
}

/// Places that are taken, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitUse {
    /// Taken now.
    pub held: usize,
    /// At most.
    pub max: usize,
}

impl fmt::Display for LimitUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.held, self.max)
    }
}

/// As many retries are under way, or wait, as may be.
#[derive(Debug)]
pub(crate) struct Overflow;

impl From<Overflow> for Error {
    fn from(Overflow: Overflow) -> Self {
        let message = "as many attempts are repeated ones as may be (limits.max_retries)";
        Self::new(ErrorKind::LimitReached, message).never_sent()
    }
}
