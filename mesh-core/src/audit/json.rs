//! The members of a request's record, in canonical order.

use time::OffsetDateTime;

use super::AuditRecord;
use super::canonical::Members;
use super::chain::hex;

/// What every line says beside what happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) boot: &'a str,
    pub(super) prev: &'a str,
}

impl AuditRecord {
    /// The canonical record without its hash. Absent fields are left out.
    pub(super) fn canonical(&self, frame: Frame<'_>) -> String {
        let origin = self.origin.as_deref();
        let mut members = Members::new();
        if !self.actors.is_empty() {
            members.strings("actors", self.actors.iter().map(String::as_str));
        }
        if !self.audit_policies.is_empty() {
            members.strings("audit_policies", self.audit_policies.iter().map(|policy| &**policy));
        }
        members.some("azp", self.azp.as_deref());
        members.string("boot", frame.boot);
        members.some("dry_run", self.dry_run);
        members.some("dry_run_policy", self.dry_run_policy.as_deref());
        members.string("event", "request");
        members.some("forwarded", self.forwarded.as_deref());
        members.int("generation", self.generation);
        if let Some(status) = self.grpc_status {
            members.int("grpc_status", status);
        }
        members.string("host", &self.host);
        members.string("id", self.id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        members.some("jti_sha256", self.jti_sha256.as_deref());
        members.string("method", &self.method);
        members.string("outcome", self.outcome.as_str());
        members.string("path", &self.path);
        members.some("peer", self.peer.as_deref());
        if let Some(address) = self.peer_address {
            members.string("peer_address", &address.to_string());
        }
        members.some("peer_serial", self.peer_serial.as_deref());
        members.some("peer_sha256", origin.and_then(|origin| origin.peer_sha256).map(|hash| hex(&hash)).as_deref());
        members.some("policy", self.policy.as_deref());
        members.some("policy_digest", self.policy_digest.as_deref());
        members.string("prev", frame.prev);
        members.some("raw_path_sha256", self.raw_path_sha256.as_deref());
        members.string("reason", self.reason);
        members.some("request_id", self.request_id.as_deref());
        members.some("route", self.route.as_deref());
        if let Some(rule) = self.rule {
            members.int("rule", rule);
        }
        members.int("schema", Self::SCHEMA);
        members.int("seq", self.seq);
        members.some("service", self.service.as_deref());
        members.some("sni", origin.and_then(|origin| origin.sni.as_deref()));
        members.some("span_id", self.span_id.as_deref());
        if self.status != 0 {
            members.int("status", self.status);
        }
        members.string("time", &rfc3339(self.time.into()));
        members.some("tls_group", origin.and_then(|origin| origin.tls_group));
        if let Some(resumed) = origin.and_then(|origin| origin.tls_resumed) {
            members.bool("tls_resumed", resumed);
        }
        members.some("tls_version", origin.and_then(|origin| origin.tls_version));
        members.some("token_issuer", self.token_issuer.as_deref());
        members.some("token_subject", self.token_subject.as_deref());
        members.some("token_subject_hmac", self.token_subject_hmac.as_deref());
        members.some("trace_id", self.trace_id.as_deref());
        members.end()
    }
}

/// RFC 3339 in UTC with nanoseconds.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, nano) = time.to_hms_nano();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nano:09}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::audit::{AuditOrigin, AuditOutcome, canonical};

    const FRAME: Frame<'_> = Frame { boot: "b", prev: "00" };

    #[test]
    fn the_record_is_stable_says_everything_and_is_canonical() {
        let time = UNIX_EPOCH + Duration::new(1_800_000_000, 7);
        let mut record = AuditRecord::new(time, AuditOutcome::Deny, "deny_rule", 0);
        assert_eq!(
            record.canonical(FRAME),
            r#"{"boot":"b","event":"request","generation":0,"host":"","id":"00000000-0000-0000-0000-000000000000","method":"","outcome":"deny","path":"","prev":"00","reason":"deny_rule","schema":2,"seq":0,"time":"2027-01-15T08:00:00.000000007Z"}"#
        );
        record.status = 403;
        record.grpc_status = Some(7);
        record.peer = Some("spiffe://d/ns/n/sa/s".into());
        record.peer_serial = Some("01ab".into());
        record.peer_address = Some("[::1]:7".parse().unwrap());
        record.origin = Some(Arc::new(AuditOrigin {
            peer_sha256: Some([0xfe; 32]),
            tls_version: Some("1.3"),
            tls_group: Some("X25519"),
            tls_resumed: Some(false),
            sni: Some("orders".into()),
        }));
        record.forwarded = Some("spiffe://d/ns/n/sa/u".into());
        record.token_issuer = Some("https://idp.example".into());
        record.token_subject = Some("alice".into());
        record.token_subject_hmac = Some("aa".into());
        record.azp = Some("app".to_owned());
        record.actors = vec!["bot".to_owned()];
        record.jti_sha256 = Some("bb".to_owned());
        record.service = Some("spiffe://d/ns/n/sa/t".into());
        record.method = "GET".to_owned();
        record.host = "h:1".to_owned();
        record.path = "/p".to_owned();
        record.raw_path_sha256 = Some("cc".to_owned());
        record.route = Some("/{p}".into());
        record.policy = Some("n/p".into());
        record.rule = Some(2);
        record.audit_policies = vec!["n/a".into()];
        record.dry_run = Some("deny");
        record.dry_run_policy = Some("n/d".into());
        record.policy_digest = Some("dd".into());
        record.generation = 3;
        record.request_id = Some("r-1".to_owned());
        record.trace_id = Some("4bf9".to_owned());
        record.span_id = Some("00f0".to_owned());
        let text = record.canonical(FRAME);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut expected = serde_json::json!({
            "schema": 2, "id": "00000000-0000-0000-0000-000000000000", "seq": 0, "boot": "b", "prev": "00",
            "time": "2027-01-15T08:00:00.000000007Z", "event": "request", "outcome": "deny", "reason": "deny_rule",
            "status": 403, "grpc_status": 7, "peer": "spiffe://d/ns/n/sa/s", "peer_serial": "01ab", "peer_sha256": "fe".repeat(32),
            "peer_address": "[::1]:7", "forwarded": "spiffe://d/ns/n/sa/u", "token_issuer": "https://idp.example",
            "token_subject": "alice", "token_subject_hmac": "aa", "azp": "app", "actors": ["bot"], "jti_sha256": "bb",
            "service": "spiffe://d/ns/n/sa/t", "method": "GET", "host": "h:1", "path": "/p", "raw_path_sha256": "cc",
        });
        let more = serde_json::json!({
            "route": "/{p}", "policy": "n/p", "rule": 2, "audit_policies": ["n/a"], "dry_run": "deny", "dry_run_policy": "n/d", "policy_digest": "dd", "generation": 3,
            "request_id": "r-1", "trace_id": "4bf9", "span_id": "00f0", "tls_version": "1.3", "tls_group": "X25519",
            "tls_resumed": false, "sni": "orders",
        });
        expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(parsed, expected);
        assert_eq!(canonical::canonical(parsed.as_object().unwrap()), Some(text));
    }

    #[test]
    fn nothing_a_caller_sends_forges_a_member() {
        let mut record = AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
        record.method = "GET\",\"outcome\":\"deny".to_owned();
        let read: serde_json::Value = serde_json::from_str(&record.canonical(FRAME)).unwrap();
        assert_eq!((&read["outcome"], &read["method"]), (&"allow".into(), &record.method.as_str().into()));
    }
}
