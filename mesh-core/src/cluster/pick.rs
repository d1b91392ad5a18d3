//! One attempt's claim on an endpoint.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::EndpointState;
use crate::discover::EndpointKey;

/// Endpoints that earlier attempts of the same request were sent to.
#[derive(Debug, Clone, Default)]
pub struct Tried(Vec<EndpointKey>);

impl Tried {
    /// Remembers an endpoint.
    pub fn insert(&mut self, key: EndpointKey) {
        self.0.push(key);
    }

    /// Whether an earlier attempt went there.
    pub fn contains(&self, key: &EndpointKey) -> bool {
        self.0.contains(key)
    }
}

/// How an attempt ended, as far as the endpoint's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and the answer does not speak against it (also 4xx, and gRPC codes that blame the caller).
    Success,
    /// It answered with an error of its own (5xx, 429; UNAVAILABLE, INTERNAL, ...), maybe with the wait it asked for.
    Failure {
        /// `Retry-After` or `grpc-retry-pushback-ms`.
        retry_after: Option<Duration>,
    },
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, or the connection broke.
    Unreachable,
    /// The caller went away first: says nothing about the endpoint.
    Cancelled,
}

/// An endpoint chosen for one attempt. Counts as in flight until [`finish`](Self::finish); dropping it counts as
/// [`Outcome::Cancelled`].
#[derive(Debug)]
pub struct Pick<T> {
    endpoint: Arc<EndpointState<T>>,
}

impl<T> Pick<T> {
    /// The chosen endpoint.
    pub fn endpoint(&self) -> &Arc<EndpointState<T>> {
        &self.endpoint
    }

    /// The response headers (or trailers-only) arrived: the latency sample ends here, the load stays until the end.
    pub fn headers(&mut self, outcome: Outcome, now: Instant) {
        let _ = (outcome, now);
        unimplemented!()
    }

    /// The attempt is over.
    pub fn finish(self, outcome: Outcome, now: Instant) {
        let _ = (outcome, now);
        unimplemented!()
    }
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// Discovery has not answered yet.
    #[error("endpoints are not known yet")]
    Unresolved,
    /// Discovery says that there are none.
    #[error("the cluster has no endpoints")]
    Empty,
}
