//! One endpoint's live state.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::next_return::NextReturn;
use crate::balance::{Decay, PeakEwma, Tick, millis};
use crate::config::Locality;
use crate::discover::{Endpoint, EndpointKey};
use crate::health::{Checked, OutlierDetector, Standing};
use crate::telemetry::{self, ClusterMetrics, EjectReason};

const UNKNOWN: u8 = 0;
const READY: u8 = 1;
const UNREADY: u8 = 2;
/// Ready again after it was not; the next pick of anybody forgets its past and makes it `READY`.
const RETURNED: u8 = 3;

/// Whether an endpoint's transport believes that it can be reached.
///
/// Written by the transport, read by picks.
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
            vitals.shared.next_return.now();
            vitals.shared.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
            tracing::info!(cluster = %vitals.shared.name, endpoint = %vitals.key, "endpoint is reachable again");
        }
    }

    /// The transport lost its last connection or could not make one.
    ///
    /// The endpoint is out until [`ready`](Self::ready).
    pub fn unready(&self) {
        let vitals = &*self.vitals;
        if vitals.readiness.swap(UNREADY, SeqCst) != UNREADY {
            // The loads of priorities and localities have to be planned anew.
            vitals.shared.next_return.now();
            vitals.shared.metrics.endpoints.add(telemetry::EndpointState::Unready, 1);
            tracing::warn!(cluster = %vitals.shared.name, endpoint = %vitals.key, "endpoint is unreachable");
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
    pub(super) in_flight: AtomicU32,
    pub(super) ewma: PeakEwma,
    pub(super) outlier: OutlierDetector,
    pub(super) checked: Checked,
    readiness: AtomicU8,
    /// When it came, or came back: slow start counts from here.
    came: AtomicU64,
    pub(super) key: EndpointKey,
    pub(super) shared: Arc<Shared>,
}

/// What all endpoints of a cluster have in common.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) epoch: Instant,
    pub(super) metrics: Arc<ClusterMetrics>,
    pub(super) next_return: NextReturn,
    /// Attempts under way, counted where load is bounded.
    pub(super) active: AtomicUsize,
}

impl Vitals {
    /// Not known to be unreachable.
    #[inline]
    pub(super) fn is_usable(&self) -> bool {
        self.readiness.load(Relaxed) != UNREADY
    }

    /// Whether picks consider it. Ejections whose time is up are ended before this is asked; one that waits for its probe
    /// is considered until somebody has become that.
    #[inline]
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

    /// Attempts under way there.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed) as usize
    }

    /// When it came, in milliseconds since the epoch.
    #[inline]
    pub(super) fn came(&self) -> u64 {
        self.came.load(Relaxed)
    }

    /// It came back: what was known of its latency is from before, and it warms up anew.
    pub(super) fn start_anew(&self, latency: Duration, millis: u64) {
        self.ewma.reset(latency, Tick::of_millis(millis));
        self.warm_up(millis);
    }

    /// Traffic comes back to it, and slow start counts from now.
    pub(super) fn warm_up(&self, millis: u64) {
        self.came.store(millis, Relaxed);
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        if *self.readiness.get_mut() == UNREADY {
            self.shared.metrics.endpoints.add(telemetry::EndpointState::Unready, -1);
        }
        if !self.checked.is_healthy() {
            self.shared.metrics.endpoints.add(telemetry::EndpointState::Unhealthy, -1);
        }
        if self.outlier.standing() != Standing::In {
            self.shared.metrics.endpoints.add(telemetry::EndpointState::Ejected, -1);
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
            in_flight: AtomicU32::new(0),
            ewma: PeakEwma::new(assumed, Tick::at(core.shared.epoch, now)),
            outlier: OutlierDetector::default(),
            checked: Checked::default(),
            readiness: AtomicU8::new(UNKNOWN),
            came: AtomicU64::new(since(core.shared.epoch, now)),
            key: endpoint.key.clone(),
            shared: Arc::clone(&core.shared),
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

    /// By which its transport says whether it can be reached.
    ///
    /// The one that the transport was made with.
    pub fn readiness(&self) -> Readiness {
        Readiness { vitals: Arc::clone(&self.live.vitals) }
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.live.vitals.in_flight()
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
        let until = self.live.vitals.shared.epoch + Duration::from_millis(until);
        Some(until).filter(|until| *until > now)
    }

    /// `share`: what its group gets of the traffic now.
    pub(super) fn report(&self, now: Instant, decay: Decay, share: Share) -> EndpointReport {
        let vitals = &self.live.vitals;
        EndpointReport {
            key: self.endpoint.key.clone(),
            address: self.endpoint.address,
            usable: vitals.is_usable(),
            ejected_until: self.ejected_until(now),
            healthy: vitals.checked.is_healthy(),
            standing: vitals.outlier.standing(),
            reason: vitals.outlier.reason(),
            ejections: vitals.outlier.ejections(),
            in_flight: self.in_flight(),
            latency: Duration::from_secs_f32(vitals.ewma.seconds(Tick::at(vitals.shared.epoch, now), decay)),
            locality: self.endpoint.locality.clone(),
            priority: self.endpoint.priority,
            priority_percent: share.priority_percent,
            locality_percent: share.locality_percent,
            panic: share.panic,
            warmth_percent: share.warmth_percent,
        }
    }
}

/// What an endpoint's group gets of the traffic.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) priority_percent: u32,
    pub(super) locality_percent: u32,
    pub(super) panic: bool,
    pub(super) warmth_percent: u32,
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
    /// Where it runs.
    pub locality: Locality,
    /// Its priority.
    pub priority: u32,
    /// Of 100 requests, how many its priority gets now.
    pub priority_percent: u32,
    /// Of 100 requests of its priority, how many its locality gets now (with zone-aware balancing without known callers:
    /// all localities that are as near); 100 where localities do not count.
    pub locality_percent: u32,
    /// Its priority is in panic: whether an endpoint is ejected does not count there.
    pub panic: bool,
    /// Of its weight, how much it has: less than 100 while it starts slowly.
    pub warmth_percent: u32,
}

/// Milliseconds since `epoch`, as the outlier detector counts.
#[inline]
pub(super) fn since(epoch: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(epoch))
}
