//! Rules as the engine runs them: alternatives of tests, free of documents.
//!
//! A new field of Istio is one more [`Check`]; nothing else here moves.

use std::fmt;
use std::sync::Arc;

use super::document::{Action, Clause, Condition, Operation, RequestPrincipal, Rule, Source};
use super::pattern::{Pattern, PatternSet, write_list};
use super::request::Request;

/// One rule of one policy.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// Index of its policy in the engine.
    pub(super) policy: usize,
    /// 0-based index within its policy.
    pub(super) index: u32,
    pub(super) from: Box<[Alternative]>,
    pub(super) to: Box<[Alternative]>,
    pub(super) when: Box<[Test]>,
}

/// One source or operation: all of its tests must hold.
pub(super) type Alternative = Box<[Test]>;

/// One written list of values.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) check: Check,
    /// `notPrincipals` and its like: holds where the check does not.
    pub(super) negated: bool,
    /// The field's name in the document, for explanations.
    pub(super) field: &'static str,
}

/// What is compared with what.
#[derive(Debug)]
pub(super) enum Check {
    Principal(PatternSet),
    Namespace(PatternSet),
    RequestPrincipal(Box<[RequestPrincipal]>),
    Claim { path: Box<[String]>, values: PatternSet },
    Host(Box<[Pattern]>),
    Port(Box<[u16]>),
    Method(PatternSet),
    Path(PatternSet),
    Header { name: Box<str>, values: PatternSet },
}

/// What is assumed of the token while a rule is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The token that came, or none.
    AsSent,
    /// The most welcome token there could be: every clause about tokens falls in the caller's favour.
    Ideal,
}

impl CompiledRule {
    pub(super) fn new(policy: usize, index: u32, rule: &Rule, trust_domain: &str) -> Self {
        Self {
            policy,
            index,
            from: rule.from.iter().map(|source| source_tests(source, trust_domain)).collect(),
            to: rule.to.iter().map(operation_tests).collect(),
            when: rule.when.iter().flat_map(|condition| condition_tests(condition, trust_domain)).collect(),
        }
    }

    pub(super) fn asks_for_tokens(&self) -> bool {
        let alternatives = self.from.iter().chain(&self.to).flatten();
        alternatives.chain(&self.when).any(|test| test.check.is_about_token())
    }

    pub(super) fn matches(&self, request: &Request<'_>, action: Action, token: Token) -> bool {
        let all = |tests: &[Test]| tests.iter().all(|test| test.holds(request, action, token));
        let any = |alternatives: &[Alternative]| {
            alternatives.is_empty() || alternatives.iter().any(|alternative| all(alternative))
        };
        any(&self.from) && any(&self.to) && all(&self.when)
    }
}

impl Test {
    pub(super) fn holds(&self, request: &Request<'_>, action: Action, token: Token) -> bool {
        if token == Token::Ideal && self.check.is_about_token() {
            return action == Action::Allow;
        }
        match &self.check {
            Check::Header { name, values } => self.header_holds(request, name, values, action),
            check => check.matches(request) != self.negated,
        }
    }

    /// Headers may come several times: ALLOW wants every value in order, for DENY one that is not is enough.
    ///
    /// An absent header satisfies the negative list only.
    fn header_holds(&self, request: &Request<'_>, name: &str, values: &PatternSet, action: Action) -> bool {
        let (mut any, mut all, mut present) = (false, true, false);
        request.headers.values(name, &mut |value| {
            let matched = values.matches_bytes(value);
            present = true;
            any |= matched;
            all &= matched;
        });
        match (self.negated, action) {
            (false, Action::Allow) => present && all,
            (false, Action::Deny) => any,
            (true, Action::Allow) => !any,
            (true, Action::Deny) => !present || !all,
        }
    }
}

impl Check {
    fn is_about_token(&self) -> bool {
        matches!(self, Self::RequestPrincipal(_) | Self::Claim { .. })
    }

