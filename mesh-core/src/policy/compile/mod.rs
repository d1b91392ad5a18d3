//! Rules as the engine runs them: alternatives of tests, free of documents.
//!
//! A new field of Istio is one more [`Check`]; nothing else here moves.

mod aliases;
mod check;
mod claim;
mod header;

use std::borrow::Cow;

pub(super) use aliases::TrustDomains;
pub(super) use check::Check;
use header::HeaderRule;

use super::account::{NamespaceAnywhere, ServiceAccount};
use super::document::{Action, Clause, Condition, Operation, PathPattern, Rule, Source};
use super::ip::IpBlock;
use super::pattern::{Pattern, PatternSet};
use super::request::{Protocol, Request};
use super::{Mode, PeerView, RequestPrincipal};

/// One rule of one policy.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// Index of its policy in the engine.
    pub(super) policy: usize,
    /// 0-based index within its policy.
    pub(super) index: u32,
    pub(super) action: Action,
    pub(super) from: Box<[Alternative]>,
    pub(super) to: Box<[Alternative]>,
    pub(super) when: Box<[Test]>,
    /// Whether any test is of something that raw TCP does not have.
    http: bool,
    /// Whether every caller that an index finds it by fits its sources.
    pub(super) settled_by_name: bool,
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
    pub(super) field: Cow<'static, str>,
}

/// What is assumed of the token while a rule is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The token that came, or none.
    AsSent,
    /// The most welcome token there could be: every clause about tokens falls in the caller's favour.
    Ideal,
}

/// What compiling depends on beside the rule.
#[derive(Debug)]
pub(super) struct Compiler<'a> {
    pub(super) mode: Mode,
    pub(super) trust_domains: &'a TrustDomains,
}

impl CompiledRule {
    /// `None` where nothing is left of it: Istio drops an ALLOW rule whose condition it cannot translate.
    pub(super) fn new(policy: usize, index: u32, action: Action, rule: &Rule, compiler: &Compiler<'_>) -> Option<Self> {
        let lost = rule.when.iter().any(|condition| matches!(condition, Condition::Untranslatable { .. }));
        if lost && action == Action::Allow {
            return None;
        }
        let from: Box<[Alternative]> = rule.from.iter().map(|source| compiler.source(source, action)).collect();
        let to: Box<[Alternative]> = rule.to.iter().map(|operation| compiler.operation(operation, action)).collect();
        let when: Box<[Test]> = rule.when.iter().flat_map(|condition| compiler.condition(condition, action)).collect();
        let http = from.iter().chain(&to).flatten().chain(&when).any(|test| test.check.is_http_only());
        Some(Self { policy, index, action, from, to, when, http, settled_by_name: false })
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = &Test> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }

    pub(super) fn asks_for_tokens(&self) -> bool {
        self.tests().any(|test| test.check.is_about_token())
    }

    pub(super) fn matches(&self, request: &Request<'_>, token: Token) -> bool {
        self.matches_from(request, token, false)
    }

    /// As [`matches`](Self::matches), for a caller that an index found it by. `settled`: one of its sources is known to fit.
    pub(super) fn matches_found(&self, request: &Request<'_>, token: Token, settled: bool) -> bool {
        self.matches_from(request, token, settled || self.settled_by_name)
    }

    /// `settled`: one of its sources is known to fit. On raw TCP an ALLOW rule that looks at HTTP matches nothing.
    /// (Istio)
    fn matches_from(&self, request: &Request<'_>, token: Token, settled: bool) -> bool {
        if self.http && request.protocol == Protocol::Tcp && self.action == Action::Allow {
            return false;
        }
        let all = |tests: &[Test]| tests.iter().all(|test| test.holds(request, self.action, token));
        let any = |alternatives: &[Alternative]| {
            alternatives.is_empty() || alternatives.iter().any(|alternative| all(alternative))
        };
        (settled || any(&self.from)) && any(&self.to) && all(&self.when)
    }
}

impl Test {
    /// What raw TCP does not have counts as not written, so that a DENY rule gets wider. (Istio)
    pub(super) fn holds(&self, request: &Request<'_>, action: Action, token: Token) -> bool {
        if self.check.is_http_only() {
            if request.protocol == Protocol::Tcp {
                return action != Action::Allow;
            }
            if token == Token::Ideal && self.check.is_about_token() {
                return action == Action::Allow;
            }
        }
        match &self.check {
            Check::Header(rule) => rule.holds(request, self.negated, action),
            // Of two readings ALLOW wants both in order; for any other action one that is not is enough.
            Check::Path { .. } if request.resolved_path.is_some() => {
                let mut readings = request.paths().map(|path| self.check.lists_path(path) != self.negated);
                if action == Action::Allow { readings.all(|holds| holds) } else { readings.any(|holds| holds) }
            }
            // Nobody knows which route it is: no ALLOW rule holds, every other one does.
            Check::Route(_) if request.route.is_none() => action != Action::Allow,
            check => check.matches(request) != self.negated,
        }
    }

