//! The surroundings in which a factory makes something.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SystemClock, WallClock};
use crate::config::{Config, Workload};
use crate::fetch::Fetch;
use crate::identity::TrustDomain;
use crate::rng::Rng;

/// What a factory may use beside its settings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// Relative paths in settings start here.
    pub base_dir: Arc<Path>,
    /// Who this process is.
    pub workload: Arc<Workload>,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Calendar time.
    pub clock: Arc<dyn WallClock>,
    /// Randomness.
    pub rng: Rng,
    /// How often watched files are compared.
    pub poll_interval: Duration,
    /// Where a SPIFFE Workload API is said to be, by `SPIFFE_ENDPOINT_SOCKET`: the sign of a production identity.
    pub workload_api: Option<String>,
    /// What fetches documents over HTTP, if a plugin brought it.
    pub fetch: Option<Arc<dyn Fetch>>,
    /// Whose keys are asked for; only for key sources.
    pub issuer: Option<Arc<str>>,
}

impl Context {
    /// What a mesh of this workload gives its factories by default.
    ///
    /// For tests of a factory of your own.
    pub fn new(workload: Workload, trust_domain: TrustDomain) -> Self {
        Self {
            base_dir: Path::new(".").into(),
            workload: Arc::new(workload),
            trust_domain,
            clock: Arc::new(SystemClock),
            rng: Rng::from_entropy(),
            poll_interval: Config::POLL_INTERVAL,
            workload_api: None,
            fetch: None,
            issuer: None,
        }
    }
}
