//! Documents compiled for one workload, and Istio's order of evaluation.

use super::{AuthorizationPolicy, Decision, Explanation, Request};
use crate::config::{NoPolicy, Workload};
use crate::identity::TrustDomain;

/// What evaluation depends on beside the documents.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Policies of this namespace hold for every workload. Default `istio-system`.
    pub root_namespace: String,
    /// `cluster.local` in a principal means this domain.
    pub trust_domain: TrustDomain,
    /// The verdict where no policy selects the workload.
    pub no_policy: NoPolicy,
}

/// The policies that select one workload, compiled. Immutable; replaced as a whole on reload.
#[derive(Debug)]
pub struct PolicyEngine {
    _private: (),
}

impl PolicyEngine {
    /// Keeps the documents that select `workload` and compiles them.
    pub fn compile(documents: &[AuthorizationPolicy], workload: &Workload, options: &EngineOptions) -> Self {
        let _ = (documents, workload, options);
        unimplemented!()
    }

    /// The verdict: any DENY rule denies; else without ALLOW policies `no_policy` or allow; else any ALLOW rule.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let _ = request;
        unimplemented!()
    }

    /// The same verdict with the way to it. Slower; for people.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let _ = request;
        unimplemented!()
    }

    /// How many policies select the workload.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Whether no policy selects the workload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
