//! What an audit record says. Never tokens, queries or bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::subject::{SubjectMode, Subjects};
use crate::token::VerifiedToken;

/// The most actors of a token's `act` that a record names, outermost first.
const MAX_ACTORS: usize = 8;

/// The end of a decided request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// Policy let it in.
    Allow,
    /// Identity, token or policy kept it out.
    Deny,
    /// It was no acceptable request (ambiguous path, too large, shed, too late), or its caller left before a decision.
    Reject,
}

impl AuditOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

/// What is known of a connection, made once for all of its requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AuditOrigin {
    /// SHA-256 of the peer's certificate.
    pub peer_sha256: Option<[u8; 32]>,
    /// `1.2` or `1.3`; absent in plain text.
    pub tls_version: Option<&'static str>,
    /// The group of the key exchange, for example `X25519MLKEM768`.
    pub tls_group: Option<&'static str>,
    /// Whether a session was resumed.
    pub tls_resumed: Option<bool>,
    /// The server name that the peer asked for.
    pub sni: Option<Box<str>>,
}

/// One decided request.
///
/// The names of the fields are those of the JSON line; see [`AuditLine`](super::AuditLine).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When it was decided.
    pub time: SystemTime,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// A stable code: [`crate::policy::Reason`], [`crate::token::TokenError::reason`], or a stage's own.
    pub reason: &'static str,
    /// The HTTP status that was sent. 0, and absent in the line, where the record had to be written before the handler
    /// ran: an event `request.end` then has it.
    pub status: u16,
    /// The gRPC status that was sent, for gRPC.
    pub grpc_status: Option<u8>,
    /// The peer's SPIFFE ID.
    pub peer: Option<Arc<str>>,
    /// The serial number of the peer's certificate.
    pub peer_serial: Option<Arc<str>>,
    /// Where it connected from.
    pub peer_address: Option<SocketAddr>,
    /// Its certificate and its TLS.
    pub origin: Option<Arc<AuditOrigin>>,
    /// Whom the peer, a pinned gateway, named as its client.
    pub forwarded: Option<Arc<str>>,
    /// `iss` of the verified token.
    pub token_issuer: Option<Arc<str>>,
    /// `sub` of the verified token, with [`SubjectMode::Plain`].
    pub token_subject: Option<Arc<str>>,
    /// HMAC-SHA-256 of it in hex, with [`SubjectMode::Hmac`].
    pub token_subject_hmac: Option<Arc<str>>,
    /// `azp` of the verified token: to whom it was issued.
    pub azp: Option<String>,
    /// Who acts for the subject, by `act` of the token, the present actor first; 8 at most. As the subject: plain or
    /// HMAC. (RFC 8693 4.1)
    pub actors: Vec<String>,
    /// SHA-256 of the token's `jti`, in hex.
    pub jti_sha256: Option<String>,
    /// Our own SPIFFE ID.
    ///
    /// Where it is absent, the writer adds that of the SVID in force.
    pub service: Option<Arc<str>>,
    /// The method.
    pub method: String,
    /// The canonical host.
    pub host: String,
    /// The canonical path, without query.
    pub path: String,
    /// SHA-256 in hex of the path as it came, without query, where it has no canonical form.
    pub raw_path_sha256: Option<String>,
    /// The matched route, where known.
    pub route: Option<Arc<str>>,
    /// `NAMESPACE/NAME` of the deciding policy.
    pub policy: Option<Arc<str>>,
    /// 0-based index of the deciding rule.
    pub rule: Option<u32>,
    /// `NAMESPACE/NAME` of the AUDIT policies that matched.
    pub audit_policies: Vec<Arc<str>>,
    /// `allow` or `deny`: what would have been decided with the policies under trial, where one selects the workload.
    pub dry_run: Option<&'static str>,
    /// `NAMESPACE/NAME` of the first policy under trial that matched.
    pub dry_run_policy: Option<Arc<str>>,
    /// The digest of the set of policies that decided, where that is known.
    pub policy_digest: Option<Arc<str>>,
    /// The generation of configuration and policy it was decided under.
    pub generation: u64,
    /// The caller's `x-request-id`, where it is 1 to 128 letters, digits and `-_.:/+=`.
    pub request_id: Option<String>,
    /// W3C trace id in lower-case hex.
    pub trace_id: Option<String>,
    /// W3C span id in lower-case hex.
    pub span_id: Option<String>,
    /// Taken apart by the writer, off the request path.
    pub(super) token: Option<Arc<VerifiedToken>>,
    /// Given by [`Audit::record`](super::Audit::record).
    pub(super) id: Uuid,
    /// Given by the writer.
    pub(super) seq: u64,
}

