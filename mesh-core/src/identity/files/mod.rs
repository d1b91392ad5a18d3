//! Identity from PEM files that something else renews: cert-manager, a CSI driver, `spiffe-helper`, an operator.
//!
//! Files change under the reader: certificate and key are two files, and between two writes they do not fit. So the
//! files are compared by content at every poll (watching them misses Kubernetes' symlink swaps), directories are
//! resolved once per poll, and what does not fit is an error that keeps the last good parts in force.

mod read;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::read::{Digest, Part, Reading};
use super::{
    Identity, IdentityError, IdentitySource, IdentityUpdates, Looked, Looks, TrustBundleSet, TrustDomain, Watcher,
    X509Svid,
};
use crate::clock::WallClock;
use crate::config::{Config, Errors, Fields, Node};
use crate::plugin;
use crate::stream::unfold;

/// Where the files are and how often they are compared.
///
/// In YAML: `source: { files: { certificate: svid.pem, key: svid.key, bundle: bundle.pem } }`, and `bundles:` for
/// further trust domains. `allow_development: true` takes what `mesh dev-ca issue` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesConfig {
    /// PEM certificates, leaf first, then intermediates.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM, unencrypted: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// The roots of each trust domain, PEM. That of the own trust domain must be among them.
    pub bundles: BTreeMap<TrustDomain, PathBuf>,
    /// The trust domain that the certificate must belong to.
    pub trust_domain: TrustDomain,
    /// How often the files are compared. From the configuration's `poll_interval`.
    pub poll_interval: Duration,
    /// Whether certificates of a development authority are taken. Default `false`: whoever can read that authority's
    /// directory can be any workload, so they are refused, leaf and roots alike.
    pub allow_development: bool,
}

impl FilesConfig {
    /// One certificate with its key, and the roots of its own trust domain.
    ///
    /// The files are compared every 500 ms.
    pub fn new(
        trust_domain: TrustDomain,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        bundle: impl Into<PathBuf>,
    ) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            bundles: BTreeMap::from([(trust_domain.clone(), bundle.into())]),
            trust_domain,
            poll_interval: Config::POLL_INTERVAL,
            allow_development: false,
        }
    }
}

/// The `files` source.
#[derive(Debug, Clone)]
pub struct FilesSource {
    config: Arc<FilesConfig>,
    clock: Arc<dyn WallClock>,
    looks: Looks,
}

impl FilesSource {
    /// A source that reads nothing before it is watched.
    pub fn new(config: FilesConfig, clock: Arc<dyn WallClock>) -> Self {
        Self { config: Arc::new(config), clock, looks: Looks::default() }
    }

    /// Reads the settings of `files:`.
    pub(crate) fn from_node(
        node: &Node,
        context: &plugin::Context,
        errors: &mut Errors,
    ) -> Option<Arc<dyn IdentitySource>> {
        let mut fields = Fields::of(node, errors)?;
        let certificate = fields.required::<PathBuf>("certificate");
        let key = fields.required::<PathBuf>("key");
        let bundle = fields.required::<PathBuf>("bundle");
        let further = fields.optional::<BTreeMap<String, PathBuf>>("bundles").unwrap_or_default();
        let mut bundles = BTreeMap::new();
        for (name, path) in further {
            match TrustDomain::parse(&name) {
                Ok(domain) if domain == context.trust_domain => {
                    fields
                        .error(format!("`bundles` names the own trust domain `{domain}`, whose roots are in `bundle`"));
                }
                Ok(domain) => _ = bundles.insert(domain, context.base_dir.join(path)),
                Err(error) => fields.error(format!("`bundles`: {name:?} is no trust domain: {error}")),
            }
        }
        let allow_development = fields.or("allow_development", false);
        fields.finish();
        bundles.insert(context.trust_domain.clone(), context.base_dir.join(bundle?));
        let config = FilesConfig {
            certificate: context.base_dir.join(certificate?),
            key: context.base_dir.join(key?),
            bundles,
            trust_domain: context.trust_domain.clone(),
            poll_interval: context.poll_interval,
            allow_development,
        };
        Some(Arc::new(Self::new(config, context.clock.clone())))
    }
}

impl IdentitySource for FilesSource {
    /// Needs a tokio runtime: files are read on its blocking threads.
    fn watch(&self) -> IdentityUpdates {
        let state = Watch {
            source: self.clone(),
            svid: None,
            bundles: None,
            failure: None,
            ready: VecDeque::new(),
            first: true,
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

/// What one watcher has seen.
struct Watch {
    source: FilesSource,
    svid: Option<(Digest, Arc<X509Svid>)>,
    bundles: Option<(Digest, Arc<TrustBundleSet>)>,
    /// The last thing that was wrong, so that it is said once and not at every poll.
    failure: Option<String>,
    ready: VecDeque<Result<Identity, IdentityError>>,
    first: bool,
    watcher: Watcher,
}

impl Watch {
    async fn next(&mut self) -> Result<Identity, IdentityError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            if !std::mem::take(&mut self.first) {
                self.watcher.wait(self.source.config.poll_interval).await;
            }
            let config = self.source.config.clone();
            let known = (self.svid.as_ref().map(|s| s.0), self.bundles.as_ref().map(|b| b.0));
            match tokio::task::spawn_blocking(move || read::read(&config, known.0, known.1)).await {
                Ok(reading) => self.take(reading, self.source.clock.now()),
                Err(_) => self.fail(Some("reading the files was cut off".to_owned())),
            }
        }
    }

    /// Takes over what is good, each part by itself: a torn certificate must not keep a revoked root alive.
    fn take(&mut self, reading: Reading, now: SystemTime) {
        let mut failures = Vec::new();
        let mut changed = false;
        match reading.svid {
            Part::Unchanged => {}
            Part::New(digest, svid) => {
                if svid.not_after() < now {
                    failures
                        .push(format!("the certificate in {} is expired", self.source.config.certificate.display()));
                } else {
                    self.svid = Some((digest, svid));
                    changed = true;
                }
            }
            Part::Failed(why) => failures.push(why),
        }
        match reading.bundles {
            Part::Unchanged => {}
            Part::New(digest, bundles) => {
                self.bundles = Some((digest, bundles));
                changed = true;
            }
            Part::Failed(why) => failures.push(why),
        }
        if let Some((_, svid)) = self.svid.as_ref().filter(|(_, svid)| svid.not_after() < now && failures.is_empty()) {
            failures.push(format!("the certificate of {} is expired and was not replaced", svid.id()));
        }
        let recovered = failures.is_empty() && self.failure.is_some();
        if let (Some((_, svid)), Some((_, bundles))) = (&self.svid, &self.bundles)
            && (changed || recovered)
        {
            self.ready.push_back(Ok(Identity { svids: vec![svid.clone()], bundles: bundles.clone() }));
        }
        self.fail((!failures.is_empty()).then(|| failures.join("; ")));
    }

    fn fail(&mut self, failure: Option<String>) {
        if let Some(message) = failure.as_ref().filter(|_| failure != self.failure) {
            self.ready.push_back(Err(IdentityError { source_kind: "files", message: message.clone() }));
        }
        self.failure = failure;
    }
}

#[cfg(test)]
mod tests;
