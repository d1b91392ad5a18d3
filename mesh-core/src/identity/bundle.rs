//! The roots of trust, kept apart by trust domain.
//!
//! An authority vouches only for names in its own trust domain. Pooled roots would let the authority of a partner name
//! our workloads, so nothing here can be asked for "all roots".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::{TrustDomain, certificate};

/// More would make one failing handshake expensive: each root of the same name costs a signature check.
const MAX_AUTHORITIES: usize = 64;

/// The certificate authorities of one trust domain.
///
/// Every one of them was checked to be an authority. Whether it is valid *now* is judged when it is used: an expired
/// root does not vouch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    domain: TrustDomain,
    authorities: Vec<Arc<[u8]>>,
    validity: Vec<(SystemTime, SystemTime)>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// Checks that each authority (DER) may sign certificates. A bundle without authorities vouches for nobody.
    pub fn new(domain: TrustDomain, authorities: Vec<Arc<[u8]>>) -> Result<Self, BundleError> {
        if authorities.len() > MAX_AUTHORITIES {
            let problem =
                format!("{} certificates are too many, at most {MAX_AUTHORITIES} are allowed", authorities.len());
            return Err(BundleError { domain, position: None, problem });
        }
        let (mut validity, mut anchors) = (Vec::new(), Vec::new());
        for (index, der) in authorities.iter().enumerate() {
            let judged = certificate::authority(der).and_then(|validity| {
                let cert = CertificateDer::from(der.as_ref());
                let anchor = webpki::anchor_from_trusted_cert(&cert).map_err(|_| "cannot be used as a trust anchor")?;
                Ok((validity, anchor.to_owned()))
            });
            match judged {
                Ok((span, anchor)) => {
                    validity.push(span);
                    anchors.push(anchor);
                }
                Err(problem) => {
                    return Err(BundleError { domain, position: Some(index + 1), problem: problem.to_owned() });
                }
            }
        }
        Ok(Self { domain, authorities, validity, anchors })
    }

    /// Reads every certificate in a PEM text.
    ///
    /// At least one, and nothing that is no certificate.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let mut authorities = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let position = Some(authorities.len() + 1);
            match section {
                Ok((SectionKind::Certificate, der)) => authorities.push(Arc::from(der)),
                Ok((kind, _)) => {
                    let problem = format!("is a {kind:?}; a bundle holds nothing but certificates");
                    return Err(BundleError { domain, position, problem });
                }
                Err(error) => {
                    let problem = format!("is no readable PEM: {}", unreadable(&error));
                    return Err(BundleError { domain, position, problem });
                }
            }
        }
        if authorities.is_empty() {
            let problem = "no certificate in the PEM text; expected at least one `BEGIN CERTIFICATE`".to_owned();
            return Err(BundleError { domain, position: None, problem });
        }
        Self::new(domain, authorities)
    }

    /// Whose authorities these are.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The authorities' certificates, as DER.
    pub fn authorities(&self) -> &[Arc<[u8]>] {
        &self.authorities
    }

    /// The anchors that may vouch at `now`.
    pub(super) fn anchors_at(&self, now: SystemTime) -> Vec<TrustAnchor<'_>> {
        let valid = |(not_before, not_after): &(SystemTime, SystemTime)| *not_before <= now && now <= *not_after;
        self.anchors
            .iter()
            .zip(&self.validity)
            .filter(|(_, span)| valid(span))
            .map(|(anchor, _)| borrow(anchor))
            .collect()
    }

    /// When `anchor` ends to vouch. Two certificates of one name and key are one anchor, which ends with the later one.
    pub(super) fn end_of(&self, anchor: &TrustAnchor<'_>) -> Option<SystemTime> {
        let same = self.anchors.iter().zip(&self.validity).filter(|(ours, _)| *ours == anchor);
        same.map(|(_, (_, not_after))| *not_after).max()
    }
}

/// In few words and without the text itself, which may be long, or a key in the wrong file.
fn unreadable(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no `-----END` line",
        pem::Error::IllegalSectionStart { .. } => "a line that begins with `-----BEGIN` does not end with `-----`",
        pem::Error::Base64Decode(_) => "a section is no base64",
        _ => "a section cannot be read",
    }
}

/// A copy of the references, not of the bytes.
fn borrow<'a>(anchor: &'a TrustAnchor<'static>) -> TrustAnchor<'a> {
    TrustAnchor {
        subject: anchor.subject.as_ref().into(),
        subject_public_key_info: anchor.subject_public_key_info.as_ref().into(),
        name_constraints: anchor.name_constraints.as_ref().map(|constraints| constraints.as_ref().into()),
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trust bundle of {domain}{}: {problem}", .position.map(|n| format!(", certificate {n}")).unwrap_or_default())]
pub struct BundleError {
    /// Whose bundle.
    pub domain: TrustDomain,
    /// Which certificate, counted from 1; `None` where the whole is at fault.
    pub position: Option<usize>,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// Bundles by trust domain; never pooled. (SPIFFE Federation 4.2)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustBundleSet {
    bundles: BTreeMap<String, TrustBundle>,
}

impl TrustBundleSet {
    /// A set of one.
    pub fn of(bundle: TrustBundle) -> Self {
        let mut set = Self::default();
        set.insert(bundle);
        set
    }

    /// Adds a bundle, or replaces that of the same domain.
    pub fn insert(&mut self, bundle: TrustBundle) {
        self.bundles.insert(bundle.domain.as_str().to_owned(), bundle);
    }

    /// The bundle that judges SVIDs of this trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<&TrustBundle> {
        self.bundles.get(trust_domain)
    }

    /// Every bundle, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.bundles.values()
    }
}
