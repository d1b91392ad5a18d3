//! What is compared with what.

use std::fmt;
use std::net::IpAddr;

use super::super::account::{NamespaceAnywhere, ServiceAccount};
use super::super::ip::IpBlock;
use super::super::pattern::{Pattern, PatternSet, write_list};
use super::super::request::Request;
use super::super::template::PathTemplate;
use super::super::{PeerView, RequestPrincipal};
use super::claim;
use super::header::HeaderRule;

#[derive(Debug)]
pub(in super::super) enum Check {
    Principal(PatternSet),
    Namespace(PatternSet),
    NamespaceAnywhere(Box<[NamespaceAnywhere]>),
    ServiceAccount {
        accounts: Box<[ServiceAccount]>,
        anywhere: bool,
    },
    TrustDomain(PatternSet),
    SourceIp(Box<[IpBlock]>),
    RemoteIp(Box<[IpBlock]>),
    DestinationIp(Box<[IpBlock]>),
    Port(Box<[u16]>),
    Sni(PatternSet),
    RequestPrincipal(Box<[RequestPrincipal]>),
    Claim {
        path: Box<[String]>,
        values: PatternSet,
    },
    Scope(PatternSet),
    Host(Box<[Pattern]>),
    Method {
        methods: PatternSet,
        /// Whether GET is HEAD too: whoever serves GET answers HEAD by the same handler. (RFC 9110 9.3.2, axum)
        get_is_head: bool,
    },
    Path {
        texts: PatternSet,
        templates: Box<[PathTemplate]>,
    },
    Header(HeaderRule),
    Route(PatternSet),
}

impl Check {
    pub(super) fn is_about_token(&self) -> bool {
        matches!(self, Self::RequestPrincipal(_) | Self::Claim { .. } | Self::Scope(_))
    }

    /// Whether raw TCP has nothing to compare.
    pub(super) fn is_http_only(&self) -> bool {
        match self {
            Self::RequestPrincipal(_)
            | Self::Claim { .. }
            | Self::Scope(_)
            | Self::Host(_)
            | Self::Method { .. }
            | Self::Path { .. }
            | Self::Header(_)
            | Self::Route(_) => true,
            Self::Principal(_)
            | Self::Namespace(_)
            | Self::NamespaceAnywhere(_)
            | Self::ServiceAccount { .. }
            | Self::TrustDomain(_)
            | Self::SourceIp(_)
            | Self::RemoteIp(_)
            | Self::DestinationIp(_)
            | Self::Port(_)
            | Self::Sni(_) => false,
        }
    }

    /// What the connection alone decides; `None` where it depends on the request. Absent values are in no list.
    /// (ISTIO-SECURITY-2021-004)
    pub(super) fn of_peer(&self, caller: &PeerView<'_>) -> Option<bool> {
        Some(match self {
            Self::Principal(set) => caller.principal().is_some_and(|principal| set.matches(principal)),
            Self::Namespace(set) => caller.namespace().is_some_and(|namespace| set.matches(namespace)),
            Self::NamespaceAnywhere(all) => caller.peer.is_some_and(|id| all.iter().any(|one| one.matches(id))),
            Self::ServiceAccount { accounts, anywhere } => caller.peer.is_some_and(|id| {
                accounts.iter().any(|account| if *anywhere { account.is_in(id) } else { account.is(id) })
            }),
            Self::TrustDomain(set) => caller.peer.is_some_and(|id| set.matches(id.trust_domain())),
            Self::SourceIp(blocks) => in_any(blocks, caller.source_ip),
            Self::DestinationIp(blocks) => in_any(blocks, caller.destination_ip),
            Self::Port(ports) => ports.contains(&caller.port),
            Self::Sni(set) => caller.sni.is_some_and(|sni| set.matches(sni)),
            Self::RemoteIp(_)
            | Self::RequestPrincipal(_)
            | Self::Claim { .. }
            | Self::Scope(_)
            | Self::Host(_)
            | Self::Method { .. }
            | Self::Path { .. }
            | Self::Header(_)
            | Self::Route(_) => return None,
        })
    }

