//! Certificates for tests: good ones, and bad ones by changing one thing.
//!
//! For this project's own tests, which share one table of [`Forgery`]s; no part of what is kept stable.
#![allow(clippy::unwrap_used)] // a certificate that cannot be made is a failed test
#![allow(missing_debug_implementations)] // keys

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

mod attacks;

pub use attacks::{ACCEPTED, Forgery, PARTNER, TRUST_DOMAIN, WEB, Workshop};

use super::{TrustBundle, TrustBundleSet, TrustDomain, X509Svid};

/// One hour.
pub const HOUR: Duration = Duration::from_secs(3600);

/// The time at which every certificate made here is valid for another hour.
pub fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A URI name; panics where it is no ASCII.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Any extension at all.
pub fn extension(oid: &[u64], critical: bool, der: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A leaf that keeps every rule.
pub fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, noon() - HOUR, noon() + HOUR);
    params
}

/// An authority that keeps every rule.
pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, noon() - 24 * HOUR, noon() + 24 * HOUR);
    params
}

/// Sets the validity.
pub fn valid(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    (params.not_before, params.not_after) = (OffsetDateTime::from(from), OffsetDateTime::from(until));
}

/// An issuer: a root or an intermediate, good or bad.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate, DER.
    pub der: Arc<[u8]>,
    /// The certificate, PEM.
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate, DER.
    pub der: Arc<[u8]>,
    /// The certificate, PEM.
    pub pem: String,
    /// The key of the certificate.
    pub key: KeyPair,
}

impl Ca {
    /// A root of that common name.
    pub fn root(name: &str) -> Self {
        Self::self_signed(ca_params(name))
    }

    /// A root of these parameters.
    pub fn self_signed(params: CertificateParams) -> Self {
        Self::with_key(params, KeyPair::generate().unwrap())
    }

    /// A root with this key.
    pub fn with_key(params: CertificateParams, key: KeyPair) -> Self {
        let cert = params.self_signed(&key).unwrap();
        Self { der: cert.der().as_ref().into(), pem: cert.pem(), issuer: Issuer::new(params, key) }
    }

    /// An authority below this one, whatever the parameters say.
    pub fn intermediate(&self, params: CertificateParams) -> Self {
        let Issued { der, pem, key } = self.issue(&params);
        Self { der, pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate with a fresh key.
    pub fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = self.sign(params, &key);
        Issued { der: cert.der().as_ref().into(), pem: cert.pem(), key }
    }

    /// A certificate of this key.
    pub fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// An SVID that keeps every rule; panics where `id` does not.
    pub fn svid(&self, id: &str) -> X509Svid {
        let issued = self.issue(&leaf_params(id));
        X509Svid::from_pem(issued.pem.as_bytes(), issued.key.serialize_pem().as_bytes()).unwrap()
    }

    /// This root as the bundle of `domain`.
    pub fn bundle(&self, domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::parse(domain).unwrap(), vec![self.der.clone()]).unwrap()
    }

    /// A set of that bundle alone.
    pub fn trust(&self, domain: &str) -> TrustBundleSet {
        TrustBundleSet::of(self.bundle(domain))
    }
}
