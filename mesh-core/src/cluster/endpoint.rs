//! One endpoint's live state.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::next_return::NextReturn;
use crate::balance::{Decay, PeakEwma, Tick, millis};
use crate::discover::{Endpoint, EndpointKey};
use crate::health::{Checked, OutlierDetector, Standing};
use crate::telemetry::{self, ClusterMetrics, EjectReason};

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
    vitals: Arc<Vitals>,
}

impl Readiness {
    /// The transport has a live connection, or made one.
    pub fn ready(&self) {
        let vitals = &*self.vitals;
        let change = |state| match state {
            UNKNOWN => Some(READY),
            UNREADY => Some(RETURNED),
            _ => None,
        };
        if vitals.readiness.fetch_update(SeqCst, Relaxed, change) == Ok(UNREADY) {
            vitals.next_return.now();
            vitals.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
            tracing::info!(cluster = %vitals.cluster, endpoint = %vitals.key, "endpoint is reachable again");
        }
    }

    /// The transport lost its last connection or could not make one: the endpoint is out until [`ready`](Self::ready).
    pub fn unready(&self) {
        let vitals = &*self.vitals;
        if vitals.readiness.swap(UNREADY, Relaxed) != UNREADY {
            vitals.metrics.endpoints.add(telemetry::EndpointState::Unready, 1);
            tracing::warn!(cluster = %vitals.cluster, endpoint = %vitals.key, "endpoint is unreachable");
        }
    }

    /// Not known to be unreachable; a new endpoint starts here.
    pub fn is_usable(&self) -> bool {
        self.vitals.is_usable()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.vitals.readiness.load(Relaxed) {
            UNKNOWN => "unknown",
            READY => "ready",
            RETURNED => "returned",
            _ => "unready",
        };
        f.debug_tuple("Readiness").field(&state).finish()
    }
}

/// How one endpoint fares: all that a pick looks at before it has chosen, in one place in memory.
pub(super) struct Vitals {
    pub(super) in_flight: AtomicUsize,
    pub(super) ewma: PeakEwma,
    pub(super) outlier: OutlierDetector,
    pub(super) checked: Checked,
    readiness: AtomicU8,
    pub(super) key: EndpointKey,
    pub(super) epoch: Instant,
    pub(super) metrics: Arc<ClusterMetrics>,
    cluster: Arc<str>,
    next_return: Arc<NextReturn>,
}

impl Vitals {
    fn is_usable(&self) -> bool {
        self.readiness.load(Relaxed) != UNREADY
    }

    /// Whether picks consider it. Ejections whose time is up are ended before this is asked; one that waits for its probe
    /// is considered until somebody has become that.
    pub(super) fn is_in(&self) -> bool {
        self.is_usable() && self.outlier.standing().admits() && self.checked.is_healthy()
    }

    /// Whether it can be relied on: what the share of those that are out is counted by.
    pub(super) fn is_well(&self) -> bool {
        self.is_usable() && self.outlier.standing() == Standing::In && self.checked.is_healthy()
    }

    /// Whether its transport found it again and nobody noticed yet.
    pub(super) fn has_returned(&self) -> bool {
        self.readiness.load(SeqCst) == RETURNED
    }

    /// Notes that its transport found it again; says whether it was news.
    pub(super) fn acknowledge_return(&self) -> bool {
        self.readiness.compare_exchange(RETURNED, READY, Relaxed, Relaxed).is_ok()
    }

    pub(super) fn cost(&self, now: Tick, decay: Decay) -> f64 {
        let load = self.in_flight.load(Relaxed) + 1;
        f64::from(self.ewma.seconds(now, decay)) * load as f64
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        if *self.readiness.get_mut() == UNREADY {
            self.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
        }
        if !self.checked.is_healthy() {
            self.metrics.endpoints.add(telemetry::EndpointState::Unhealthy, -1);
        }
        if self.outlier.standing() != Standing::In {
            self.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
        }
    }
}

/// What outlives a change of an endpoint's weight or metadata: everything that was learnt, and the transport.
pub(super) struct Live<T> {
    pub(super) vitals: Arc<Vitals>,
    /// Weak: an endpoint must not keep alive the set that holds it.
    pub(super) core: Weak<Core<T>>,
    transport: T,
}

impl<T> Live<T> {
    pub(super) fn new(core: &Arc<Core<T>>, endpoint: &Endpoint, assumed: Duration, now: Instant) -> Arc<Self> {
        let vitals = Arc::new(Vitals {
            in_flight: AtomicUsize::new(0),
            ewma: PeakEwma::new(assumed, Tick::at(core.epoch, now)),
            outlier: OutlierDetector::default(),
            checked: Checked::default(),
            readiness: AtomicU8::new(UNKNOWN),
            key: endpoint.key.clone(),
            epoch: core.epoch,
            metrics: Arc::clone(&core.metrics),
            cluster: Arc::clone(&core.name),
            next_return: Arc::clone(&core.next_return),
        });
        let transport = (core.make)(endpoint, Readiness { vitals: Arc::clone(&vitals) });
        Arc::new(Self { vitals, core: Arc::downgrade(core), transport })
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
        self.live.vitals.in_flight.load(Relaxed)
    }

    /// Whether it is ejected now.
    pub fn ejected(&self, now: Instant) -> bool {
        self.ejected_until(now).is_some()
    }

    /// Whether picks consider it: usable, healthy, not ejected, and not out but for its probe.
    pub fn available(&self, now: Instant) -> bool {
        let probing = matches!(self.live.vitals.outlier.standing(), Standing::Probing { .. });
        let vitals = &self.live.vitals;
        vitals.is_usable() && vitals.checked.is_healthy() && !self.ejected(now) && !probing
    }

    /// When its ejection ends, if it is ejected now.
    pub fn ejected_until(&self, now: Instant) -> Option<Instant> {
        let Standing::Out { until } = self.live.vitals.outlier.standing() else { return None };
        let until = self.live.vitals.epoch + Duration::from_millis(until);
        Some(until).filter(|until| *until > now)
    }

    pub(super) fn report(&self, now: Instant, decay: Decay) -> EndpointReport {
        EndpointReport {
            key: self.endpoint.key.clone(),
            address: self.endpoint.address,
            usable: self.live.vitals.is_usable(),
            ejected_until: self.ejected_until(now),
            healthy: self.live.vitals.checked.is_healthy(),
            standing: self.live.vitals.outlier.standing(),
            reason: self.live.vitals.outlier.reason(),
            ejections: self.live.vitals.outlier.ejections(),
            in_flight: self.in_flight(),
            latency: Duration::from_secs_f32(
                self.live.vitals.ewma.seconds(Tick::at(self.live.vitals.epoch, now), decay),
            ),
        }
    }
}

impl<T> fmt::Debug for EndpointState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointState")
            .field("endpoint", &self.endpoint)
            .field("in_flight", &self.in_flight())
            .field("available", &self.live.vitals.is_in())
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
    /// Its health checks do not hold it to be broken.
    pub healthy: bool,
    /// Where it stands: in, out, or with its breaker half-open.
    pub standing: Standing,
    /// Why it is out, if it is.
    pub reason: Option<EjectReason>,
    /// How often it was ejected, what time has forgiven taken off; the next ejection lasts accordingly longer.
    pub ejections: u32,
    /// Attempts in flight.
    pub in_flight: usize,
    /// The peak-EWMA latency that picks go by.
    pub latency: Duration,
}

/// Milliseconds since `epoch`, as the outlier detector counts.
pub(super) fn since(epoch: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(epoch))
}