impl AuditRecord {
    /// The version of the JSON line.
    ///
    /// Fields may be added to a version; none changes its meaning.
    pub const SCHEMA: u32 = 2;

    /// A record that says only this; fill in what else is known.
    pub fn new(time: SystemTime, outcome: AuditOutcome, reason: &'static str, status: u16) -> Self {
        Self {
            time,
            outcome,
            reason,
            status,
            grpc_status: None,
            peer: None,
            peer_serial: None,
            peer_address: None,
            origin: None,
            forwarded: None,
            token_issuer: None,
            token_subject: None,
            token_subject_hmac: None,
            azp: None,
            actors: Vec::new(),
            jti_sha256: None,
            service: None,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            raw_path_sha256: None,
            route: None,
            policy: None,
            rule: None,
            audit_policies: Vec::new(),
            dry_run: None,
            dry_run_policy: None,
            policy_digest: None,
            generation: 0,
            request_id: None,
            trace_id: None,
            span_id: None,
            token: None,
            id: Uuid::nil(),
            seq: 0,
        }
    }

    /// Its UUIDv7; nil until it was handed to [`Audit::record`](super::Audit::record).
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its number among the records of this process; 0 is its `audit.start`.
    ///
    /// A record that was lost has none: the numbers of an `audit.gap` stand for it.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Says whose token it was.
    ///
    /// What of it is written, the writer decides, by its [`SubjectMode`].
    pub fn set_token(&mut self, token: Arc<VerifiedToken>) {
        self.token = Some(token);
    }

    /// Says what path came, without query, where it has no canonical form.
    ///
    /// By its hash, because it may be anything.
    pub fn set_raw_path(&mut self, path: &str) {
        self.raw_path_sha256 = Some(super::chain::sha256_hex(path.as_bytes()));
    }

    /// Takes the token apart: nothing of it reaches a sink but these fields.
    pub(super) fn spell_token(&mut self, subjects: &Subjects) {
        let Some(token) = self.token.take() else { return };
        let claim = |name: &str| token.claims.get(name).and_then(Value::as_str);
        self.token_issuer = Some(Arc::clone(&token.issuer));
        self.azp = claim("azp").map(bounded);
        self.jti_sha256 = claim("jti").map(|jti| super::chain::sha256_hex(jti.as_bytes()));
        let mut actor = token.claims.get("act");
        while let Some(act) = actor.filter(|_| self.actors.len() < MAX_ACTORS) {
            match (act.get("sub").and_then(Value::as_str), subjects.mode()) {
                (None, _) | (_, SubjectMode::Off) => {}
                (Some(sub), SubjectMode::Plain) => self.actors.push(bounded(sub)),
                (Some(sub), SubjectMode::Hmac) => self.actors.push(subjects.pseudonym(sub)),
            }
            actor = act.get("act");
        }
        match (&token.subject, subjects.mode()) {
            (None, _) | (_, SubjectMode::Off) => {}
            (Some(subject), SubjectMode::Plain) => self.token_subject = Some(Arc::clone(subject)),
            (Some(subject), SubjectMode::Hmac) => self.token_subject_hmac = Some(subjects.pseudonym(subject).into()),
        }
    }
}

/// The most bytes of a claim that are kept.
const MAX_CLAIM: usize = 256;

fn bounded(text: &str) -> String {
    super::canonical::prefix(text, MAX_CLAIM).to_owned()
}
