//! The `dev_ca` source: takes SVIDs from the authority in a directory, again and again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{DEFAULT_SVID_TTL, DevCa, DevCaError, MAX_SVID_TTL, MIN_SVID_TTL};
use crate::clock::WallClock;
use crate::config::{Config, Errors, Fields, Node};
use crate::identity::{
    Identity, IdentityError, IdentitySource, IdentityUpdates, Looked, Looks, Renewal, SpiffeId, TrustBundleSet,
    TrustDomain, Watcher, X509Svid,
};
use crate::plugin;
use crate::rng::Rng;
use crate::stream::unfold;

/// Where the authority is, and whom it is asked to vouch for.
///
/// In YAML: `source: { dev_ca: { dir: .mesh, svid_ttl: 1h } }`. The name is the workload's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevCaConfig {
    /// The directory; made if it is missing.
    pub dir: PathBuf,
    /// Whose trust domain the authority must be.
    pub trust_domain: TrustDomain,
    /// The name in the SVIDs.
    pub id: SpiffeId,
    /// How long an SVID lasts; [`Renewal`] says when the next is taken. Default 1 h, range 2 s to
    /// 24 h. A short one rotates certificates under load: 6 s means a new one every 3 s.
    pub svid_ttl: Duration,
    /// How often the directory is looked at. A replaced authority is followed within this time.
    pub poll_interval: Duration,
}

impl DevCaConfig {
    /// SVIDs of 1 h for `id` from the authority in `dir`.
    ///
    /// The directory is looked at every 500 ms.
    pub fn new(dir: impl Into<PathBuf>, trust_domain: TrustDomain, id: SpiffeId) -> Self {
        let poll_interval = Config::POLL_INTERVAL;
        Self { dir: dir.into(), trust_domain, id, svid_ttl: DEFAULT_SVID_TTL, poll_interval }
    }
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
        if let Some(socket) = &context.workload_api {
            fields.error(format!(
                "refuses to run beside a production source of identity: SPIFFE_ENDPOINT_SOCKET is set to {socket:?}. Take identity from there, or unset it where this is a development machine"
            ));
        }
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
        let state = Watch {
            source: self.clone(),
            current: None,
            renewal: Renewal::new(self.rng.fork()),
            wait: None,
            watcher: self.looks.watcher(),
        };
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
    renewal: Renewal,
    /// How long until the next look; `None` before the first.
    wait: Option<Duration>,
    watcher: Watcher,
}

/// What was handed out last.
#[derive(Clone)]
struct Current {
    authority: Arc<[u8]>,
    svid: Arc<X509Svid>,
    bundles: Arc<TrustBundleSet>,
}

impl Watch {
    async fn next(&mut self) -> Result<Identity, IdentityError> {
        loop {
            if let Some(wait) = self.wait {
                self.watcher.wait(wait).await;
            }
            let (source, current) = (self.source.clone(), self.current.clone());
            let due = self.renewal.is_due(self.source.clock.now());
            let looked = tokio::task::spawn_blocking(move || source.look(current, due)).await;
            let looked = looked.unwrap_or_else(|_| Err(DevCaError("issuing was cut off".to_owned())));
            match looked {
                Ok(found) => {
                    let now = self.source.clock.now();
                    if let Some(Current { svid, .. }) = &found
                        && self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(&current.svid, svid))
                    {
                        self.renewal.issued(svid.not_before(), svid.not_after(), now);
                    }
                    // Due is decided by the wall clock, and that at every poll: timers stand still while a laptop
                    // sleeps.
                    self.wait = Some(self.renewal.wait(now).min(self.source.config.poll_interval));
                    if let Some(found) = found {
                        let Current { svid, bundles, .. } = self.current.insert(found);
                        return Ok(Identity { svids: vec![svid.clone()], bundles: bundles.clone() });
                    }
                }
                Err(error) => {
                    self.wait = Some(self.renewal.failed());
                    return Err(IdentityError { source_kind: "dev_ca", message: error.to_string() });
                }
            }
        }
    }
}

impl DevCaSource {
    /// A new identity if one is due, or if the authority or what it trusts has changed.
    fn look(&self, current: Option<Current>, due: bool) -> Result<Option<Current>, DevCaError> {
        let authority = DevCa::open_or_create(&self.config.dir, &self.config.trust_domain, self.clock.clone())?;
        let bundle = authority.bundle()?;
        let unchanged = |current: &Current| current.bundles.get(bundle.domain().as_str()) == Some(&bundle);
        let current = match current {
            // A leaf of an authority that has a successor now is as good as before: it is renewed in its own time.
            Some(current) if !due && bundle.authorities().contains(&current.authority) => {
                return Ok((!unchanged(&current))
                    .then(|| Current { bundles: Arc::new(TrustBundleSet::of(bundle)), ..current }));
            }
            current => current,
        };
        let svid = Arc::new(authority.issue(&self.config.id, self.config.svid_ttl)?);
        let bundles = match current.filter(unchanged) {
            Some(current) => current.bundles,
            None => Arc::new(TrustBundleSet::of(bundle)),
        };
        Ok(Some(Current { authority: authority.certificate().clone(), svid, bundles }))
    }
}
