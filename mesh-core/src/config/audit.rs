//! `audit:` and `telemetry:` - where records and spans go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::route::RouteMatch;
use super::walk::Fields;
use super::yaml::Decode;
use super::{Node, PlugConfig};
use crate::audit::SubjectMode;
use crate::identity::PrivateKey;

/// Where audit records go, and who vouches for them.
///
/// And which requests must not go on without.
///
/// ```yaml
/// audit:
///   sink: { file: { path: audit.jsonl, sync: true } }
///   sign: { key: audit-key.pem }
///   subject: { mode: hmac, key: subjects.key }
///   routes:
///     - { match: { method: POST, path: "/charges/*" }, mode: required }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditConfig {
    /// `{ log: {} }`, `{ stdout: {} }`, `{ file: { path: audit.jsonl, sync: false } }`, or a registered kind. Default:
    /// `log`.
    pub sink: Option<PlugConfig>,
    /// Records that may wait for the sink; beyond it they are dropped and counted. Default 4,096, range 16 to
    /// 1,000,000.
    pub queue: usize,
    /// The private key that signs the heads of the chain, PEM; `sign: { key: FILE }`. Default: the SVID's key, with its
    /// certificates in the record.
    pub sign_key: Option<PathBuf>,
    /// When the head of the chain is signed.
    pub checkpoint: CheckpointConfig,
    /// What is written of token subjects.
    pub subject: SubjectConfig,
    /// Which requests must not go on before their record is written. The first that matches counts; default: none. Every
    /// reading of a path is asked for, and HEAD as GET too: one that is `required` is enough.
    pub routes: Vec<AuditRoute>,
    /// How long such a request waits for its record before it is refused with 503 / UNAVAILABLE, reason
    /// `audit_unavailable`. Default 500 ms, range 10 ms to 10 s.
    pub required_timeout: Duration,
}

/// When the head of the chain is signed.
///
/// By what comes first, and when the process starts and stops.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CheckpointConfig {
    /// After this many records. Default 10,000, range 1 to 1,000,000. Each costs a signature and about 2 KiB with the
    /// certificates of an SVID.
    pub records: u64,
    /// After this time, if any record came. Default 60 s, range 1 s to 1 h.
    pub interval: Duration,
}

/// What is written of `sub` and of the subjects in `act`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct SubjectConfig {
    /// `hmac` (default), `plain` or `off`.
    pub mode: SubjectMode,
    /// A file of 16 bytes or more, the key of `hmac`. Default: a key that the process makes at its start and forgets, so
    /// that subjects compare only within one run of it.
    pub key: Option<PathBuf>,
}

/// Whether some requests need their record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditRoute {
    /// Which requests; the default matches all.
    pub matches: RouteMatch,
    /// Whether their handler waits for the record.
    pub mode: AuditMode,
}

impl AuditRoute {
    /// These requests, in this mode.
    pub fn new(matches: RouteMatch, mode: AuditMode) -> Self {
        Self { matches, mode }
    }
}

/// What happens to a request whose record cannot be written. (NIST SP 800-53 AU-5)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AuditMode {
    /// It goes on; the loss is counted and leaves an `audit.gap`.
    #[default]
    BestEffort,
    /// It is refused before its handler runs.
    Required,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            sink: None,
            queue: 4096,
            sign_key: None,
            checkpoint: CheckpointConfig::default(),
            subject: SubjectConfig::default(),
            routes: Vec::new(),
            required_timeout: Duration::from_millis(500),
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { records: 10_000, interval: Duration::from_secs(60) }
    }
}

/// Where spans go. Default: nowhere but the process's own `tracing` subscriber.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// `{ otlp: { endpoint: "http://127.0.0.1:4318" } }`; needs a registered exporter.
    pub exporter: Option<PlugConfig>,
}

impl Decode for AuditConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let audit = Self {
            sink: fields.optional("sink"),
            queue: fields.or("queue", default.queue),
            sign_key: fields.optional::<Sign>("sign").map(|sign| sign.0),
            checkpoint: fields.or("checkpoint", default.checkpoint),
            subject: fields.or("subject", default.subject),
            routes: fields.or("routes", default.routes),
            required_timeout: fields.or("required_timeout", default.required_timeout),
        };
        fields.finish();
        Some(audit)
    }
}

struct Sign(PathBuf);

impl Decode for Sign {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let key = fields.required("key");
        fields.finish();
        key.map(Self)
    }
}

impl Decode for CheckpointConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let checkpoint =
            Self { records: fields.or("records", default.records), interval: fields.or("interval", default.interval) };
        fields.finish();
        Some(checkpoint)
    }
}

impl Decode for SubjectConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let subject = Self { mode: fields.or("mode", SubjectMode::default()), key: fields.optional("key") };
        fields.finish();
        Some(subject)
    }
}

impl Decode for SubjectMode {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("hmac", Self::Hmac), ("plain", Self::Plain), ("off", Self::Off)], errors)
    }
}

impl Decode for AuditRoute {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (matches, mode) = (fields.optional("match"), fields.required("mode"));
        fields.finish();
        Some(Self { matches: matches.unwrap_or_default(), mode: mode? })
    }
}

impl Decode for AuditMode {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("best_effort", Self::BestEffort), ("required", Self::Required)], errors)
    }
}

impl AuditConfig {
    /// What happens to a request that cannot be recorded.
    pub fn mode(&self, method: &str, path: &str) -> AuditMode {
        let found = self.routes.iter().find(|route| route.matches.matches(method, path));
        found.map(|route| route.mode).unwrap_or_default()
    }

    pub(super) fn check(&self, at: &mut Checker<'_>) {
        at.range("queue", self.queue, 16..=1_000_000);
        at.range("required_timeout", self.required_timeout, Duration::from_millis(10)..=Duration::from_secs(10));
        at.below("checkpoint", |at| {
            at.range("records", self.checkpoint.records, 1..=1_000_000);
            at.range("interval", self.checkpoint.interval, Duration::from_secs(1)..=Duration::from_secs(3600));
        });
        if self.subject.key.is_some() && self.subject.mode != SubjectMode::Hmac {
            at.error("subject.key", "a key is of use only with `mode: hmac`");
        }
    }

    /// The key that signs and the key of subjects, read from their files. What is wrong with them is noted.
    pub(crate) fn keys(
        &self,
        base: &Path,
        root: Option<&Node>,
        errors: &mut Errors,
    ) -> (Option<PrivateKey>, Option<Vec<u8>>) {
        let at = &mut Checker::new(root, false, errors);
        let read = |path: &PathBuf| {
            let path = base.join(path);
            std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let signer = self
            .sign_key
            .as_ref()
            .map(|path| read(path).and_then(|pem| PrivateKey::from_pem(&pem).map_err(|error| error.to_string())));
        let subject = self.subject.key.as_ref().map(|path| match read(path)? {
            key if key.len() < 16 => Err(format!("{}: expected 16 bytes or more", path.display())),
            key => Ok(key),
        });
        let mut noted = |field: &str, message: String| at.error(field, message);
        (
            signer.and_then(|key| key.map_err(|message| noted("audit.sign.key", message)).ok()),
            subject.and_then(|key| key.map_err(|message| noted("audit.subject.key", message)).ok()),
        )
    }
}

impl Decode for TelemetryConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let telemetry = Self { exporter: fields.optional("exporter") };
        fields.finish();
        Some(telemetry)
    }
}
