//! What the layers of one call share: one extension, filled from the outside in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Request;
use mesh_core::cluster::Tried;
use mesh_core::deadline::Deadline;
use mesh_core::route::Route;
use mesh_core::telemetry::ClusterMetrics;

use super::pool::Chosen;
use super::registry::RuntimeCluster;
use crate::context::TraceContext;
use crate::error::Error;
use crate::places::Place;

/// How long this call may take, headers and body; a request extension.
///
/// The nearest deadline wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTimeout(pub Duration);

/// The caller vouches that sending this request twice does no harm; a request extension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Idempotent;

/// This request must be sent at most once.
///
/// Because somebody else repeats it; a request extension.
///
/// Of the request alone: what an answer says to whoever is above is [`classify::forbid_retry`](crate::classify::forbid_retry).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoRetry;

/// From `telemetry`: the trace that every attempt continues, and where `route` tells whose metrics to count in.
#[derive(Debug, Clone)]
pub(crate) struct Observed(pub(crate) Arc<Observation>);

#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) trace: TraceContext,
    pub(crate) metrics: OnceLock<Arc<ClusterMetrics>>,
}

/// From `route` and the layers below it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) route: Arc<Route>,
    pub(crate) cluster: Arc<RuntimeCluster>,
    pub(crate) grpc: bool,
    /// By when the response headers must be there.
    pub(crate) headers_by: Option<Deadline>,
    /// By when the whole answer must be there; what the endpoint is told.
    pub(crate) whole_by: Option<Deadline>,
    /// The hash of what the request is told apart by, where the cluster goes by a key.
    pub(crate) hash: Option<u64>,
    /// Endpoints that earlier attempts went to.
    pub(crate) tried: Tried,
    /// How long there was to `headers_by`, for the error.
    pub(crate) allowed: Duration,
    /// Where this attempt goes.
    pub(crate) chosen: Option<Arc<Chosen>>,
    /// Of a repeated attempt, where those are limited.
    pub(crate) retry: Option<Arc<Place>>,
}

impl Call {
    /// Whether its caller gives it less time than its route.
    pub(crate) fn is_hurried(&self) -> bool {
        self.whole_by.is_some() && self.whole_by == self.headers_by
    }
}

/// The call that `request` belongs to; every layer below `route` needs it.
pub(crate) fn call<'a, B>(request: &'a Request<B>, layer: &'static str) -> Result<&'a Call, Error> {
    request.extensions().get().ok_or_else(|| Error::wiring(layer, "RouteLayer"))
}

/// The same, to be changed.
pub(crate) fn call_mut<'a, B>(request: &'a mut Request<B>, layer: &'static str) -> Result<&'a mut Call, Error> {
    request.extensions_mut().get_mut().ok_or_else(|| Error::wiring(layer, "RouteLayer"))
}
