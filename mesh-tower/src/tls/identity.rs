//! The current SVID as what rustls presents and signs with.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mesh_core::clock::WallClock;
use mesh_core::identity::{Identity, SignatureScheme as Scheme, Signer, X509Svid};
use mesh_core::snapshot::Snapshot;
use mesh_core::{Mesh, Revision};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::refusal::OwnRefused;
use super::resumption::Generation;

/// What every handshake of a mesh shares: identity and time as they are now, and the algorithms.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) identity: Snapshot<Identity>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) time: Arc<MeshTime>,
    /// `None` outside of a mesh.
    pub(super) revision: Option<Snapshot<Revision>>,
    #[cfg(feature = "keylog")]
    pub(super) key_log: Arc<dyn rustls::KeyLog>,
    #[cfg(test)]
    pub(super) without: super::resumption::Without,
    presented: ArcSwapOption<Presented>,
}

/// A rustls key made of the first SVID of one identity generation.
#[derive(Debug)]
struct Presented {
    generation: u64,
    key: Arc<CertifiedKey>,
}

impl Live {
    /// The one of this mesh: keys are converted once for all listeners and clusters.
    pub(super) fn of(mesh: &Mesh) -> Arc<Self> {
        mesh.extension(|| Self {
            revision: Some(mesh.revision().clone()),
            ..Self::new(mesh.identity().clone(), Arc::clone(mesh.clock()))
        })
    }

    pub(super) fn new(identity: Snapshot<Identity>, clock: Arc<dyn WallClock>) -> Self {
        Self {
            identity,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            time: Arc::new(MeshTime(clock)),
            revision: None,
            #[cfg(feature = "keylog")]
            key_log: super::key_log::from_environment(),
            #[cfg(test)]
            without: super::resumption::Without::default(),
            presented: ArcSwapOption::empty(),
        }
    }

    /// What a session that is made now was proved under.
    pub(super) fn generation(&self) -> Generation {
        #[cfg(test)]
        if self.without.generations {
            return Generation::default();
        }
        let policy = self.revision.as_ref().map(Snapshot::generation).unwrap_or_default();
        Generation { identity: self.identity.generation(), policy }
    }

    /// Whether the SVID may be presented now. Not when it is expired: a peer would refuse it, and one whose clock is
    /// behind must not be given the chance.
    pub(super) fn presentable(&self) -> Result<(), OwnRefused> {
        let identity = self.identity.peek();
        match identity.svid().filter(|svid| svid.not_after() <= self.time.0.now()) {
            Some(expired) => Err(OwnRefused::Expired(expired.id().clone())),
            None => Ok(()),
        }
    }

    /// The current SVID, while it is valid. Handshakes that race a rotation may convert it twice, which is harmless.
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        self.presentable().ok()?;
        let identity = self.identity.load();
        if let Some(presented) = &*self.presented.load()
            && presented.generation == identity.generation()
        {
            return Some(Arc::clone(&presented.key));
        }
        let key = Arc::new(certified(identity.svid()?));
        self.presented.store(Some(Arc::new(Presented { generation: identity.generation(), key: Arc::clone(&key) })));
        Some(key)
    }
}

fn certified(svid: &X509Svid) -> CertifiedKey {
    let chain = svid.chain().iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    CertifiedKey::new(chain, Arc::new(LiveKey(Arc::clone(svid.key()))))
}

/// Presents the current SVID to whoever asks; SPIFFE has no server names.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Live>);

impl rustls::server::ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }
}

impl rustls::client::ResolvesClientCert for Resolver {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A mesh key as rustls knows keys.
#[derive(Debug)]
struct LiveKey(Arc<dyn Signer>);

impl rustls::sign::SigningKey for LiveKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let fits = |scheme: &&Scheme| offered.iter().any(|offer| u16::from(*offer) == scheme.0);
        let scheme = *self.0.schemes().iter().find(fits)?;
        Some(Box::new(LiveSigner { key: Arc::clone(&self.0), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.0.public_key()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.schemes().first().copied() {
            Some(Scheme::ED25519) => SignatureAlgorithm::ED25519,
            Some(Scheme::RSA_PSS_SHA256) => SignatureAlgorithm::RSA,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

#[derive(Debug)]
struct LiveSigner {
    key: Arc<dyn Signer>,
    scheme: Scheme,
}

impl rustls::sign::Signer for LiveSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(self.scheme, message).map_err(|error| rustls::Error::Other(rustls::OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::from(self.scheme.0)
    }
}

/// Calendar time as rustls asks for it.
#[derive(Debug)]
pub(crate) struct MeshTime(pub(crate) Arc<dyn WallClock>);

impl rustls::time_provider::TimeProvider for MeshTime {
    fn current_time(&self) -> Option<UnixTime> {
        // A clock before 1970 has no answer, which fails the handshake.
        let since_epoch = self.0.now().duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}
