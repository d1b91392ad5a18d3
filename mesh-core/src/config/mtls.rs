//! `mtls:` and `permissive_until:` - what a listener demands of those who connect, and until when it demands less.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::{Decode, Node};

/// The furthest end of `permissive`: a migration that takes longer is decided anew.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

/// What a listener demands of those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mtls {
    /// A client certificate that this workload's trust bundles vouch for; nothing else gets through the handshake.
    #[default]
    Strict,
    /// For migrations: as `strict`, and plaintext HTTP/1.1 and HTTP/2 (prior knowledge) too, whose peers are anonymous.
    ///
    /// Who speaks TLS is judged as ever, and needs a certificate. (Istio's PERMISSIVE takes plaintext or mutual TLS.)
    Permissive {
        /// When the listener becomes strict: new plaintext is refused, open plaintext connections are drained. At most
        /// 90 days ahead when the configuration is read; a time in the past is strict.
        until: SystemTime,
    },
}

impl Mtls {
    /// As configurations write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive { .. } => "permissive",
        }
    }

    /// Until when plaintext is taken, if it is at `now`.
    pub fn plaintext_until(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Permissive { until } if now < until => Some(until),
            _ => None,
        }
    }

    /// Reads `mtls` and `permissive_until`, of which the second goes with `permissive` and with nothing else.
    pub(super) fn of(fields: &mut Fields<'_>) -> Self {
        #[derive(Clone, Copy)]
        enum Word {
            Strict,
            Permissive,
        }
        let until = fields.optional::<Timestamp>("permissive_until");
        let written = fields.node("permissive_until").is_some();
        let place = fields.place("permissive_until");
        let node = fields.node("mtls");
        let errors = fields.errors();
        let words = [("strict", Word::Strict), ("permissive", Word::Permissive)];
        match (node.and_then(|node| node.choice(&words, errors)), until) {
            (Some(Word::Permissive), Some(Timestamp(until))) => return Self::Permissive { until },
            (Some(Word::Permissive), None) if !written => {
                errors.push(
                    &place,
                    "required with `mtls: permissive`: when the listener becomes strict, at most 90 days ahead",
                );
            }
            (None | Some(Word::Strict), _) if written => {
                errors.push(&place, "goes with `mtls: permissive` and with nothing else");
            }
            _ => {}
        }
        Self::Strict
    }

    /// Notes an end that is too far away to be one.
    pub(super) fn check_at(self, now: SystemTime, at: &mut Checker<'_>) {
        if let Self::Permissive { until } = self
            && until.duration_since(now).is_ok_and(|left| left > LONGEST)
        {
            at.error("permissive_until", "is more than 90 days ahead: a migration that takes longer is decided anew");
        }
    }

    /// Notes that plaintext is taken, or no longer.
    pub(super) fn warn(self, now: SystemTime, at: &mut Checker<'_>) {
        let Self::Permissive { until } = self else { return };
        let end = OffsetDateTime::from(until).format(&Rfc3339).unwrap_or_else(|_| "a time out of range".to_owned());
        match until.duration_since(now) {
            Ok(left) if !left.is_zero() => {
                let days = left.as_secs().div_ceil(86_400);
                at.error("mtls", format!("plaintext is taken, from anonymous peers, until {end} ({days} days)"));
            }
            _ => at.error("mtls", format!("permissive ended at {end}: the listener is strict; write `mtls: strict`")),
        }
    }
}

/// A calendar time as RFC 3339 writes it.
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Decode for Timestamp {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()) {
            Some(time) => Some(Self(time.into())),
            None => node.expected("a time as in 2027-01-31T00:00:00Z", errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    #[test]
    fn permissive_says_when_it_ends_and_that_is_near() {
        let at = |text: &str| SystemTime::from(OffsetDateTime::parse(text, &Rfc3339).unwrap());
        let now = at("2026-12-01T00:00:00Z");
        let permissive = |text: &str| Mtls::Permissive { until: at(text) };
        let end = "2027-01-31T00:00:00Z";
        let table = [
            ("mtls: strict", Ok(Mtls::Strict)),
            ("mtls: permissive, permissive_until: 2027-01-31T00:00:00Z", Ok(permissive(end))),
            ("mtls: permissive, permissive_until: '2027-01-31T02:00:00+02:00'", Ok(permissive(end))),
            ("mtls: permissive, permissive_until: 2026-01-31T00:00:00Z", Ok(permissive("2026-01-31T00:00:00Z"))),
            ("mtls: permissive", Err("required with")),
            ("mtls: strict, permissive_until: 2027-01-31T00:00:00Z", Err("goes with")),
            ("permissive_until: 2027-01-31T00:00:00Z", Err("goes with")),
            ("mtls: permissive, permissive_until: 2027-01-31", Err("expected a time")),
            ("mtls: permissive, permissive_until: tomorrow", Err("expected a time")),
            ("mtls: permissive, permissive_until: 2027-03-02T00:00:00Z", Err("is more than 90 days")),
            ("mtls: permisive, permissive_until: 2027-01-31T00:00:00Z", Err("unknown value")),
        ];
        for (fields, expected) in table {
            let text = format!(
                "workload: {{ name: orders, namespace: shop }}\n\
                 identity: {{ trust_domain: td, source: {{ dev_ca: {{ dir: ca }} }} }}\n\
                 listeners: {{ default: {{ address: '127.0.0.1:1', {fields} }} }}\n"
            );
            let mut errors = Errors::default();
            let parsed = Config::parse("mesh.yaml", &text, Path::new("."), |_| {}, &mut errors);
            let (config, root) = parsed.unzip();
            if let Some(config) = &config {
                config.check_at(now, root.as_ref(), &mut errors);
            }
            match expected {
                Ok(mtls) => {
                    assert!(errors.is_empty(), "{fields}: {:?}", errors.issues());
                    assert_eq!(config.unwrap().listeners["default"].mtls, mtls, "{fields}");
                }
                Err(start) => {
                    let issue = errors.issues().iter().find(|issue| issue.message.starts_with(start));
                    let place = &issue.unwrap_or_else(|| panic!("{fields}: {:?}", errors.issues())).place;
                    assert_eq!((place.line, &place.path[..18]), (3, "listeners.default."), "{fields}");
                }
            }
        }
    }

    #[test]
    fn plaintext_is_taken_before_the_end_and_not_at_it() {
        let until = SystemTime::UNIX_EPOCH + LONGEST;
        let mtls = Mtls::Permissive { until };
        let second = Duration::from_secs(1);
        assert_eq!(mtls.plaintext_until(until - second), Some(until));
        assert_eq!(mtls.plaintext_until(until), None);
        assert_eq!(Mtls::Strict.plaintext_until(until - second), None);
    }
}
