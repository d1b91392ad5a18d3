//! Asks again and again, and says what has changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::answer::{Bound, Service};
use super::lookup::{Answer, Lookup};
use super::{DnsConfig, Family, RecordKind};
use crate::discover::{EndpointSet, ResolveError, Update};
use crate::rng::Rng;

/// Targets of SRV records that are resolved at once.
const CONCURRENT: usize = 16;

/// Targets that cannot be resolved and are named in one message.
const TOLD: usize = 8;

/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// One watcher of one name.
pub(super) struct Watch {
    config: Arc<DnsConfig>,
    lookup: Arc<dyn Lookup>,
    rng: Rng,
    wanted: Arc<Notify>,
    bound: Bound,
    /// What is still to be said of the last lookup.
    unsaid: VecDeque<Update>,
    /// What was said last, and of what could not be read.
    said: Option<Update>,
    said_stale: Option<String>,
    /// The last addresses of each target.
    targets: BTreeMap<String, BTreeSet<IpAddr>>,
    /// When the next lookup is due, and the last one began.
    next: Option<Instant>,
    asked: Option<Instant>,
    failures: u32,
}

/// What one lookup found.
struct Found {
    update: Update,
    ttl: Duration,
    /// What could not be read, where something could.
    problems: Vec<String>,
}

impl Watch {
    pub(super) fn new(config: Arc<DnsConfig>, lookup: Arc<dyn Lookup>, rng: Rng, wanted: Arc<Notify>) -> Self {
        let bound = Bound { max: config.max_endpoints, seed: FixedState::with_seed(rng.next_u64()) };
        Self {
            config,
            lookup,
            rng,
            wanted,
            bound,
            unsaid: VecDeque::new(),
            said: None,
            said_stale: None,
            targets: BTreeMap::new(),
            next: None,
            asked: None,
            failures: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Update {
        loop {
            if let Some(update) = self.unsaid.pop_front() {
                return update;
            }
            self.wait().await;
            self.asked = Some(Instant::now());
            let found = match self.config.record {
                RecordKind::Addresses { port } => self.addresses(port).await,
                RecordKind::Services => self.services().await,
            };
            self.note(found);
        }
    }

    /// Until the next lookup is due, or somebody wants it and the last one is not too new.
    async fn wait(&self) {
        let (Some(next), Some(asked)) = (self.next, self.asked) else { return };
        tokio::select! {
            biased;
            () = sleep_until(next) => {}
            () = async {
                self.wanted.notified().await;
                sleep_until(asked + self.config.min_ttl).await;
            } => {}
        }
    }

    /// Decides what is said of it, and when the next one is due.
    fn note(&mut self, found: Result<Found, String>) {
        let wait = match found {
            Ok(Found { update, ttl, problems }) => {
                let stale = (!problems.is_empty()).then(|| problems.join("; "));
                self.failures = if stale.is_some() { self.failures.saturating_add(1) } else { 0 };
                // Whoever could not see is seen to see again, also where nothing has changed.
                let recovered = self.said_stale.is_some() && stale.is_none();
                if recovered || self.said.as_ref() != Some(&update) {
                    self.said = Some(update.clone());
                    self.unsaid.push_back(update);
                }
                let news = stale.clone().filter(|stale| self.said_stale.as_ref() != Some(stale));
                self.unsaid.extend(news.map(|news| Update::Stale(ResolveError(news))));
                self.said_stale = stale;
                if self.failures > 0 { ttl.min(self.backoff()) } else { ttl }
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.said_stale.as_ref() != Some(&why) {
                    self.unsaid.push_back(Update::Stale(ResolveError(why.clone())));
                }
                self.said_stale = Some(why);
                self.backoff()
            }
        };
        // Not `clamp`, which panics where a configuration made in code has them the wrong way round.
        let wait = wait.min(self.config.max_ttl).max(self.config.min_ttl);
        let spread = wait.mul_f64(0.9 + 0.1 * self.rng.unit()).max(self.config.min_ttl);
        self.next = Some(Instant::now() + spread);
    }

    fn backoff(&self) -> Duration {
        let doubled = self.config.min_ttl.saturating_mul(1 << self.failures.min(16).saturating_sub(1));
        doubled.min(MAX_BACKOFF)
    }

    async fn addresses(&self, port: u16) -> Result<Found, String> {
        let answer = addresses(&*self.lookup, &self.config.name, self.config.family).await?;
        let set = self.located(self.bound.addresses(&answer.records.into_iter().collect(), port));
        Ok(Found { update: Update::Endpoints(set), ttl: answer.ttl, problems: Vec::new() })
    }

    fn located(&self, mut set: EndpointSet) -> EndpointSet {
        set.endpoints.iter_mut().for_each(|endpoint| endpoint.locality = self.config.locality.clone());
        set
    }

    async fn services(&mut self) -> Result<Found, String> {
        let name = &self.config.name;
        let Answer { records, mut ttl, definite } = self.lookup.services(name).await?;
        if records.is_empty() && !definite {
            return Err(format!("SRV records of {name}: the answer has none and no SOA, which proves nothing"));
        }
        if !records.is_empty() && records.iter().all(|service| service.target.is_empty()) {
            return Ok(Found { update: Update::Gone, ttl, problems: Vec::new() });
        }
        let named = records.len();
        let real: Vec<_> =
            records.into_iter().filter(|service| !service.target.is_empty() && service.port != 0).collect();
        let nowhere = named - real.len();
        let (services, left_out) = self.bound.services(real);
        let (resolved, problems) = self.resolve(&services).await;
        if !services.is_empty() && resolved.is_empty() {
            return Err(problems.join("; "));
        }
        let mut targets = BTreeMap::new();
        for target in services.iter().map(|service| &service.target) {
            let addresses = match resolved.get(target) {
                Some(answer) => {
                    ttl = ttl.min(answer.ttl);
                    self.bound.target(answer.records.iter().copied())
                }
                None => self.targets.get(target).cloned().unwrap_or_default(),
            };
            targets.insert(target.clone(), addresses);
        }
        let set = self.located(self.bound.resolved(&services, &targets));
        self.targets = targets;
        let dropped = set.dropped + left_out + nowhere;
        Ok(Found { update: Update::Endpoints(set.dropped(dropped)), ttl, problems })
    }

    /// The addresses of all targets, and what could not be read.
    async fn resolve(&self, services: &[Service]) -> (BTreeMap<String, Answer<IpAddr>>, Vec<String>) {
        let mut waiting: BTreeSet<_> = services.iter().map(|service| service.target.clone()).collect();
        let (mut resolved, mut problems) = (BTreeMap::new(), BTreeSet::new());
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < CONCURRENT
                && let Some(target) = waiting.pop_first()
            {
                let (lookup, family) = (Arc::clone(&self.lookup), self.config.family);
                asked.spawn(async move {
                    let answer = addresses(&*lookup, &target, family).await;
                    (target, answer)
                });
            }
            match asked.join_next().await {
                Some(Ok((target, Ok(answer)))) => _ = resolved.insert(target, answer),
                Some(Ok((_, Err(why)))) => _ = problems.insert(why),
                Some(Err(_)) => _ = problems.insert("a lookup was cut off".to_owned()),
                None => return (resolved, told(problems)),
            }
        }
    }
}

/// A few of them, and how many more: who owns a zone must not choose how much is logged of it.
fn told(problems: BTreeSet<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("and {more} more"));
    problems.into_iter().take(TOLD).chain(more).collect()
}

