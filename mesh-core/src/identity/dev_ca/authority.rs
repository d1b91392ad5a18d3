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
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use super::store::{Entry, OVERLAP, Store};
use super::{DevCaError, MAX_SVID_TTL, MIN_SVID_TTL, SPREAD, disk};
use crate::clock::WallClock;
use crate::identity::{SpiffeId, TrustBundle, TrustDomain, X509Svid, certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority lasts.
const VALIDITY: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How long before its end an authority gets a successor: what it signs then still ends before it does.
const RENEW_BEFORE: Duration = Duration::from_secs(2 * DAY.as_secs());
/// Old roots that are trusted at once. Each costs every failing handshake a signature check.
const MAX_RETIRED: usize = 16;
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
    store: Store,
    issuer: Issuer<'static, Secret>,
    clock: Arc<dyn WallClock>,
}

/// What [`DevCa::rotate`] began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// When the new root begins to sign; until then it is only trusted.
    pub signs_from: SystemTime,
    /// Until when the old root is trusted.
    pub old_until: SystemTime,
}

impl DevCa {
    /// Opens the authority in `dir`, or makes it (and the directory) if there is none.
    ///
    /// One that nears its end is given a successor, as [`rotate`](Self::rotate) does. Any number of processes and
    /// threads may do this at once: all get the same authority. Blocks on the file system; call it off the async
    /// workers. Refuses a key or a directory that other users could read or replace, and the authority of another
    /// trust domain.
    pub fn open_or_create(
        dir: &Path,
        trust_domain: &TrustDomain,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, DevCaError> {
        disk::secure_directory(dir)?;
        let now = clock.now();
        if let Some(Found { store, written: true }) = read(dir, trust_domain, now)?
            && store.signs.not_after >= now + RENEW_BEFORE
        {
            return Self::over(trust_domain, store, clock);
        }
        let _lock = disk::lock(dir)?;
        // Another process may have been here while this one waited.
        let store = match read(dir, trust_domain, now)? {
            Some(Found { store, written })
                if store.signs.not_after >= now + RENEW_BEFORE || store.successor.is_some() =>
            {
                if !written {
                    write(dir, &store)?;
                }
                store
            }
            Some(Found { store, .. }) if store.signs.not_after > now + SPREAD + MIN_SVID_TTL => {
                let store = succeeded(store, trust_domain, now, SPREAD)?;
                write(dir, &store)?;
                tracing::warn!(dir = %dir.display(), %trust_domain, "the development authority nears its end; a successor takes over");
                store
            }
            // None, or one that has ended together with all that it signed.
            _ => {
                let store = Store::of(make(trust_domain, now)?);
                write(dir, &store)?;
                tracing::warn!(dir = %dir.display(), %trust_domain, "made a certificate authority for development only");
                store
            }
        };
        Self::over(trust_domain, store, clock)
    }

    /// Gives the authority in `dir` a successor, for all processes that use the directory.
    ///
    /// The new root is trusted at once and signs after `spread` ([`SPREAD`](super::SPREAD) unless in a hurry): every
    /// process must have looked at the directory by then, which it does at its `poll_interval`. The old root stays
    /// trusted until all that it signed has ended, 24 h after. An authority that has a successor already is refused.
    ///
    /// To distrust a root at once, because its key was seen by others, delete `ca.pem` instead.
    pub fn rotate(
        dir: &Path,
        trust_domain: &TrustDomain,
        clock: Arc<dyn WallClock>,
        spread: Duration,
    ) -> Result<Rotation, DevCaError> {
        Self::open_or_create(dir, trust_domain, clock.clone())?;
        let _lock = disk::lock(dir)?;
        let now = clock.now();
        let Found { store, .. } = read(dir, trust_domain, now)?
            .ok_or_else(|| DevCaError(format!("{}: the authority is gone", dir.display())))?;
        if store.successor.is_some() {
            let what = "a successor waits to take over already; rotate again when it signs";
            return Err(DevCaError(format!("{}: {what}", dir.display())));
        }
        if store.retired.len() >= MAX_RETIRED {
            let what = format!("{MAX_RETIRED} old roots are still trusted, each for 24 h; wait for the oldest to go");
            return Err(DevCaError(format!("{}: {what}", dir.display())));
        }
        let store = succeeded(store, trust_domain, now, spread)?;
        write(dir, &store)?;
        let signs_from = store.successor.as_ref().map_or(now, |(_, from)| *from);
        Ok(Rotation { signs_from, old_until: signs_from + OVERLAP })
    }

    /// An authority that lives in memory alone, for tests.
    pub fn in_memory(trust_domain: &TrustDomain, clock: Arc<dyn WallClock>) -> Result<Self, DevCaError> {
        let store = Store::of(make(trust_domain, clock.now())?);
        Self::over(trust_domain, store, clock)
    }

    /// Signs a fresh SVID that is valid for `ttl` from now.
    ///
    /// Range 2 s to 24 h.
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
        // Nothing outlives the root that vouches for it.
        let until = (whole_seconds_up(now) + ttl).min(self.store.signs.not_after);
        let mut params = params("mesh workload", now - SKEW, until)?;
        params.subject_alt_names = vec![uri(id.as_str())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = Secret::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto)?;
        Ok(SvidPem { certificate: certificate.pem(), key: key.pem(), bundle: self.store.bundle() })
    }

