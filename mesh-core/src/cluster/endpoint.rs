//! One endpoint's live state.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use tokio::time::Instant;

use crate::discover::Endpoint;

/// Whether an endpoint's transport believes that it can be reached. Written by the transport, read by picks.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<AtomicU8>,
}

impl Readiness {
    /// The transport has a live connection, or made one.
    pub fn ready(&self) {
        let _ = &self.state;
        unimplemented!()
    }

    /// The transport lost its last connection or could not make one: the endpoint is out until [`ready`](Self::ready).
    pub fn unready(&self) {
        unimplemented!()
    }

    /// Not known to be unreachable; a new endpoint starts here.
    pub fn is_usable(&self) -> bool {
        unimplemented!()
    }
}

/// One endpoint: what discovery said, how it fares, and its transport.
#[derive(Debug)]
pub struct EndpointState<T> {
    endpoint: Endpoint,
    transport: T,
}

impl<T> EndpointState<T> {
    /// What discovery said.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The transport that `make` built.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        unimplemented!()
    }

    /// Whether it is ejected now.
    pub fn ejected(&self, now: Instant) -> bool {
        let _ = now;
        unimplemented!()
    }

    /// Whether picks consider it: usable and not ejected.
    pub fn available(&self, now: Instant) -> bool {
        let _ = now;
        unimplemented!()
    }
}
