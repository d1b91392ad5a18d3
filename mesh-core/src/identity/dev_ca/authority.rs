//! The authority itself: its key, its certificate, and what it signs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use super::{DevCaError, MAX_SVID_TTL, MIN_SVID_TTL, disk};
use crate::clock::WallClock;
use crate::identity::{SpiffeId, TrustBundle, TrustDomain, X509Svid, certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority lasts.
const VALIDITY: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How much earlier than now an SVID begins, so that clocks may differ a little. An authority begins a day earlier, so
/// that a laptop's clock may be set back.
const SKEW: Duration = Duration::from_secs(60);

/// A development certificate authority. See the [module](super) for what it is not.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use mesh_core::clock::{SystemClock, WallClock};
/// use mesh_core::identity::dev_ca::DevCa;
/// use mesh_core::identity::{PeerRole, SpiffeId, TrustBundleSet, TrustDomain, verify_svid};
///
/// let shop = TrustDomain::parse("shop.example")?;
/// let ca = DevCa::in_memory(&shop, Arc::new(SystemClock))?;
/// let svid = ca.issue(&SpiffeId::for_workload(&shop, "shop", "web")?, Duration::from_secs(3600))?;
///
/// let trust = TrustBundleSet::of(ca.bundle()?);
/// let peer = verify_svid(svid.chain(), &trust, PeerRole::Client, SystemClock.now())?;
/// assert_eq!(peer.id, *svid.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DevCa {
    trust_domain: TrustDomain,
    certificate: Arc<[u8]>,
    certificate_pem: String,
    not_after: SystemTime,
    issuer: Issuer<'static, Secret>,
    clock: Arc<dyn WallClock>,
}