    /// What is trusted now.
    ///
    /// The root that signs, its successor, and old roots until all that they signed has ended.
    pub fn bundle(&self) -> Result<TrustBundle, DevCaError> {
        TrustBundle::new(self.trust_domain.clone(), self.store.roots()).map_err(|error| DevCaError(error.to_string()))
    }

    /// The root that signs, DER; tells one authority from another.
    pub fn certificate(&self) -> &Arc<[u8]> {
        &self.store.signs.der
    }

    /// The trust domain that it names workloads in.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    fn over(domain: &TrustDomain, store: Store, clock: Arc<dyn WallClock>) -> Result<Self, DevCaError> {
        let key = Secret::from_pem(&store.signs.key).map_err(crypto)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(store.signs.der.as_ref()), key).map_err(crypto)?;
        Ok(Self { trust_domain: domain.clone(), store, issuer, clock })
    }
}

/// What holds at `now`, and whether the files say so: time itself changes who signs and who is trusted.
struct Found {
    store: Store,
    written: bool,
}

/// What is in `dir` at `now`, checked; `None` if there is nothing.
fn read(dir: &Path, domain: &TrustDomain, now: SystemTime) -> Result<Option<Found>, DevCaError> {
    let Some(text) = disk::read_secret(dir, disk::AUTHORITY)? else { return Ok(None) };
    let path = dir.join(disk::AUTHORITY);
    let broken =
        |what: &str| DevCaError(format!("{}: {what}; to have a new authority made, delete the file", path.display()));
    let store = Store::parse(&text).map_err(|what| broken(&what))?;
    let expected = format!("spiffe://{domain}");
    for der in store.roots() {
        let named = certificate::uri_names(&der).map_err(|error| broken(&error.to_string()))?;
        if named != [expected.as_str()] {
            return Err(DevCaError(format!(
                "{}: this is the authority of {named:?}, expected {expected}; choose another `dir`, or correct `trust_domain`",
                path.display()
            )));
        }
    }
    for entry in std::iter::once(&store.signs).chain(store.successor.iter().map(|(entry, _)| entry)) {
        if now < entry.not_before {
            return Err(broken("it begins in the future; correct the clock"));
        }
        let key = Secret::from_pem(&entry.key).map_err(|_| broken("no usable private key in it"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key)
            != certificate::public_key(&entry.der).unwrap_or_default()
        {
            return Err(broken("key and certificate do not belong together"));
        }
    }
    let store = store.at(now);
    let written = *store.text() == *text;
    Ok(Some(Found { store, written }))
}

/// The bundle first: it is for programs outside of the mesh, and they must know a root before it signs.
fn write(dir: &Path, store: &Store) -> Result<(), DevCaError> {
    disk::write(dir, disk::BUNDLE, store.bundle().as_bytes(), disk::PUBLIC)?;
    disk::write(dir, disk::AUTHORITY, store.text().as_bytes(), disk::SECRET)
}

/// `store` with a new root that takes over after `spread`.
fn succeeded(mut store: Store, domain: &TrustDomain, now: SystemTime, spread: Duration) -> Result<Store, DevCaError> {
    store.successor = Some((make(domain, now)?, whole_seconds_up(now) + spread));
    Ok(store)
}

/// A new root.
fn make(domain: &TrustDomain, now: SystemTime) -> Result<Entry, DevCaError> {
    let (not_before, not_after) = (now - DAY, whole_seconds_up(now) + VALIDITY);
    let mut params = params("mesh development CA", not_before, not_after)?;
    // X509-SVID 4.1: an authority may carry a SPIFFE ID, and then without a path.
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = Secret::generate()?;
    let certificate = params.self_signed(&key).map_err(crypto)?;
    Ok(Entry {
        der: Arc::from(certificate.der().as_ref()),
        certificate: certificate.pem(),
        key: key.pem(),
        not_before,
        not_after,
    })
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.store.signs.not_after)
            .finish_non_exhaustive()
    }
}

/// An SVID as the text of three files.
///
/// For programs outside the mesh and for the `files` source.
pub struct SvidPem {
    /// The leaf.
    pub certificate: String,
    /// Its private key, PKCS#8; wiped when dropped.
    pub key: Zeroizing<String>,
    /// The root.
    pub bundle: String,
}

impl SvidPem {
    /// Writes `svid.pem`, `svid.key` (0600) and `bundle.pem` into `dir`, each atomically.
    ///
    /// Makes `dir` (0700) if need be, and refuses one that other users can write to.
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
        KeyPair::from_pem(pem).map(Self)
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
    params.distinguished_name.push(DnType::OrganizationName, certificate::DEVELOPMENT);
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

/// Certificates know whole seconds only; rounding down would cut a short SVID shorter.
fn whole_seconds_up(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0))
}

fn crypto(error: rcgen::Error) -> DevCaError {
    DevCaError(format!("a certificate cannot be made: {error}"))
}
