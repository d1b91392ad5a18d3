//! Certificates for tests: good ones, and bad ones by changing one thing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::{TrustBundle, TrustBundleSet, TrustDomain, X509Svid};
use crate::clock::WallClock;
use crate::config::Workload;
use crate::plugin;
use crate::rng::Rng;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The time at which every certificate made here is valid for another hour.
pub(crate) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn extension(oid: &[u64], critical: bool, der: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
    extension.set_criticality(critical);
    extension
}

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
    }
}

/// A leaf that keeps every rule.
pub(crate) fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, noon() - HOUR, noon() + HOUR);
    params
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, noon() - 24 * HOUR, noon() + 24 * HOUR);
    params
}

pub(crate) fn valid(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    (params.not_before, params.not_after) = (OffsetDateTime::from(from), OffsetDateTime::from(until));
}

/// An issuer: a root or an intermediate, good or bad.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Arc<[u8]>,
    pub(crate) pem: String,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) der: Arc<[u8]>,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        Self::self_signed(ca_params(name))
    }

    pub(crate) fn self_signed(params: CertificateParams) -> Self {
        Self::with_key(params, KeyPair::generate().unwrap())
    }

    pub(crate) fn with_key(params: CertificateParams, key: KeyPair) -> Self {
        let cert = params.self_signed(&key).unwrap();
        Self { der: cert.der().as_ref().into(), pem: cert.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        let Issued { der, pem, key } = self.issue(&params);
        Self { der, pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = self.sign(params, &key);
        Issued { der: cert.der().as_ref().into(), pem: cert.pem(), key }
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).unwrap()
    }

    pub(crate) fn svid(&self, id: &str) -> X509Svid {
        let issued = self.issue(&leaf_params(id));
        X509Svid::from_pem(issued.pem.as_bytes(), issued.key.serialize_pem().as_bytes()).unwrap()
    }

    pub(crate) fn bundle(&self, domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::parse(domain).unwrap(), vec![self.der.clone()]).unwrap()
    }

    pub(crate) fn trust(&self, domain: &str) -> TrustBundleSet {
        TrustBundleSet::of(self.bundle(domain))
    }
}
