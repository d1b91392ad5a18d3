//! A workload's own certificate chain with its key.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Signer, SpiffeId, SvidError};

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
    /// Checks that the leaf is an SVID (leaf rules, one URI SAN) and that `key` belongs to it.
    pub fn new(chain: Vec<Arc<[u8]>>, key: Arc<dyn Signer>) -> Result<Self, SvidError> {
        let _ = (chain, key);
        unimplemented!()
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
