//! What a pick would do now, and why, without doing it.
//!
//! At three in the morning nobody asks for an average; the question is where *this* request would go, and what is the
//! matter with the endpoints that it would not go to. The answer is computed from the set that picks read, by the code
//! that picks run, on randomness that begins where theirs is and does not move it: the next pick chooses what is said
//! here, unless somebody else is faster or something changes. Nothing is claimed, counted or planned anew.

mod text;

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::endpoint::{Share, since};
use super::group::{Admit, Slot, Terms};
use super::members::Tier;
use super::reason::{PickReason, PickScope};
use super::set::{Choice, Set};
use super::{Cluster, EndpointState, PickError, Tried};
use crate::balance::PickRequest;
use crate::config::BalancePolicy;
use crate::discover::EndpointKey;
use crate::health::Standing;
use crate::telemetry::{Distance, Label};

/// Endpoints, priorities, and localities of a priority that are listed at most.
///
/// The rest is counted.
pub const MAX_LISTED: usize = 32;

/// A cluster as a pick finds it, and what that pick would choose.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClusterExplanation {
    /// Its name.
    pub cluster: String,
    /// The balancing policy.
    pub policy: String,
    /// Discovery has answered.
    pub resolved: bool,
    /// Endpoints that traffic may go to.
    pub known: usize,
    /// Of those, how many are in.
    pub available: usize,
    /// Endpoints that `residency` shuts out.
    pub outside_residency: usize,
    /// First to last; at most [`MAX_LISTED`].
    pub priorities: Vec<PriorityExplanation>,
    /// The chosen one, whom it was compared to, those that are out, then the rest; at most [`MAX_LISTED`].
    pub endpoints: Vec<EndpointExplanation>,
    /// Endpoints that are not listed.
    pub unlisted: usize,
    /// Somebody's time is up, or somebody was lost or found again: the next pick plans anew first, and may choose
    /// otherwise.
    pub plans_anew: bool,
    /// What a pick would choose.
    pub pick: Foreseen,
}

/// What a pick would come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Foreseen {
    /// This endpoint.
    Endpoint {
        /// Its key.
        key: EndpointKey,
        /// Where it is.
        address: SocketAddr,
        /// Why.
        #[serde(serialize_with = "text")]
        reason: PickReason,
    },
    /// Nobody: this is the error.
    Nobody(#[serde(serialize_with = "text")] PickError),
    /// The policy is the program's own, and asking it might change what it keeps.
    Unforeseeable,
}

/// What one priority gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PriorityExplanation {
    /// The number; 0 is the first.
    pub priority: u32,
    /// Of 100 requests, how many it gets.
    pub percent: u32,
    /// Too few of it are in: ejections do not count.
    pub panic: bool,
    /// Its endpoints.
    pub known: usize,
    /// Of those, how many are in.
    pub available: usize,
    /// Its localities or rings, nearest first; empty where no difference is made; at most [`MAX_LISTED`].
    pub localities: Vec<LocalityExplanation>,
}

/// What one locality of a priority gets.
///
/// Or all that are as near as each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LocalityExplanation {
    /// `REGION/ZONE` of its first endpoint.
    pub locality: String,
    /// `zone`, `region`, `far`, or `any` where that does not count.
    pub distance: &'static str,
    /// Of 100 requests of its priority, how many it gets.
    pub percent: u32,
    /// Its endpoints.
    pub known: usize,
    /// Of those, how many are in.
    pub available: usize,
}

/// Where an endpoint stands, all judgements in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointStanding {
    /// It takes requests.
    In,
    /// Its breaker waits for one request that proves it.
    HalfOpen,
    /// That request is under way.
    Probing,
    /// Ejected.
    Out,
    /// Its health checks fail.
    Unhealthy,
    /// It cannot be connected to.
    Unready,
}