impl DevCa {
    /// Opens the authority in `dir`, or makes it (and the directory) if there is none or it is about to expire.
    ///
    /// Any number of processes and threads may do this at once: all get the same authority. Blocks on the file system;
    /// call it off the async workers. Refuses a key or a directory that other users could read or replace, and the
    /// authority of another trust domain.
    pub fn open_or_create(
        dir: &Path,
        trust_domain: &TrustDomain,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, DevCaError> {
        disk::secure_directory(dir)?;
        if let Some(found) = Self::open(dir, trust_domain, clock.clone())? {
            return Ok(found);
        }
        let _lock = disk::lock(dir)?;
        // Another process may have made it while this one waited.
        if let Some(found) = Self::open(dir, trust_domain, clock.clone())? {
            return Ok(found);
        }
        let (made, pem) = Self::make(trust_domain, clock)?;
        disk::write(dir, disk::BUNDLE, made.certificate_pem.as_bytes(), disk::PUBLIC)?;
        disk::write(dir, disk::AUTHORITY, pem.as_bytes(), disk::SECRET)?;
        tracing::warn!(dir = %dir.display(), %trust_domain, "made a certificate authority for development only");
        Ok(made)
    }

    /// An authority that lives in memory alone, for tests.
    pub fn in_memory(trust_domain: &TrustDomain, clock: Arc<dyn WallClock>) -> Result<Self, DevCaError> {
        Ok(Self::make(trust_domain, clock)?.0)
    }

    /// Signs a fresh SVID that is valid for `ttl` (2 s to 24 h) from now.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration) -> Result<X509Svid, DevCaError> {
        let pem = self.issue_pem(id, ttl)?;
        X509Svid::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes())
            .map_err(|error| DevCaError(format!("the issued SVID cannot be used: {error}")))
    }

    /// Like [`issue`](Self::issue), as text.
    pub fn issue_pem(&self, id: &SpiffeId, ttl: Duration) -> Result<SvidPem, DevCaError> {
        if id.trust_domain() != self.trust_domain.as_str() || id.path().is_empty() {
            return Err(DevCaError(format!(
                "{id} is no workload of the trust domain {}, which this authority is for",
                self.trust_domain
            )));
        }
        if !(MIN_SVID_TTL..=MAX_SVID_TTL).contains(&ttl) {
            return Err(DevCaError(format!("an SVID of {ttl:?} is out of range, expected 2s to 24h")));
        }
        let now = self.clock.now();
        let mut params = params("mesh workload", now - SKEW, whole_seconds_up(now) + ttl)?;
        params.subject_alt_names = vec![uri(id.as_str())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = Secret::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto)?;
        Ok(SvidPem { certificate: certificate.pem(), key: key.pem(), bundle: self.certificate_pem.clone() })
    }

    /// Its own certificate as the trust domain's only root.
    pub fn bundle(&self) -> Result<TrustBundle, DevCaError> {
        TrustBundle::new(self.trust_domain.clone(), vec![self.certificate.clone()])
            .map_err(|error| DevCaError(error.to_string()))
    }

    /// Its own certificate, DER; tells one authority from another.
    pub fn certificate(&self) -> &Arc<[u8]> {
        &self.certificate
    }

    /// The trust domain that it names workloads in.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// `None` if there is none, or if it cannot outlive the longest SVID.
    fn open(dir: &Path, domain: &TrustDomain, clock: Arc<dyn WallClock>) -> Result<Option<Self>, DevCaError> {
        let Some(pem) = disk::read_secret(dir, disk::AUTHORITY)? else { return Ok(None) };
        let path = dir.join(disk::AUTHORITY);
        let broken = |what: String| {
            DevCaError(format!("{}: {what}; to have a new authority made, delete the file", path.display()))
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken("no certificate in it".into()))?;
        let (not_before, not_after) =
            certificate::authority(&der).map_err(|what| broken(format!("the certificate {what}")))?;
        let named = certificate::uri_names(&der).map_err(|error| broken(error.to_string()))?;
        let expected = format!("spiffe://{domain}");
        if named != [expected.as_str()] {
            return Err(DevCaError(format!(
                "{}: this is the authority of {named:?}, expected {expected}; choose another `dir`, or correct `trust_domain`",
                path.display()
            )));
        }
        let now = clock.now();
        if now < not_before {
            return Err(broken("it begins in the future; correct the clock".into()));
        }
        if not_after < now + MAX_SVID_TTL {
            return Ok(None);
        }
        let key = Secret::from_pem(&pem).map_err(|_| broken("no usable private key in it".into()))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != certificate::public_key(&der).unwrap_or_default() {
            return Err(broken("key and certificate do not belong together".into()));
        }
        let certificate_pem = certificate_text(&pem);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(crypto)?;
        let certificate = Arc::from(der.as_ref());
        Ok(Some(Self { trust_domain: domain.clone(), certificate, certificate_pem, not_after, issuer, clock }))
    }

    /// A new authority, and the text that keeps it.
    fn make(domain: &TrustDomain, clock: Arc<dyn WallClock>) -> Result<(Self, Zeroizing<String>), DevCaError> {
        let now = clock.now();
        let mut params = params("mesh development CA", now - DAY, whole_seconds_up(now) + VALIDITY)?;
        // X509-SVID 4.1: an authority may carry a SPIFFE ID, and then without a path.
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = Secret::generate()?;
        let certificate = params.self_signed(&key).map_err(crypto)?;
        let certificate_pem = certificate.pem();
        let pem = Zeroizing::new([certificate_pem.as_str(), key.pem().as_str()].concat());
        let made = Self {
            trust_domain: domain.clone(),
            certificate: Arc::from(certificate.der().as_ref()),
            certificate_pem,
            not_after: whole_seconds_up(now) + VALIDITY,
            issuer: Issuer::new(params, key),
            clock,
        };
        Ok((made, pem))
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// An SVID as the text of three files, for programs outside the mesh and for the `files` source.
pub struct SvidPem {
    /// The leaf.
    pub certificate: String,
    /// Its private key, PKCS#8; wiped when dropped.
    pub key: Zeroizing<String>,
    /// The root.
    pub bundle: String,
}

impl SvidPem {
    /// Writes `svid.pem`, `svid.key` (0600) and `bundle.pem` into `dir`, each atomically. Makes `dir` (0700) if need
    /// be, and refuses one that other users can write to.
    pub fn write(&self, dir: &Path) -> Result<(), DevCaError> {
        disk::secure_directory(dir)?;
        disk::write(dir, disk::BUNDLE, self.bundle.as_bytes(), disk::PUBLIC)?;
        disk::write(dir, "svid.key", self.key.as_bytes(), disk::SECRET)?;
        disk::write(dir, "svid.pem", self.certificate.as_bytes(), disk::PUBLIC)
    }
}

impl fmt::Debug for SvidPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SvidPem").finish_non_exhaustive()
    }
}

/// rcgen's key pair, wiped when dropped.
struct Secret(KeyPair);

impl Secret {
    fn generate() -> Result<Self, DevCaError> {
        KeyPair::generate().map(Self).map_err(crypto)
    }

    fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        // Only the section of the key: rcgen takes the first section for it.
        let at = pem.find("-----BEGIN PRIVATE KEY-----").unwrap_or(0);
        KeyPair::from_pem(pem.get(at..).unwrap_or_default()).map(Self)
    }

    fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl rcgen::PublicKeyData for Secret {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl rcgen::SigningKey for Secret {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

fn params(name: &str, from: SystemTime, until: SystemTime) -> Result<CertificateParams, DevCaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (OffsetDateTime::from(from), OffsetDateTime::from(until));
    // At most 20 bytes and positive (RFC 5280 4.1.2.2); the first byte keeps DER from padding or shortening it.
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| DevCaError("the random number generator failed".into()))?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, DevCaError> {
    text.try_into().map(SanType::URI).map_err(crypto)
}

fn certificate_text(pem: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let end = pem.find(END).map_or(0, |at| at + END.len());
    format!("{}\n", pem.get(..end).unwrap_or_default())
}

/// Certificates know whole seconds only; rounding down would cut a short SVID shorter.
fn whole_seconds_up(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0))
}

fn crypto(error: rcgen::Error) -> DevCaError {
    DevCaError(format!("a certificate cannot be made: {error}"))
}
