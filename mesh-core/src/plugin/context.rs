//! The surroundings in which a factory makes something.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::WallClock;
use crate::config::Workload;
use crate::identity::TrustDomain;
use crate::rng::Rng;

/// What a factory may use beside its settings.
#[derive(Debug, Clone)]
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
}
