//! `security.istio.io/v1` AuthorizationPolicy as written. Source: istio.io/api security/v1.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::account::ServiceAccount;
use super::ip::IpBlock;
use super::pattern::Pattern;
use super::request_principal::RequestPrincipal;
use super::scope::Scope;
use super::template::PathTemplate;
use crate::config::{ConfigIssue, Place, Workload};

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Action {
    /// Asks an [`ExternalAuthorizer`](super::ExternalAuthorizer), whose no is final.
    Custom,
    /// Keeps the request out, whatever ALLOW says.
    Deny,
    /// Lets it in.
    Allow,
    /// Marks it for the audit record; changes no verdict.
    Audit,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Custom => "CUSTOM",
            Self::Deny => "DENY",
            Self::Allow => "ALLOW",
            Self::Audit => "AUDIT",
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
    /// `spec.targetRefs`: the services it holds for, each the workload of that name in the policy's own namespace. Empty:
    /// the selector decides.
    pub target_services: Vec<String>,
    /// `spec.action`, default ALLOW.
    pub action: Action,
    /// `spec.provider.name`: whom CUSTOM asks.
    pub provider: Option<Arc<str>>,
    /// The annotation `istio.io/dry-run`: what it would decide is recorded and nothing else.
    pub dry_run: bool,
    /// `spec.rules`; an ALLOW policy without any allows nothing.
    pub rules: Vec<Rule>,
    /// Where each of the rules stands.
    pub rule_places: Vec<Place>,
    /// Values that Istio takes for what their author hardly meant.
    ///
    /// Only in [`Mode::Compat`](super::Mode::Compat): strict mode refuses them.
    pub doubts: Vec<ConfigIssue>,
    /// The role that it gives to callers, where it is a binding of `mesh.yaml` and no document.
    pub role: Option<Arc<str>>,
    /// Where it stands.
    pub place: Place,
}

impl AuthorizationPolicy {
    /// Whether it holds for `workload`.
    ///
    /// Its namespace (or the root's) and every label of the selector, or its name and its own namespace where services
    /// are targeted.
    pub fn selects(&self, workload: &Workload, root_namespace: &str) -> bool {
        self.scope().selects(workload, root_namespace)
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { namespace: &self.namespace, selector: &self.selector, target_services: &self.target_services }
    }
}

/// One rule: it matches if a source, an operation and every condition do.
///
/// Where a part is empty, all match.
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
    /// `serviceAccounts`, `notServiceAccounts`.
    pub service_accounts: Clause<ServiceAccount>,
    /// `trustDomains`, `notTrustDomains`: the trust domain of the SPIFFE ID.
    pub trust_domains: Clause<Pattern>,
    /// `ipBlocks`, `notIpBlocks`: the TCP peer.
    pub ip_blocks: Clause<IpBlock>,
    /// `remoteIpBlocks`, `notRemoteIpBlocks`: the client, behind trusted proxies.
    pub remote_ip_blocks: Clause<IpBlock>,
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
    pub paths: Clause<PathPattern>,
}

/// One of `paths`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exact, prefix, suffix or any.
    Text(Pattern),
    /// With `{*}` or `{**}`.
    Template(PathTemplate),
}

impl PathPattern {
    /// The template that is meant, or why it is none; `None` where `text` has nothing of one.
    pub(super) fn template(text: &str) -> Option<Result<Self, String>> {
        if PathTemplate::is_meant(text) {
            return Some(PathTemplate::parse(text).map(Self::Template));
        }
        let braces = || Err(format!("`{text}`: braces are understood only as `{{*}}` and `{{**}}`"));
        text.contains(['{', '}']).then(braces)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(pattern) => pattern.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// One `when` entry.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// `source.principal`
    SourcePrincipal(Clause<Pattern>),
    /// `source.namespace`
    SourceNamespace(Clause<Pattern>),
    /// `source.serviceAccount`
    SourceServiceAccount(Clause<ServiceAccount>),
    /// `source.trustDomain`
    SourceTrustDomain(Clause<Pattern>),
    /// `source.ip`
    SourceIp(Clause<IpBlock>),
    /// `remote.ip`
    RemoteIp(Clause<IpBlock>),
    /// `destination.ip`
    DestinationIp(Clause<IpBlock>),
    /// `destination.port`
    DestinationPort(Clause<u16>),
    /// `connection.sni`
    Sni(Clause<Pattern>),
    /// `request.auth.principal`
    RequestPrincipal(Clause<RequestPrincipal>),
    /// `request.auth.claims[a][b]`; `request.auth.audiences` is `[aud]`, `request.auth.presenter` is `[azp]`.
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
    /// A scope of the token, in `scope` or `scp`. Only bindings of `mesh.yaml` have it.
    Scope(Clause<Pattern>),
    /// `route`: the route that matched, as the router writes it (`/orders/{id}`), or the gRPC method
    /// (`/pkg.Service/Method`). Istio does not have it.
    Route(Clause<Pattern>),
    /// A key that Istio's validation passes and its translation does not, for example `request.headersx[y]`.
    Untranslatable {
        /// As written.
        key: String,
    },
}

/// The positive and the negative list of one field. Both hold where both are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause<T> {
    /// Any of these must match; `None` where the list is not written.
    pub any_of: Option<Vec<T>>,
    /// None of these may match; holds for an absent value.
    ///
    /// `None` where the list is not written.
    pub none_of: Option<Vec<T>>,
}

impl<T> Default for Clause<T> {
    fn default() -> Self {
        Self { any_of: None, none_of: None }
    }
}

impl<T> Clause<T> {
    /// Any of these.
    pub(super) fn any_of(values: Vec<T>) -> Self {
        Self { any_of: Some(values), none_of: None }
    }

    /// Whether neither list is written.
    pub fn is_empty(&self) -> bool {
        self.any_of.is_none() && self.none_of.is_none()
    }
}
