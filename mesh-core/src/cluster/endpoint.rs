//! One endpoint's live state.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::{Core, NextReturn};
use crate::balance::{Decay, PeakEwma, Tick, millis};
use crate::discover::{Endpoint, EndpointKey};
use crate::health::OutlierDetector;
use crate::telemetry::{self, ClusterMetrics};

const UNKNOWN: u8 = 0;
const READY: u8 = 1;
const UNREADY: u8 = 2;
/// Ready again after it was not; the next pick of anybody forgets its past and makes it `READY`.
const RETURNED: u8 = 3;

/// Whether an endpoint's transport believes that it can be reached. Written by the transport, read by picks.
///
/// ```text
///   unknown ──ready──▶ ready ◀──next pick── returned
///      │                 │                      ▲ │
///      └────unready──────┴─────▶ unready ─ready─┘ │
///                                   ▲             │
///                                   └───unready───┘
/// ```
///
/// Picks avoid an unready endpoint, so nobody but the transport finds out that it is back: whoever calls
/// [`unready`](Self::unready) goes on trying to connect, and calls [`ready`](Self::ready) when that succeeds.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<ReadinessShared>,
}

struct ReadinessShared {
    state: AtomicU8,
    cluster: Arc<str>,
    key: EndpointKey,
    metrics: Arc<ClusterMetrics>,
    next_return: Arc<NextReturn>,
}

impl Readiness {
    fn new<T>(core: &Core<T>, key: EndpointKey) -> Self {
        Self {
            shared: Arc::new(ReadinessShared {
                state: AtomicU8::new(UNKNOWN),
                cluster: Arc::clone(&core.name),
                key,
                metrics: Arc::clone(&core.metrics),
                next_return: Arc::clone(&core.next_return),
            }),
        }
    }

    /// The transport has a live connection, or made one.
    pub fn ready(&self) {
        let shared = &*self.shared;
        let change = |state| match state {
            UNKNOWN => Some(READY),
            UNREADY => Some(RETURNED),
            _ => None,
        };
        if shared.state.fetch_update(SeqCst, Relaxed, change) == Ok(UNREADY) {
            shared.next_return.now();
            shared.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
            tracing::info!(cluster = %shared.cluster, endpoint = %shared.key, "endpoint is reachable again");
        }
    }

    /// The transport lost its last connection or could not make one: the endpoint is out until [`ready`](Self::ready).
    pub fn unready(&self) {
        let shared = &*self.shared;
        if shared.state.swap(UNREADY, Relaxed) != UNREADY {
            shared.metrics.endpoints.add(telemetry::EndpointState::Unready, 1);
            tracing::warn!(cluster = %shared.cluster, endpoint = %shared.key, "endpoint is unreachable");
        }
    }

    /// Not known to be unreachable; a new endpoint starts here.
    pub fn is_usable(&self) -> bool {
        self.shared.state.load(Relaxed) != UNREADY
    }

    /// Whether it is back and nobody noticed yet.
    pub(super) fn has_returned(&self) -> bool {
        self.shared.state.load(SeqCst) == RETURNED
    }

    /// Notes that it is back; says whether it was news.
    pub(super) fn acknowledge_return(&self) -> bool {
        self.shared.state.compare_exchange(RETURNED, READY, Relaxed, Relaxed).is_ok()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.shared.state.load(Relaxed) {
            UNKNOWN => "unknown",
            READY => "ready",
            RETURNED => "returned",
            _ => "unready",
        };
        f.debug_tuple("Readiness").field(&state).finish()
    }
}

impl Drop for ReadinessShared {
    fn drop(&mut self) {
        if *self.state.get_mut() == UNREADY {
            self.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
        }
    }
}

/// What outlives a change of an endpoint's weight or metadata: everything that was learnt, and the transport.
pub(super) struct Live<T> {
    pub(super) key: EndpointKey,
    pub(super) in_flight: AtomicUsize,
    pub(super) ewma: PeakEwma,
    pub(super) outlier: OutlierDetector,
    pub(super) readiness: Readiness,
    pub(super) epoch: Instant,
    pub(super) metrics: Arc<ClusterMetrics>,
    /// Weak: an endpoint must not keep alive the set that holds it.
    pub(super) core: Weak<Core<T>>,
    transport: T,
}

impl<T> Live<T> {
    pub(super) fn new(core: &Arc<Core<T>>, endpoint: &Endpoint, assumed: Duration, now: Instant) -> Arc<Self> {
        let readiness = Readiness::new(core, endpoint.key.clone());
        Arc::new(Self {
            key: endpoint.key.clone(),
            in_flight: AtomicUsize::new(0),
            ewma: PeakEwma::new(assumed, Tick::at(core.epoch, now)),
            outlier: OutlierDetector::default(),
            transport: (core.make)(endpoint, readiness.clone()),
            readiness,
            epoch: core.epoch,
            metrics: Arc::clone(&core.metrics),
            core: Arc::downgrade(core),
        })
    }

    /// Whether picks consider it. Ejections whose time is up are ended before this is asked.
    pub(super) fn is_in(&self) -> bool {
        self.readiness.is_usable() && !self.outlier.is_ejected()
    }

    pub(super) fn cost(&self, now: Tick, decay: Decay) -> f64 {
        let load = self.in_flight.load(Relaxed) + 1;
        f64::from(self.ewma.seconds(now, decay)) * load as f64
    }
}

/// One endpoint: what discovery said, how it fares, and its transport.
pub struct EndpointState<T> {
    pub(super) endpoint: Endpoint,
    pub(super) live: Arc<Live<T>>,
}

impl<T> EndpointState<T> {
    /// What discovery said.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The transport that `make` built.
    pub fn transport(&self) -> &T {
        &self.live.transport
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.live.in_flight.load(Relaxed)
    }

    /// Whether it is ejected now.
    pub fn ejected(&self, now: Instant) -> bool {
        self.ejected_until(now).is_some()
    }

    /// Whether picks consider it: usable and not ejected.
    pub fn available(&self, now: Instant) -> bool {
        self.live.readiness.is_usable() && !self.ejected(now)
    }

    /// When its ejection ends, if it is ejected now.
    pub fn ejected_until(&self, now: Instant) -> Option<Instant> {
        let until = self.live.epoch + Duration::from_millis(self.live.outlier.ejected_until()?);
        Some(until).filter(|until| *until > now)
    }

    pub(super) fn report(&self, now: Instant, decay: Decay) -> EndpointReport {
        EndpointReport {
            key: self.endpoint.key.clone(),
            address: self.endpoint.address,
            usable: self.live.readiness.is_usable(),
            ejected_until: self.ejected_until(now),
            in_flight: self.in_flight(),
            latency: Duration::from_secs_f32(self.live.ewma.seconds(Tick::at(self.live.epoch, now), decay)),
        }
    }
}

impl<T> fmt::Debug for EndpointState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointState")
            .field("endpoint", &self.endpoint)
            .field("in_flight", &self.in_flight())
            .field("readiness", &self.live.readiness)
            .finish_non_exhaustive()
    }
}

/// How one endpoint fares, for people and tools.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EndpointReport {
    /// Its key.
    pub key: EndpointKey,
    /// Where it is.
    pub address: SocketAddr,
    /// Its transport does not hold it to be unreachable.
    pub usable: bool,
    /// When its ejection ends, if it is ejected.
    pub ejected_until: Option<Instant>,
    /// Attempts in flight.
    pub in_flight: usize,
    /// The peak-EWMA latency that picks go by.
    pub latency: Duration,
}

/// Milliseconds since `epoch`, as the outlier detector counts.
pub(super) fn since(epoch: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(epoch))
}
