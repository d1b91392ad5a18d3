//! A record as one line of JSON that nothing a caller sends can break or forge.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use time::OffsetDateTime;

use super::{AuditOutcome, AuditRecord};

/// The line's fields, in this order. Absent ones are left out.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    id: String,
    seq: u64,
    time: String,
    event: &'static str,
    outcome: AuditOutcome,
    reason: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

impl AuditRecord {
    /// One JSON object without a line break, for example:
    ///
    /// ```json
    /// {"schema":1,"id":"0194...","seq":7,"time":"2026-11-22T06:36:14.000000001Z","event":"request",
    ///  "outcome":"deny","reason":"no_allow_rule","status":403,"peer":"spiffe://shop.example/ns/shop/sa/web",
    ///  "peer_serial":"01ab","peer_address":"10.0.0.7:4711","service":"spiffe://shop.example/ns/shop/sa/orders",
    ///  "method":"GET","host":"orders:8443","path":"/orders/7","route":"/orders/{id}","generation":3,"trace_id":"4bf9..."}
    /// ```
    ///
    /// `policy` and `rule` name what decided; `forwarded` is whom a pinned gateway, the `peer`, named as its client;
    /// `grpc_status`, `token_issuer` and `token_subject` are there where they exist. Control characters are escaped, those
    /// that only some readers take for a line break included.
    pub fn to_json(&self) -> String {
        let line = Line {
            schema: Self::SCHEMA,
            id: self.id.to_string(),
            seq: self.seq,
            time: rfc3339(self.time.into()),
            event: "request",
            outcome: self.outcome,
            reason: self.reason,
            status: self.status,
            grpc_status: self.grpc_status,
            peer: self.peer.as_deref(),
            peer_serial: self.peer_serial.as_deref(),
            peer_address: self.peer_address.map(|address| address.to_string()),
            forwarded: self.forwarded.as_deref(),
            token_issuer: self.token_issuer.as_deref(),
            token_subject: self.token_subject.as_deref(),
            service: self.service.as_deref(),
            method: &self.method,
            host: &self.host,
            path: &self.path,
            route: self.route.as_deref(),
            policy: self.policy.as_deref(),
            rule: self.rule,
            generation: self.generation,
            trace_id: self.trace_id.as_deref(),
        };
        let mut text = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, OneLine);
        // Strings and numbers into memory: there is nothing that could fail.
        let _ = line.serialize(&mut serializer);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// RFC 3339 in UTC with nanoseconds.
fn rfc3339(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, nano) = time.to_hms_nano();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nano:09}Z", u8::from(month))
}

/// Compact JSON in which DEL, the C1 controls and the Unicode line separators are escaped too: some readers and
/// terminals take them for line breaks or commands.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let breaks = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some((before, found)) = rest.find(breaks).and_then(|at| rest.split_at_checked(at)) {
            CompactFormatter.write_string_fragment(writer, before)?;
            let mut chars = found.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_line_is_stable_and_says_everything() {
        let time = UNIX_EPOCH + Duration::new(1_800_000_000, 7);
        let mut record = AuditRecord::new(time, AuditOutcome::Deny, "deny_rule", 403);
        assert_eq!(
            record.to_json(),
            r#"{"schema":1,"id":"00000000-0000-0000-0000-000000000000","seq":0,"time":"2027-01-15T08:00:00.000000007Z","event":"request","outcome":"deny","reason":"deny_rule","status":403,"method":"","host":"","path":"","generation":0}"#
        );
        record.grpc_status = Some(7);
        record.peer = Some("spiffe://d/ns/n/sa/s".into());
        record.peer_serial = Some("01ab".into());
        record.peer_address = Some("[::1]:7".parse().unwrap());
        record.forwarded = Some("spiffe://d/ns/n/sa/u".into());
        record.token_issuer = Some("https://idp.example".into());
        record.token_subject = Some("alice".into());
        record.service = Some("spiffe://d/ns/n/sa/t".into());
        record.method = "GET".to_owned();
        record.host = "h:1".to_owned();
        record.path = "/p".to_owned();
        record.route = Some("/{p}".into());
        record.policy = Some("n/p".into());
        record.rule = Some(2);
        record.generation = 3;
        record.trace_id = Some("4bf9".to_owned());
        let line: serde_json::Value = serde_json::from_str(&record.to_json()).unwrap();
        let expected = serde_json::json!({
            "schema": 1, "id": "00000000-0000-0000-0000-000000000000", "seq": 0,
            "time": "2027-01-15T08:00:00.000000007Z", "event": "request", "outcome": "deny", "reason": "deny_rule",
            "status": 403, "grpc_status": 7, "peer": "spiffe://d/ns/n/sa/s", "peer_serial": "01ab",
            "peer_address": "[::1]:7", "forwarded": "spiffe://d/ns/n/sa/u", "token_issuer": "https://idp.example", "token_subject": "alice",
            "service": "spiffe://d/ns/n/sa/t", "method": "GET", "host": "h:1", "path": "/p", "route": "/{p}",
            "policy": "n/p", "rule": 2, "generation": 3, "trace_id": "4bf9",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn nothing_a_caller_sends_breaks_or_forges_a_line() {
        let every: String = ('\0'..='\u{2100}').collect();
        let mut record = AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
        record.path = every.clone();
        record.method = "GET\",\"outcome\":\"deny".to_owned();
        let line = record.to_json();
        assert!(!line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((read["path"].as_str(), &read["outcome"]), (Some(every.as_str()), &serde_json::json!("allow")));
    }
}