/// One endpoint as a pick sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EndpointExplanation {
    /// Its key.
    pub key: EndpointKey,
    /// Where it is.
    pub address: SocketAddr,
    /// Where it stands.
    pub standing: EndpointStanding,
    /// Why it was ejected, if it is not in again.
    pub reason: Option<&'static str>,
    /// When its ejection ends; zero: its time is up, and the next pick lets it in or has it probed.
    #[serde(rename = "back_in_ms", serialize_with = "millis")]
    pub back_in: Option<Duration>,
    /// How often it was ejected, what time has forgiven taken off.
    pub ejections: u32,
    /// Its priority.
    pub priority: u32,
    /// `REGION/ZONE`; empty where unknown.
    pub locality: String,
    /// Its share of its group, where 1 is the mean.
    pub weight: f32,
    /// Of its weight, how much it has while it starts slowly.
    pub warmth_percent: u32,
    /// Attempts under way.
    pub in_flight: usize,
    /// The peak-EWMA latency, failures counted as slow.
    #[serde(rename = "latency_ms", serialize_with = "millis")]
    pub latency: Duration,
    /// Latency times load, as `peak_ewma` compares it; `None` with another policy.
    #[serde(rename = "cost_ms", serialize_with = "millis")]
    pub cost: Option<Duration>,
    /// Its connections.
    pub transport: TransportReport,
}

/// What a transport can tell of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TransportReport {
    /// Connections that take requests.
    pub connections: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Why the last connect failed, if none has succeeded since.
    pub failure: Option<String>,
}

fn text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// Milliseconds, with fractions.
fn millis<S: Serializer>(duration: &(impl Copy + Into<Option<Duration>>), serializer: S) -> Result<S::Ok, S::Error> {
    (*duration).into().map(|duration: Duration| duration.as_secs_f64() * 1e3).serialize(serializer)
}

impl<T: Send + Sync + 'static> Cluster<T> {
    /// What [`pick_by`](Self::pick_by) would choose for a first attempt, and how all endpoints fare. For people.
    ///
    /// Takes no place, moves no randomness and changes nothing. Costs a look at every endpoint.
    pub fn explain(
        &self,
        hash: Option<u64>,
        now: Instant,
        transport: impl Fn(&T) -> TransportReport,
    ) -> ClusterExplanation {
        let (core, shared) = (&*self.core, &*self.core.shared);
        let set = core.set.load();
        let at = since(shared.epoch, now);
        let rng = core.rng.preview();
        let active = shared.active.load(std::sync::atomic::Ordering::Relaxed);
        let request = PickRequest { hash, active, preview: true, ..PickRequest::new(&rng) };
        let (pick, compared) = self.foresee(&set, request, at);
        let chosen = match &pick {
            Foreseen::Endpoint { key, .. } => Some(key.clone()),
            _ => None,
        };
        let mut slots: Vec<_> = set.shares(at).collect();
        let known = slots.len();
        let available = slots.iter().filter(|(slot, _)| slot.vitals.is_in()).count();
        slots.sort_by_cached_key(|(slot, _)| {
            let key = &slot.state.endpoint.key;
            let told =
                [chosen.as_ref() == Some(key), compared == Some(slot.state.endpoint.address), !slot.vitals.is_in()];
            (Reverse(told), key.clone())
        });
        let listed = slots.iter().take(MAX_LISTED);
        let endpoints: Vec<_> =
            listed.map(|(slot, share)| set.explain_endpoint(slot, *share, request, now, at, &transport)).collect();
        ClusterExplanation {
            cluster: self.name().to_string(),
            policy: set.balancing.config.policy.name().to_owned(),
            resolved: self.resolved(),
            known,
            available,
            outside_residency: set.members.outside.len(),
            priorities: set.explain_priorities(),
            unlisted: known - endpoints.len(),
            endpoints,
            plans_anew: shared.next_return.due(at).is_some(),
            pick,
        }
    }

    /// The next choice, and whom it was compared to.
    fn foresee(&self, set: &Set<T>, request: PickRequest<'_>, at: u64) -> (Foreseen, Option<SocketAddr>) {
        if matches!(set.balancing.config.policy, BalancePolicy::Custom(_)) && set.balancing.custom.is_some() {
            return (Foreseen::Unforeseeable, None);
        }
        let tried = Tried::default();
        let ordinary = set.choose_ordinarily(&tried, request.rng, at);
        let ordinary = ordinary.map(|drawn| Choice { drawn, scope: PickScope::Planned });
        match ordinary.map_or_else(|| set.choose(&tried, request, at), Ok) {
            Ok(choice) => {
                let probe = choice.drawn.slot.vitals.outlier.standing() == Standing::HalfOpen;
                let reason = PickReason::new(&choice.drawn, choice.scope, probe);
                let endpoint = &choice.drawn.slot.state.endpoint;
                let (key, address) = (endpoint.key.clone(), endpoint.address);
                (Foreseen::Endpoint { key, address, reason }, reason.rival.map(|rival| rival.address))
            }
            Err(PickError::Empty) if !self.resolved() => (Foreseen::Nobody(PickError::Unresolved), None),
            Err(error) => (Foreseen::Nobody(error), None),
        }
    }
}

