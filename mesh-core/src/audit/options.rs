//! What an audit trail is started with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::subject::SubjectMode;
use crate::clock::{SystemClock, WallClock};
use crate::config::{AuditConfig, Errors, Node};
use crate::identity::{Identity, Signer};
use crate::rng::Rng;
use crate::snapshot::Snapshot;

/// What [`Audit::start`](super::Audit::start) may be told beside the sink; the default is that of [`AuditConfig`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuditOptions {
    /// Records that may wait for the sink; at least 1.
    pub queue: usize,
    /// A head is sealed after this many records.
    pub checkpoint_records: u64,
    /// And after this time, if any record came.
    pub checkpoint_interval: Duration,
    /// What is written of token subjects.
    pub subject: SubjectMode,
    /// The key of [`SubjectMode::Hmac`]; `None`: one that this process makes and forgets.
    pub subject_key: Option<Vec<u8>>,
    /// Who signs sealed heads; `None`: the SVID in force.
    pub signer: Option<Arc<dyn Signer>>,
    /// Who this process is; `None`: nobody, and without a `signer` nothing is signed.
    pub identity: Option<Snapshot<Identity>>,
    /// Calendar time.
    pub clock: Arc<dyn WallClock>,
    /// Randomness, for ids.
    pub rng: Rng,
}

impl Default for AuditOptions {
    fn default() -> Self {
        let config = AuditConfig::default();
        Self {
            queue: config.queue,
            checkpoint_records: config.checkpoint.records,
            checkpoint_interval: config.checkpoint.interval,
            subject: config.subject.mode,
            subject_key: None,
            signer: None,
            identity: None,
            clock: Arc::new(SystemClock),
            rng: Rng::from_entropy(),
        }
    }
}

impl AuditOptions {
    /// What `config` says; reads the key files that it names.
    pub(crate) fn of(config: &AuditConfig, base: &Path, root: Option<&Node>, errors: &mut Errors) -> Self {
        let (signer, subject_key) = config.keys(base, root, errors);
        Self {
            queue: config.queue,
            checkpoint_records: config.checkpoint.records,
            checkpoint_interval: config.checkpoint.interval,
            subject: config.subject.mode,
            subject_key,
            signer: signer.map(|key| Arc::new(key) as Arc<dyn Signer>),
            ..Self::default()
        }
    }
}