    /// Whether the connection alone decides it, whoever calls.
    pub(super) fn is_of_connection(&self) -> bool {
        self.check.of_peer(&PeerView::new(None, None, 0)).is_some()
    }

    /// How it falls for every request of the caller; `None` where that depends on the request.
    pub(super) fn outcome(&self, caller: &PeerView<'_>) -> Option<bool> {
        self.check.of_peer(caller).map(|listed| listed != self.negated)
    }
}

impl Compiler<'_> {
    fn source(&self, source: &Source, action: Action) -> Alternative {
        let Source {
            principals,
            request_principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
        } = source;
        let mut tests = Tests::of(action);
        tests.add(principals, ["source.principals", "source.notPrincipals"].map(Cow::Borrowed), |all, _| {
            self.principals(all)
        });
        tests.add(namespaces, ["source.namespaces", "source.notNamespaces"].map(Cow::Borrowed), |all, use_of| {
            self.namespaces(all, use_of)
        });
        tests.add(
            service_accounts,
            ["source.serviceAccounts", "source.notServiceAccounts"].map(Cow::Borrowed),
            |all, use_of| self.accounts(all, use_of),
        );
        tests.add(trust_domains, ["source.trustDomains", "source.notTrustDomains"].map(Cow::Borrowed), |all, _| {
            self.domains(all)
        });
        tests.add(ip_blocks, ["source.ipBlocks", "source.notIpBlocks"].map(Cow::Borrowed), |all, _| {
            Check::SourceIp(all.into())
        });
        tests.add(
            remote_ip_blocks,
            ["source.remoteIpBlocks", "source.notRemoteIpBlocks"].map(Cow::Borrowed),
            |all, _| Check::RemoteIp(all.into()),
        );
        let names = ["source.requestPrincipals", "source.notRequestPrincipals"].map(Cow::Borrowed);
        tests.add(request_principals, names, |all, _| Check::RequestPrincipal(all.into()));
        tests.all.into()
    }

    fn operation(&self, operation: &Operation, action: Action) -> Alternative {
        let Operation { hosts, ports, methods, paths } = operation;
        let mut tests = Tests::of(action);
        tests
            .add(ports, ["operation.ports", "operation.notPorts"].map(Cow::Borrowed), |all, _| Check::Port(all.into()));
        tests.add(methods, ["operation.methods", "operation.notMethods"].map(Cow::Borrowed), |all, use_of| {
            let get_is_head = self.mode == Mode::Strict && use_of == Use::KeepsOut;
            Check::Method { methods: set(all), get_is_head }
        });
        tests.add(paths, ["operation.paths", "operation.notPaths"].map(Cow::Borrowed), |all, _| self::paths(all));
        tests
            .add(hosts, ["operation.hosts", "operation.notHosts"].map(Cow::Borrowed), |all, _| Check::Host(all.into()));
        tests.all.into()
    }

    fn condition(&self, condition: &Condition, action: Action) -> Vec<Test> {
        let mut tests = Tests::of(action);
        let field = |key: &str| ["values", "notValues"].map(|list| Cow::Owned(format!("{key}: {list}")));
        let ips = |all: &[IpBlock]| -> Box<[IpBlock]> { all.into() };
        match condition {
            Condition::SourcePrincipal(values) => {
                tests.add(values, field("source.principal"), |all, _| self.principals(all));
            }
            Condition::SourceNamespace(values) => {
                tests.add(values, field("source.namespace"), |all, use_of| self.namespaces(all, use_of));
            }
            Condition::SourceServiceAccount(values) => {
                tests.add(values, field("source.serviceAccount"), |all, use_of| self.accounts(all, use_of));
            }
            Condition::SourceTrustDomain(values) => {
                tests.add(values, field("source.trustDomain"), |all, _| self.domains(all));
            }
            Condition::SourceIp(values) => tests.add(values, field("source.ip"), |all, _| Check::SourceIp(ips(all))),
            Condition::RemoteIp(values) => tests.add(values, field("remote.ip"), |all, _| Check::RemoteIp(ips(all))),
            Condition::DestinationIp(values) => {
                tests.add(values, field("destination.ip"), |all, _| Check::DestinationIp(ips(all)));
            }
            Condition::DestinationPort(values) => {
                tests.add(values, field("destination.port"), |all, _| Check::Port(all.into()));
            }
            Condition::Sni(values) => tests.add(values, field("connection.sni"), |all, _| Check::Sni(set(all))),
            Condition::RequestPrincipal(values) => tests.add(values, field("request.auth.principal"), |all, _| {
                let all: Box<[RequestPrincipal]> = all.into();
                Check::RequestPrincipal(all)
            }),
            Condition::Claim { path, values } => {
                let key = format!("request.auth.claims[{}]", path.join("]["));
                tests.add(values, field(&key), |all, _| Check::Claim { path: path.clone().into(), values: set(all) });
            }
            Condition::Header { name, values } => {
                tests.add(values, field(&format!("request.headers[{name}]")), |all, use_of| {
                    Check::Header(HeaderRule::new(name, set(all), self.mode, use_of))
                });
            }
            Condition::Scope(values) => tests.add(values, field("scope"), |all, _| Check::Scope(set(all))),
            Condition::Route(values) => tests.add(values, field("route"), |all, _| Check::Route(set(all))),
            // Of an ALLOW rule nothing is left; any other one gets wider.
            Condition::Untranslatable { .. } => {}
        }
        tests.all
    }

    fn principals(&self, patterns: &[Pattern]) -> Check {
        Check::Principal(PatternSet::new(patterns.iter().flat_map(|pattern| self.trust_domains.principals(pattern))))
    }

    fn domains(&self, patterns: &[Pattern]) -> Check {
        Check::TrustDomain(PatternSet::new(patterns.iter().flat_map(|pattern| self.trust_domains.domains(pattern))))
    }

    /// Whoever is in by the exact reading is in by Istio's: a list that keeps out is nowhere narrower than there, and
    /// one that lets in nowhere wider.
    fn namespaces(&self, patterns: &[Pattern], use_of: Use) -> Check {
        match (self.mode, use_of) {
            (Mode::Strict, Use::LetsIn) => Check::Namespace(set(patterns)),
            (Mode::Strict, Use::KeepsOut) | (Mode::Compat, _) => Check::NamespaceAnywhere(
                patterns.iter().map(|pattern| NamespaceAnywhere::new(&pattern.to_string())).collect(),
            ),
        }
    }

    fn accounts(&self, accounts: &[ServiceAccount], use_of: Use) -> Check {
        let anywhere = self.mode == Mode::Compat || use_of == Use::KeepsOut;
        Check::ServiceAccount { accounts: accounts.into(), anywhere }
    }
}