impl<T> Set<T> {
    fn explain_priorities(&self) -> Vec<PriorityExplanation> {
        let tiers = self.members.tiers.iter().enumerate().take(MAX_LISTED);
        tiers.map(|(index, tier)| self.explain_priority(index, tier)).collect()
    }

    fn explain_priority(&self, index: usize, tier: &Tier) -> PriorityExplanation {
        let slots = |range: &std::ops::Range<usize>| self.members.slots.get(range.clone()).unwrap_or_default();
        let available = |slots: &[Slot<T>]| slots.iter().filter(|slot| slot.vitals.is_in()).count();
        let whole = slots(&tier.whole.slots);
        let parts = tier.parts.iter().enumerate().take(MAX_LISTED);
        let localities = parts.map(|(at, part)| {
            let slots = slots(&part.group.slots);
            LocalityExplanation {
                locality: slots.first().map(|slot| place(&slot.state)).unwrap_or_default(),
                distance: Distance::as_str(part.distance),
                percent: self.plan.share(index, at).1,
                known: slots.len(),
                available: available(slots),
            }
        });
        let (load, _) = self.plan.share(index, 0);
        PriorityExplanation {
            priority: tier.priority,
            percent: load.percent,
            panic: load.panic,
            known: whole.len(),
            available: available(whole),
            localities: localities.collect(),
        }
    }

    fn explain_endpoint(
        &self,
        slot: &Slot<T>,
        share: Share,
        request: PickRequest<'_>,
        now: Instant,
        at: u64,
        transport: impl Fn(&T) -> TransportReport,
    ) -> EndpointExplanation {
        let report = slot.state.report(now, self.settings.decay, share);
        let standing = match report.standing {
            _ if !report.usable => EndpointStanding::Unready,
            Standing::Out { .. } => EndpointStanding::Out,
            _ if !report.healthy => EndpointStanding::Unhealthy,
            Standing::HalfOpen => EndpointStanding::HalfOpen,
            Standing::Probing { .. } => EndpointStanding::Probing,
            Standing::In => EndpointStanding::In,
        };
        let back_in = match report.standing {
            Standing::Out { until } => Some(Duration::from_millis(until.saturating_sub(at))),
            _ => None,
        };
        let terms = Terms { request, tried: None, admit: Admit::Any, now: at, slow: None, settings: &self.settings };
        let tier = self.members.tiers.iter().find(|tier| tier.priority == report.priority);
        EndpointExplanation {
            key: report.key,
            address: report.address,
            standing,
            reason: report.reason.map(Label::as_str),
            back_in,
            ejections: report.ejections,
            priority: report.priority,
            locality: place(&slot.state),
            weight: slot.weight,
            warmth_percent: report.warmth_percent,
            in_flight: report.in_flight,
            latency: report.latency,
            cost: tier
                .and_then(|tier| tier.whole.cost(slot, &terms))
                .and_then(|cost| Duration::try_from_secs_f32(cost).ok()),
            transport: transport(slot.state.transport()),
        }
    }
}

/// `REGION/ZONE`, as much of it as is known.
fn place<T>(state: &EndpointState<T>) -> String {
    let locality = &state.endpoint.locality;
    let slash = if locality.zone.is_empty() { "" } else { "/" };
    format!("{}{slash}{}", locality.region, locality.zone)
}
