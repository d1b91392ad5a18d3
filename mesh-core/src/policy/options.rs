//! How policies are evaluated.

use super::Mode;
use crate::config::{Config, NoPolicy};
use crate::identity::TrustDomain;

/// What evaluation depends on beside the documents.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Policies of this namespace hold for every workload. Default `istio-system`.
    pub root_namespace: String,
    /// `cluster.local` in a principal means this domain.
    pub trust_domain: TrustDomain,
    /// Other names of the trust domain: a principal or trust domain that names one of them means all. Default none.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Whose reading of the documents holds. Default strict.
    pub mode: Mode,
    /// The verdict where no policy selects the workload. Default deny.
    pub no_policy: NoPolicy,
}

impl EngineOptions {
    /// Istio's defaults, except that a workload that no policy selects denies.
    ///
    /// Every field may be set after.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            root_namespace: Config::ROOT_NAMESPACE.to_owned(),
            trust_domain,
            trust_domain_aliases: Vec::new(),
            mode: Mode::Strict,
            no_policy: NoPolicy::Deny,
        }
    }

    /// As a configuration says.
    pub fn of(config: &Config) -> Self {
        Self {
            root_namespace: config.root_namespace.clone(),
            trust_domain: config.identity.trust_domain.clone(),
            trust_domain_aliases: config.trust_domain_aliases.clone(),
            mode: config.policy_mode,
            no_policy: config.no_policy,
        }
    }
}