/// All addresses of a name that the family allows. None at all is an answer only if that is certain.
async fn addresses(lookup: &dyn Lookup, name: &str, family: Family) -> Result<Answer<IpAddr>, String> {
    let (v4, v6) = match family {
        Family::V4 => (Some(lookup.addresses(name, false).await?), None),
        Family::V6 => (None, Some(lookup.addresses(name, true).await?)),
        Family::All => {
            let (v4, v6) = tokio::join!(lookup.addresses(name, false), lookup.addresses(name, true));
            (Some(v4?), Some(v6?))
        }
        Family::Auto => {
            let v4 = lookup.addresses(name, false).await?;
            let v6 = if v4.records.is_empty() { Some(lookup.addresses(name, true).await?) } else { None };
            (Some(v4), v6)
        }
    };
    let answers: Vec<_> = v4.into_iter().chain(v6).collect();
    let definite = answers.iter().all(|answer| answer.definite);
    let with_records = answers.iter().filter(|answer| !answer.records.is_empty());
    // Of a family that has nothing, how long that holds is no reason to ask for the other sooner.
    let ttl = with_records.map(|answer| answer.ttl).min();
    let ttl = ttl.or_else(|| answers.iter().map(|answer| answer.ttl).min()).unwrap_or_default();
    let records: Vec<_> = answers.into_iter().flat_map(|answer| answer.records).collect();
    if records.is_empty() && !definite {
        return Err(format!("addresses of {name}: the answer has none and no SOA, which proves nothing"));
    }
    Ok(Answer { records, ttl, definite })
}
