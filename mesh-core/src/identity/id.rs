//! SPIFFE IDs and trust domains, by the grammar of go-spiffe. (SPIFFE-ID 2)

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a trust root, for example `shop.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses `[a-z0-9._-]+`, at most 255 bytes.
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        let _ = name;
        unimplemented!()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A workload's name: `spiffe://TRUST_DOMAIN/PATH`.
///
/// Cheap to clone. Equality is byte equality, as SPIFFE demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path begins, or the length of `uri` where there is none.
    path_at: usize,
}

impl SpiffeId {
    /// Parses a SPIFFE ID of at most 2,048 bytes. A path is optional here; an SVID needs one.
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        let _ = uri;
        unimplemented!()
    }

    /// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn for_workload(domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(&format!("spiffe://{}/ns/{namespace}/sa/{service_account}", domain.as_str()))
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.uri.get("spiffe://".len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash; empty where there is none.
    pub fn path(&self) -> &str {
        self.uri.get(self.path_at..).unwrap_or_default()
    }

    /// Namespace and service account, if the path is exactly `/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn workload(&self) -> Option<WorkloadPath<'_>> {
        unimplemented!()
    }
}

/// The two names in a Kubernetes-style path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadPath<'a> {
    /// After `/ns/`.
    pub namespace: &'a str,
    /// After `/sa/`.
    pub service_account: &'a str,
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;
    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(s)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;
    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(s)
    }
}

/// Why a text is no SPIFFE ID or trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// Nothing was given.
    #[error("a SPIFFE ID cannot be empty")]
    Empty,
}
