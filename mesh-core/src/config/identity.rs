//! `identity:` - the trust domain, and the source of certificates and roots.

use super::issue::Errors;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};
use crate::identity::TrustDomain;

/// Where this process gets its SVID and its trust bundles.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityConfig {
    /// The trust domain that this workload belongs to.
    pub trust_domain: TrustDomain,
    /// Which source, and its settings; never implied.
    pub source: PlugConfig,
}

impl IdentityConfig {
    /// The identity that `source` gives in `trust_domain`.
    pub fn new(trust_domain: TrustDomain, source: PlugConfig) -> Self {
        Self { trust_domain, source }
    }
}

impl Decode for IdentityConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (trust_domain, source) = (fields.required("trust_domain"), fields.required("source"));
        fields.finish();
        Some(Self { trust_domain: trust_domain?, source: source? })
    }
}
