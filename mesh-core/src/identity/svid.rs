//! A workload's own certificate chain with its key.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::certificate::{self, Leaf};
use super::verify::check_size;
use super::{PrivateKey, Signer, SpiffeId, SvidError};

/// An X.509-SVID: leaf first, then intermediates, and the key of the leaf.
#[derive(Debug, Clone)]
pub struct X509Svid {
    id: SpiffeId,
    chain: Vec<Arc<[u8]>>,
    key: Arc<dyn Signer>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
}

impl X509Svid {
    /// Checks that the leaf is an SVID and that `key` belongs to it.
    ///
    /// An SVID keeps the leaf rules and has one URI SAN.
    ///
    /// Whether anybody vouches for it, and whether it is valid now, is for the peer to judge.
    pub fn new(chain: Vec<Arc<[u8]>>, key: Arc<dyn Signer>) -> Result<Self, SvidError> {
        let first = check_size(&chain)?;
        let Leaf { id, not_before, not_after, serial, public_key } = certificate::leaf(first.as_ref())?;
        if key.public_key() != public_key {
            return Err(SvidError::KeyMismatch);
        }
        Ok(Self { id, chain, key, not_before, not_after, serial })
    }

    /// Reads a chain, leaf first, and its private key. See [`PrivateKey::from_pem`] for the formats.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let certificates = CertificateDer::pem_slice_iter(chain).map(|section| match section {
            Ok(der) => Ok(Arc::from(der.as_ref())),
            Err(_) => Err(SvidError::Malformed("the PEM text of the chain cannot be read")),
        });
        let chain = certificates.collect::<Result<Vec<Arc<[u8]>>, _>>()?;
        Self::new(chain, Arc::new(PrivateKey::from_pem(key)?))
    }

    /// The name in the leaf.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// DER certificates, leaf first.
    pub fn chain(&self) -> &[Arc<[u8]>] {
        &self.chain
    }

    /// The leaf's key.
    pub fn key(&self) -> &Arc<dyn Signer> {
        &self.key
    }

    /// When it begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it ends to be valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf's serial number in lower-case hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}
