//! `security.istio.io/v1` AuthorizationPolicy as written. Source: istio.io/api security/v1.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::pattern::Pattern;
use crate::config::Place;

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Action {
    /// Lets the request in.
    Allow,
    /// Keeps it out, whatever ALLOW says.
    Deny,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        })
    }
}

/// One document, validated, not yet compiled.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuthorizationPolicy {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `spec.selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: BTreeMap<String, String>,
    /// `spec.action`, default ALLOW.
    pub action: Action,
    /// `spec.rules`; an ALLOW policy without any allows nothing.
    pub rules: Vec<Rule>,
    /// Where it stands.
    pub place: Place,
}

/// One rule: it matches if a source, an operation and every condition do. Where a part is empty, all match.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Rule {
    /// `from[].source`: any of them.
    pub from: Vec<Source>,
    /// `to[].operation`: any of them.
    pub to: Vec<Operation>,
    /// `when[]`: all of them.
    pub when: Vec<Condition>,
}

/// Who calls; every clause that is written must hold.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Source {
    /// `principals`, `notPrincipals`: SPIFFE IDs without `spiffe://`.
    pub principals: Clause<Pattern>,
    /// `requestPrincipals`, `notRequestPrincipals`: `ISSUER/SUBJECT` of the verified token.
    pub request_principals: Clause<RequestPrincipal>,
    /// `namespaces`, `notNamespaces`: the namespace in the SPIFFE ID.
    pub namespaces: Clause<Pattern>,
}

/// What is called; every clause that is written must hold.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Operation {
    /// `hosts`, `notHosts`: the authority, its port included.
    pub hosts: Clause<Pattern>,
    /// `ports`, `notPorts`: the local port.
    pub ports: Clause<u16>,
    /// `methods`, `notMethods`.
    pub methods: Clause<Pattern>,
    /// `paths`, `notPaths`: without query and fragment.
    pub paths: Clause<Pattern>,
}

/// One `when` entry.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// `source.principal`
    SourcePrincipal(Clause<Pattern>),
    /// `source.namespace`
    SourceNamespace(Clause<Pattern>),
    /// `destination.port`
    DestinationPort(Clause<u16>),
    /// `request.auth.principal`
    RequestPrincipal(Clause<RequestPrincipal>),
    /// `request.auth.claims[a][b]`
    Claim {
        /// `["a", "b"]`
        path: Vec<String>,
        /// What the claim may be.
        values: Clause<Pattern>,
    },
    /// `request.headers[name]`
    Header {
        /// The name in lower case.
        name: String,
        /// What the header may be.
        values: Clause<Pattern>,
    },
}

/// The positive and the negative list of one field. Both hold where both are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause<T> {
    /// Any of these must match; `None` where the list is not written.
    pub any_of: Option<Vec<T>>,
    /// None of these may match; holds for an absent value. `None` where the list is not written.
    pub none_of: Option<Vec<T>>,
}

impl<T> Default for Clause<T> {
    fn default() -> Self {
        Self { any_of: None, none_of: None }
    }
}

impl<T> Clause<T> {
    /// Whether neither list is written.
    pub fn is_empty(&self) -> bool {
        self.any_of.is_none() && self.none_of.is_none()
    }
}

/// A pattern for issuer and subject, written `ISSUER/SUBJECT` and split at the last `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPrincipal {
    /// What `iss` must be.
    pub issuer: Pattern,
    /// What `sub` must be.
    pub subject: Pattern,
}

impl RequestPrincipal {
    /// Reads a value of `requestPrincipals`.
    ///
    /// `*` wants both claims; without a slash `*x` is the end of a subject and `x*` the beginning of an issuer.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pattern = |text: &str| Pattern::parse(text).map_err(|error| error.to_string());
        match (text.rsplit_once('/'), pattern(text)?) {
            (None, Pattern::Exact(_)) => {
                Err(format!("`{text}`: expected ISSUER/SUBJECT, for example `https://idp.example/alice`"))
            }
            (None, Pattern::Prefix(prefix)) => Ok(Self { issuer: Pattern::Prefix(prefix), subject: Pattern::Present }),
            (None, whole) => Ok(Self { issuer: Pattern::Present, subject: whole }),
            // `https://idp.example*` would mean the issuer `https:/`, which nobody has.
            (Some((issuer, _)), _) if issuer.ends_with(":/") => Err(format!(
                "`{text}` is split at its last `/` into issuer and subject; for every subject of an issuer write \
                 `ISSUER/*`"
            )),
            (Some((issuer, subject)), _) => Ok(Self { issuer: pattern(issuer)?, subject: pattern(subject)? }),
        }
    }

    /// Whether both claims match; a token without `sub` matches nothing.
    pub fn matches(&self, issuer: &str, subject: Option<&str>) -> bool {
        self.issuer.matches(issuer.as_bytes()) && self.subject.matches(subject.unwrap_or_default().as_bytes())
    }
}

impl fmt::Display for RequestPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}
