//! What an audit record says. Never tokens, queries or bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use uuid::Uuid;

/// The end of a decided request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// Policy let it in.
    Allow,
    /// Identity, token or policy kept it out.
    Deny,
    /// It was no acceptable request (ambiguous path, too large, shed, too late).
    Reject,
}

/// One decided request.
///
/// The names of the fields are those of the JSON line; see [`to_json`](Self::to_json).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When it was decided.
    pub time: SystemTime,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// A stable code: [`crate::policy::Reason`], [`crate::token::TokenError::reason`], or a stage's own.
    pub reason: &'static str,
    /// The HTTP status that was sent.
    pub status: u16,
    /// The gRPC status that was sent, for gRPC.
    pub grpc_status: Option<u8>,
    /// The peer's SPIFFE ID.
    pub peer: Option<Arc<str>>,
    /// The serial number of the peer's certificate.
    pub peer_serial: Option<Arc<str>>,
    /// Where it connected from.
    pub peer_address: Option<SocketAddr>,
    /// Whom the peer, a pinned gateway, named as its client.
    pub forwarded: Option<Arc<str>>,
    /// `iss` of the verified token.
    pub token_issuer: Option<Arc<str>>,
    /// `sub` of the verified token.
    pub token_subject: Option<Arc<str>>,
    /// Our own SPIFFE ID.
    pub service: Option<Arc<str>>,
    /// The method.
    pub method: String,
    /// The canonical host.
    pub host: String,
    /// The canonical path, without query.
    pub path: String,
    /// The matched route, where known.
    pub route: Option<Arc<str>>,
    /// `NAMESPACE/NAME` of the deciding policy.
    pub policy: Option<Arc<str>>,
    /// 0-based index of the deciding rule.
    pub rule: Option<u32>,
    /// The generation of configuration and policy it was decided under.
    pub generation: u64,
    /// W3C trace id in lower-case hex.
    pub trace_id: Option<String>,
    /// Given by [`Audit::record`](super::Audit::record).
    pub(super) id: Uuid,
    pub(super) seq: u64,
}

impl AuditRecord {
    /// The version of the JSON line. Fields may be added to a version; none changes its meaning.
    pub const SCHEMA: u32 = 1;

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
            forwarded: None,
            token_issuer: None,
            token_subject: None,
            service: None,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            route: None,
            policy: None,
            rule: None,
            generation: 0,
            trace_id: None,
            id: Uuid::nil(),
            seq: 0,
        }
    }

    /// Its UUIDv7; nil until it was handed to [`Audit::record`](super::Audit::record).
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its number among the records of this process, from 1. A gap is a lost record.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}
