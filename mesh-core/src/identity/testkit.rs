//! What tests of identity sources share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::TrustDomain;
pub(crate) use super::forge::*;
use crate::clock::WallClock;
use crate::config::Workload;
use crate::plugin;
use crate::rng::Rng;

/// What a factory is given: trust domain `td`, workload `shop/web`, a poll every 2 s.
pub(crate) fn context(base_dir: &Path, clock: Arc<dyn WallClock>) -> plugin::Context {
    plugin::Context {
        base_dir: base_dir.into(),
        workload: Arc::new(Workload::new("web", "shop")),
        trust_domain: TrustDomain::parse("td").unwrap(),
        clock,
        rng: Rng::seeded(7),
        poll_interval: Duration::from_secs(2),
        workload_api: None,
        fetch: None,
        issuer: None,
    }
}
