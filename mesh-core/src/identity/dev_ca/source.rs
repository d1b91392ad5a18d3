//! The `dev_ca` source: takes SVIDs from the authority in a directory, again and again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{DEFAULT_SVID_TTL, DevCa, DevCaError, MAX_SVID_TTL, MIN_SVID_TTL};
use crate::clock::WallClock;
use crate::config::{Errors, Fields, Node};
use crate::identity::{
    Identity, IdentityError, IdentitySource, IdentityUpdates, Looked, Looks, SpiffeId, TrustBundleSet, TrustDomain,
    Watcher, X509Svid,
};
use crate::plugin;
use crate::rng::Rng;
use crate::stream::unfold;

/// How long the first failure delays the next attempt; it doubles up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Where the authority is, and whom it is asked to vouch for.
///
/// In YAML: `source: { dev_ca: { dir: .mesh, svid_ttl: 1h } }`. The name is the workload's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevCaConfig {
    /// The directory; made if it is missing.
    pub dir: PathBuf,
    /// Whose trust domain the authority must be.
    pub trust_domain: TrustDomain,
    /// The name in the SVIDs.
    pub id: SpiffeId,
    /// How long an SVID lasts; a new one is taken at half of it, less up to 10 % jitter. Default 1 h, range 2 s to
    /// 24 h. A short one rotates certificates under load: 6 s means a new one every 3 s.
    pub svid_ttl: Duration,
    /// How often the directory is looked at. A replaced authority is followed within this time.
    pub poll_interval: Duration,
}

/// The `dev_ca` source. For development only; says so in the log when it is watched.
#[derive(Debug, Clone)]
pub struct DevCaSource {
    config: Arc<DevCaConfig>,
    clock: Arc<dyn WallClock>,
    rng: Rng,
    looks: Looks,
}

impl DevCaSource {
    /// A source that touches nothing before it is watched.
    pub fn new(config: DevCaConfig, clock: Arc<dyn WallClock>, rng: Rng) -> Self {
        Self { config: Arc::new(config), clock, rng, looks: Looks::default() }
    }

    /// Reads the settings of `dev_ca:`.
    pub(crate) fn from_node(
        node: &Node,
        context: &plugin::Context,
        errors: &mut Errors,
    ) -> Option<Arc<dyn IdentitySource>> {
        let mut fields = Fields::of(node, errors)?;
        let dir = fields.required::<PathBuf>("dir");
        let svid_ttl = fields.within("svid_ttl", DEFAULT_SVID_TTL, MIN_SVID_TTL..=MAX_SVID_TTL);
        let workload = &context.workload;
        let id = SpiffeId::for_workload(&context.trust_domain, &workload.namespace, &workload.service_account);
        let id = id.map_err(|error| {
            fields.error(format!("`workload` gives no SPIFFE ID for namespace and service_account: {error}"));
        });
        fields.finish();
        let config = DevCaConfig {
            dir: context.base_dir.join(dir?),
            trust_domain: context.trust_domain.clone(),
            id: id.ok()?,
            svid_ttl,
            poll_interval: context.poll_interval,
        };
        Some(Arc::new(Self::new(config, context.clock.clone(), context.rng.fork())))
    }
}

impl IdentitySource for DevCaSource {
    /// Needs a tokio runtime: the directory is read on its blocking threads.
    fn watch(&self) -> IdentityUpdates {
        tracing::warn!(
            dir = %self.config.dir.display(), id = %self.config.id,
            "identity comes from a development authority: anyone who can read its directory can be any workload"
        );
        let state =
            Watch { source: self.clone(), current: None, failures: 0, wait: None, watcher: self.looks.watcher() };
        unfold(state, |mut state| async move {
            let item = state.next().await;
            (item, state)
        })
    }

    fn refresh(&self) -> Looked {
        self.looks.ask()
    }
}

/// What one watcher has.
struct Watch {
    source: DevCaSource,
    current: Option<Current>,
    failures: u32,
    /// How long until the next look; `None` before the first.
    wait: Option<Duration>,
    watcher: Watcher,
}

/// The SVID in force, and when to look for another.
#[derive(Clone)]
struct Current {
    authority: Arc<[u8]>,
    not_before: SystemTime,
    renew_at: SystemTime,
}

impl Watch {
    async fn next(&mut self) -> Result<Identity, IdentityError> {
        loop {
            if let Some(wait) = self.wait {
                self.watcher.wait(wait).await;
            }
            let (source, current) = (self.source.clone(), self.current.clone());
            let looked = tokio::task::spawn_blocking(move || source.look(current.as_ref())).await;
            let looked = looked.unwrap_or_else(|_| Err(DevCaError("issuing was cut off".to_owned())));
            match looked {
                Ok(found) => {
                    self.failures = 0;
                    let issued = found.map(|(identity, current)| {
                        self.current = Some(current);
                        identity
                    });
                    self.wait = Some(self.until_next_look());
                    if let Some(identity) = issued {
                        return Ok(identity);
                    }
                }
                Err(error) => {
                    self.wait = Some(self.backoff());
                    self.failures = self.failures.saturating_add(1);
                    return Err(IdentityError { source_kind: "dev_ca", message: error.to_string() });
                }
            }
        }
    }

    /// Due is decided by the wall clock, and that at every poll: timers stand still while a laptop sleeps.
    fn until_next_look(&self) -> Duration {
        let renew_at = self.current.as_ref().map(|current| current.renew_at);
        let left = renew_at.and_then(|at| at.duration_since(self.source.clock.now()).ok()).unwrap_or_default();
        // At least a millisecond, lest a clock that stands still makes this spin.
        left.min(self.source.config.poll_interval).max(Duration::from_millis(1))
    }

    /// Exponential, with the upper half jittered.
    fn backoff(&self) -> Duration {
        let (first, last) = BACKOFF;
        let full = first.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(last);
        full.mul_f64(0.5 + 0.5 * self.source.rng.unit())
    }
}

impl DevCaSource {
    /// A new identity if one is due or the authority was replaced.
    fn look(&self, current: Option<&Current>) -> Result<Option<(Identity, Current)>, DevCaError> {
        let authority = DevCa::open_or_create(&self.config.dir, &self.config.trust_domain, self.clock.clone())?;
        let now = self.clock.now();
        let in_force = |current: &&Current| {
            current.authority == *authority.certificate() && (current.not_before..current.renew_at).contains(&now)
        };
        if current.filter(in_force).is_some() {
            return Ok(None);
        }
        let svid = authority.issue(&self.config.id, self.config.svid_ttl)?;
        let bundles = Arc::new(TrustBundleSet::of(authority.bundle()?));
        let current = Current {
            authority: authority.certificate().clone(),
            not_before: svid.not_before(),
            renew_at: self.renew_at(&svid, now),
        };
        Ok(Some((Identity { svids: vec![Arc::new(svid)], bundles }, current)))
    }

    /// Half of the remaining life, less up to 10 %, so that processes that started together do not renew together.
    fn renew_at(&self, svid: &X509Svid, now: SystemTime) -> SystemTime {
        let left = svid.not_after().duration_since(now).unwrap_or_default();
        now + left.mul_f64(0.5 - 0.05 * self.rng.unit())
    }
}