/// What a caller gets from being in a list. Where that is in doubt, strict mode gives nobody the better of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// ALLOW rules by a positive list, all others by a negative one.
    LetsIn,
    /// The other way round.
    KeepsOut,
}

impl Use {
    fn of(action: Action, negated: bool) -> Self {
        if (action == Action::Allow) == negated { Self::KeepsOut } else { Self::LetsIn }
    }
}

struct Tests {
    action: Action,
    all: Vec<Test>,
}

impl Tests {
    fn of(action: Action) -> Self {
        Self { action, all: Vec::new() }
    }

    fn add<T>(
        &mut self,
        clause: &Clause<T>,
        [positive, negative]: [Cow<'static, str>; 2],
        check: impl Fn(&[T], Use) -> Check,
    ) {
        let Clause { any_of, none_of } = clause;
        let action = self.action;
        let test = |all: &[T], negated, field: &Cow<'static, str>| {
            let field = field.clone();
            Test { check: check(all, Use::of(action, negated)), negated, field }
        };
        self.all.extend(any_of.iter().map(|all| test(all, false, &positive)));
        self.all.extend(none_of.iter().map(|all| test(all, true, &negative)));
    }
}

fn set(patterns: &[Pattern]) -> PatternSet {
    PatternSet::new(patterns.iter().cloned())
}

fn paths(all: &[PathPattern]) -> Check {
    let texts =
        all.iter().filter_map(|path| if let PathPattern::Text(text) = path { Some(text.clone()) } else { None });
    let templates = all.iter().filter_map(|path| match path {
        PathPattern::Template(template) => Some(template.clone()),
        PathPattern::Text(_) => None,
    });
    Check::Path { texts: PatternSet::new(texts), templates: templates.collect() }
}