    /// Whether a value that is there is in the list; an absent one never is.
    pub(super) fn matches(&self, request: &Request<'_>) -> bool {
        match self {
            Self::RemoteIp(blocks) => in_any(blocks, request.remote_ip),
            Self::RequestPrincipal(patterns) => request.token.is_some_and(|token| {
                patterns.iter().any(|pattern| pattern.matches(&token.issuer, token.subject.as_deref()))
            }),
            Self::Claim { path, values } => {
                request.token.is_some_and(|token| claim::matches(&token.claims, path, values))
            }
            Self::Scope(set) => request.token.is_some_and(|token| token.scopes().any(|scope| set.matches(scope))),
            Self::Host(patterns) => {
                patterns.iter().any(|pattern| pattern.matches_ignoring_case(request.host.as_bytes()))
            }
            Self::Method { methods, .. } => methods.matches(request.method) || self.is_head_of_get(request),
            Self::Path { .. } => request.paths().any(|path| self.lists_path(path)),
            // Its caller knows of lists and of actions.
            Self::Header(rule) => rule.holds(request, false, super::Action::Deny),
            Self::Route(set) => request.route.is_some_and(|route| set.matches(route)),
            check => check.of_peer(&request.peer_view()).unwrap_or_default(),
        }
    }

    /// Whether a HEAD request is in the list by its GET alone.
    pub(in super::super) fn is_head_of_get(&self, request: &Request<'_>) -> bool {
        let Self::Method { methods, get_is_head: true } = self else { return false };
        request.method == "HEAD" && methods.matches("GET") && !methods.matches("HEAD")
    }

    pub(super) fn lists_path(&self, path: &str) -> bool {
        let Self::Path { texts, templates } = self else { return false };
        texts.matches(path) || templates.iter().any(|template| template.matches(path))
    }

    /// What came with the request, for explanations.
    pub(in super::super) fn found(&self, request: &Request<'_>) -> Option<String> {
        let ip = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string());
        match self {
            Self::Principal(_) | Self::NamespaceAnywhere(_) | Self::ServiceAccount { .. } => {
                request.peer_principal().map(str::to_owned)
            }
            Self::Namespace(_) => request.peer_namespace().map(str::to_owned),
            Self::TrustDomain(_) => request.peer.map(|id| id.trust_domain().to_owned()),
            Self::SourceIp(_) => ip(request.source_ip),
            Self::RemoteIp(_) => ip(request.remote_ip),
            Self::DestinationIp(_) => ip(request.destination_ip),
            Self::Port(_) => Some(request.port.to_string()),
            Self::Sni(_) => request.sni.map(str::to_owned),
            Self::RequestPrincipal(_) => {
                request.token.map(|token| format!("{}/{}", token.issuer, token.subject.as_deref().unwrap_or_default()))
            }
            Self::Claim { path, .. } => {
                request.token.and_then(|token| claim::at(&token.claims, path)).map(ToString::to_string)
            }
            Self::Scope(_) => request.token.map(|token| token.scopes().collect::<Vec<_>>().join(" ")),
            Self::Host(_) => Some(request.host.to_owned()),
            Self::Method { .. } if self.is_head_of_get(request) => {
                Some("HEAD, which the handler of GET answers".to_owned())
            }
            Self::Method { .. } => Some(request.method.to_owned()),
            Self::Path { .. } => Some(request.paths().collect::<Vec<_>>().join(", read as ")),
            Self::Header(rule) => rule.found(request),
            Self::Route(_) => request.route.map(str::to_owned),
        }
    }
}

fn in_any(blocks: &[IpBlock], ip: Option<IpAddr>) -> bool {
    ip.is_some_and(|ip| blocks.iter().any(|block| block.contains(ip)))
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: ToString>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
            write_list(f, &all.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        match self {
            Self::Principal(set)
            | Self::Namespace(set)
            | Self::TrustDomain(set)
            | Self::Sni(set)
            | Self::Method { methods: set, .. }
            | Self::Route(set)
            | Self::Scope(set)
            | Self::Claim { values: set, .. } => set.fmt(f),
            Self::Header(rule) => rule.values.fmt(f),
            Self::Path { texts, templates } => {
                let texts = texts.patterns().map(|pattern| pattern.to_string());
                let mut all: Vec<String> = texts.chain(templates.iter().map(ToString::to_string)).collect();
                all.sort_unstable();
                write_list(f, &all)
            }
            Self::NamespaceAnywhere(all) => list(f, all),
            Self::ServiceAccount { accounts, .. } => list(f, accounts),
            Self::SourceIp(all) | Self::RemoteIp(all) | Self::DestinationIp(all) => list(f, all),
            Self::Port(all) => list(f, all),
            Self::RequestPrincipal(all) => list(f, all),
            Self::Host(all) => list(f, all),
        }
    }
}