    /// Whether a value that is there is in the list; an absent one never is. (ISTIO-SECURITY-2021-004)
    fn matches(&self, request: &Request<'_>) -> bool {
        match self {
            Self::Principal(set) => request.peer_principal().is_some_and(|principal| set.matches(principal)),
            Self::Namespace(set) => request.peer_namespace().is_some_and(|namespace| set.matches(namespace)),
            Self::RequestPrincipal(patterns) => request.token.is_some_and(|token| {
                patterns.iter().any(|pattern| pattern.matches(&token.issuer, token.subject.as_deref()))
            }),
            Self::Claim { path, values } => {
                request.token.is_some_and(|token| claim_matches(&token.claims, path, values))
            }
            Self::Host(patterns) => {
                patterns.iter().any(|pattern| pattern.matches_ignoring_case(request.host.as_bytes()))
            }
            Self::Port(ports) => ports.contains(&request.port),
            Self::Method(set) => set.matches(request.method),
            Self::Path(set) => set.matches(request.path),
            Self::Header { name, values } => {
                let mut any = false;
                request.headers.values(name, &mut |value| any |= values.matches_bytes(value));
                any
            }
        }
    }

    /// What came with the request, for explanations.
    pub(super) fn found(&self, request: &Request<'_>) -> Option<String> {
        match self {
            Self::Principal(_) => request.peer_principal().map(str::to_owned),
            Self::Namespace(_) => request.peer_namespace().map(str::to_owned),
            Self::RequestPrincipal(_) => {
                request.token.map(|token| format!("{}/{}", token.issuer, token.subject.as_deref().unwrap_or_default()))
            }
            Self::Claim { path, .. } => {
                request.token.and_then(|token| claim_at(&token.claims, path)).map(ToString::to_string)
            }
            Self::Host(_) => Some(request.host.to_owned()),
            Self::Port(_) => Some(request.port.to_string()),
            Self::Method(_) => Some(request.method.to_owned()),
            Self::Path(_) => Some(request.path.to_owned()),
            Self::Header { name, .. } => {
                let mut all: Option<Vec<String>> = None;
                request.headers.values(name, &mut |value| {
                    all.get_or_insert_default().push(String::from_utf8_lossy(value).into_owned());
                });
                all.map(|values| values.join(", "))
            }
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, all: Vec<String>| write_list(f, &all);
        match self {
            Self::Principal(set) | Self::Namespace(set) | Self::Method(set) | Self::Path(set) => set.fmt(f),
            Self::Claim { values, .. } | Self::Header { values, .. } => values.fmt(f),
            Self::RequestPrincipal(all) => list(f, all.iter().map(ToString::to_string).collect()),
            Self::Host(all) => list(f, all.iter().map(ToString::to_string).collect()),
            Self::Port(all) => list(f, all.iter().map(ToString::to_string).collect()),
        }
    }
}

fn claim_at<'a>(
    claims: &'a serde_json::Map<String, serde_json::Value>,
    path: &[String],
) -> Option<&'a serde_json::Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, key| value.get(key))
}

/// A claim is a string or a list of strings; whatever else it is matches nothing.
///
/// `scope` and `permission` hold several values with spaces between them, as in Istio.
fn claim_matches(claims: &serde_json::Map<String, serde_json::Value>, path: &[String], values: &PatternSet) -> bool {
    let splits = matches!(path, [only] if only == "scope" || only == "permission");
    match claim_at(claims, path) {
        Some(serde_json::Value::String(text)) if splits => text.split(' ').any(|part| values.matches(part)),
        Some(serde_json::Value::String(text)) => values.matches(text),
        Some(serde_json::Value::Array(items)) => {
            items.iter().filter_map(|item| item.as_str()).any(|item| values.matches(item))
        }
        _ => false,
    }
}

