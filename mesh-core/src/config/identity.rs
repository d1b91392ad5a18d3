//! `identity:` - the trust domain, and the source of certificates and roots.

use super::PlugConfig;
use crate::identity::TrustDomain;

/// Where this process gets its SVID and its trust bundles.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityConfig {
    /// The trust domain that this workload belongs to.
    pub trust_domain: TrustDomain,
    /// Which source, and its settings; never implied.
    pub source: PlugConfig,
}