fn source_tests(source: &Source, trust_domain: &str) -> Alternative {
    let Source { principals, request_principals, namespaces } = source;
    let mut tests = Tests(Vec::new());
    tests.add(principals, ["source.principals", "source.notPrincipals"], |all| principal_check(all, trust_domain));
    tests.add(namespaces, ["source.namespaces", "source.notNamespaces"], namespace_check);
    tests.add(request_principals, ["source.requestPrincipals", "source.notRequestPrincipals"], subject_check);
    tests.0.into()
}

fn operation_tests(operation: &Operation) -> Alternative {
    let Operation { hosts, ports, methods, paths } = operation;
    let mut tests = Tests(Vec::new());
    tests.add(ports, ["operation.ports", "operation.notPorts"], port_check);
    tests.add(methods, ["operation.methods", "operation.notMethods"], |all| Check::Method(set(all)));
    tests.add(paths, ["operation.paths", "operation.notPaths"], |all| Check::Path(set(all)));
    tests.add(hosts, ["operation.hosts", "operation.notHosts"], |all| Check::Host(all.into()));
    tests.0.into()
}

fn condition_tests(condition: &Condition, trust_domain: &str) -> Vec<Test> {
    const FIELDS: [&str; 2] = ["values", "notValues"];
    let mut tests = Tests(Vec::new());
    match condition {
        Condition::SourcePrincipal(values) => tests.add(values, FIELDS, |all| principal_check(all, trust_domain)),
        Condition::SourceNamespace(values) => tests.add(values, FIELDS, namespace_check),
        Condition::DestinationPort(values) => tests.add(values, FIELDS, port_check),
        Condition::RequestPrincipal(values) => tests.add(values, FIELDS, subject_check),
        Condition::Claim { path, values } => tests.add(values, FIELDS, |all| {
            let path = path.clone().into();
            Check::Claim { path, values: set(all) }
        }),
        Condition::Header { name, values } => tests.add(values, FIELDS, |all| {
            let name = name.as_str().into();
            Check::Header { name, values: set(all) }
        }),
    }
    tests.0
}

struct Tests(Vec<Test>);

impl Tests {
    fn add<T>(&mut self, clause: &Clause<T>, [positive, negative]: [&'static str; 2], check: impl Fn(&[T]) -> Check) {
        let Clause { any_of, none_of } = clause;
        self.0.extend(any_of.iter().map(|all| Test { check: check(all), negated: false, field: positive }));
        self.0.extend(none_of.iter().map(|all| Test { check: check(all), negated: true, field: negative }));
    }
}

fn set(patterns: &[Pattern]) -> PatternSet {
    PatternSet::new(patterns.iter().cloned())
}

fn namespace_check(patterns: &[Pattern]) -> Check {
    Check::Namespace(set(patterns))
}

fn port_check(ports: &[u16]) -> Check {
    Check::Port(ports.into())
}

fn subject_check(patterns: &[RequestPrincipal]) -> Check {
    Check::RequestPrincipal(patterns.into())
}

fn principal_check(patterns: &[Pattern], trust_domain: &str) -> Check {
    Check::Principal(PatternSet::new(patterns.iter().map(|pattern| with_alias(pattern, trust_domain))))
}

/// `cluster.local/ns/N/sa/S` means the own trust domain, as in Istio; only where it has these five parts.
fn with_alias(pattern: &Pattern, trust_domain: &str) -> Pattern {
    let rewrite = |text: &Arc<str>| -> Option<Arc<str>> {
        let rest = text.strip_prefix("cluster.local/")?;
        (rest.split('/').count() == 4).then(|| format!("{trust_domain}/{rest}").into())
    };
    match pattern {
        Pattern::Exact(text) => rewrite(text).map(Pattern::Exact),
        Pattern::Prefix(text) => rewrite(text).map(Pattern::Prefix),
        Pattern::Suffix(_) | Pattern::Present => None,
    }
    .unwrap_or_else(|| pattern.clone())
}
