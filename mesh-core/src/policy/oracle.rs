//! The engine against a naive reading of the documents, over random policies and requests.
//!
//! The evaluator here knows nothing of indexes, sets or alternatives of tests: it walks the documents as Istio's
//! documentation reads, string by string.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::*;
use crate::config::{NoPolicy, Place, Workload};
use crate::identity::{SpiffeId, TrustDomain};
use crate::token::VerifiedToken;

const DOMAIN: &str = "d.example";

fn string(pattern: &Pattern, value: &str) -> bool {
    match pattern.to_string().as_str() {
        "*" => !value.is_empty(),
        text if text.ends_with('*') => value.starts_with(&text[..text.len() - 1]),
        text if text.starts_with('*') => value.ends_with(&text[1..]),
        text => text == value,
    }
}

/// Positive and negative list over a value that may be absent.
fn clause<T>(clause: &Clause<T>, matches: impl Fn(&T) -> bool) -> bool {
    clause.any_of.as_ref().is_none_or(|all| all.iter().any(&matches))
        && clause.none_of.as_ref().is_none_or(|all| !all.iter().any(&matches))
}

fn principal(pattern: &Pattern, request: &Request<'_>) -> bool {
    let Some(id) = request.peer else { return false };
    let mut text = pattern.to_string();
    if text.starts_with("cluster.local/") && text.split('/').count() == 5 {
        text = text.replacen("cluster.local", DOMAIN, 1);
    }
    string(&Pattern::parse(&text).unwrap(), &id.as_str()["spiffe://".len()..])
}

fn namespace(pattern: &Pattern, request: &Request<'_>) -> bool {
    let parts: Vec<&str> = request.peer.map(|id| id.as_str().split('/').collect()).unwrap_or_default();
    match parts[..] {
        ["spiffe:", "", _, "ns", namespace, "sa", _] => string(pattern, namespace),
        _ => false,
    }
}

fn subject(pattern: &RequestPrincipal, request: &Request<'_>) -> bool {
    request.token.is_some_and(|token| {
        string(&pattern.issuer, &token.issuer)
            && token.subject.as_ref().is_some_and(|subject| string(&pattern.subject, subject))
    })
}

fn claim(path: &[String], pattern: &Pattern, request: &Request<'_>) -> bool {
    let Some(token) = request.token else { return false };
    let mut value = &Value::Object(token.claims.clone());
    for key in path {
        let Some(inner) = value.get(key) else { return false };
        value = inner;
    }
    let values: Vec<&str> = match value {
        Value::String(text) if path == ["scope"] => text.split(' ').collect(),
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    values.into_iter().any(|value| string(pattern, value))
}

fn header(name: &str, values: &Clause<Pattern>, request: &Request<'_>, action: Action) -> bool {
    let mut present = Vec::new();
    request.headers.values(name, &mut |value| present.push(String::from_utf8(value.to_vec()).unwrap()));
    let listed = |all: &Vec<Pattern>, value: &String| all.iter().any(|pattern| string(pattern, value));
    let (positive, negative) = (&values.any_of, &values.none_of);
    match action {
        Action::Allow => {
            positive.as_ref().is_none_or(|all| !present.is_empty() && present.iter().all(|value| listed(all, value)))
                && negative.as_ref().is_none_or(|all| !present.iter().any(|value| listed(all, value)))
        }
        Action::Deny => {
            positive.as_ref().is_none_or(|all| present.iter().any(|value| listed(all, value)))
                && negative
                    .as_ref()
                    .is_none_or(|all| present.is_empty() || present.iter().any(|value| !listed(all, value)))
        }
    }
}

fn rule(rule: &Rule, request: &Request<'_>, action: Action) -> bool {
    let from = |source: &Source| {
        clause(&source.principals, |pattern| principal(pattern, request))
            && clause(&source.namespaces, |pattern| namespace(pattern, request))
            && clause(&source.request_principals, |pattern| subject(pattern, request))
    };
    let to = |operation: &Operation| {
        let lower = |pattern: &Pattern| Pattern::parse(&pattern.to_string().to_lowercase()).unwrap();
        clause(&operation.methods, |pattern| string(pattern, request.method))
            && clause(&operation.paths, |pattern| string(pattern, request.path))
            && clause(&operation.hosts, |pattern| string(&lower(pattern), &request.host.to_lowercase()))
            && clause(&operation.ports, |port| *port == request.port)
    };
    let when = |condition: &Condition| match condition {
        Condition::SourcePrincipal(values) => clause(values, |pattern| principal(pattern, request)),
        Condition::SourceNamespace(values) => clause(values, |pattern| namespace(pattern, request)),
        Condition::DestinationPort(values) => clause(values, |port| *port == request.port),
        Condition::RequestPrincipal(values) => clause(values, |pattern| subject(pattern, request)),
        Condition::Claim { path, values } => clause(values, |pattern| claim(path, pattern, request)),
        Condition::Header { name, values } => header(name, values, request, action),
    };
    (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
        && rule.when.iter().all(when)
}

/// Verdict, reason, and who decided.
fn naive(
    documents: &[AuthorizationPolicy],
    workload: &Workload,
    no_policy: NoPolicy,
    request: &Request<'_>,
) -> (Verdict, Reason, Option<(String, u32)>) {
    let selected = |policy: &&AuthorizationPolicy| {
        (&*policy.namespace == "root" || *policy.namespace == workload.namespace)
            && policy.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
    };
    let selected: Vec<&AuthorizationPolicy> = documents.iter().filter(selected).collect();
    let first = |action: Action| {
        let of_action = selected.iter().filter(|policy| policy.action == action);
        of_action
            .flat_map(|policy| policy.rules.iter().enumerate().map(|(at, rule)| (policy.name.to_string(), at, rule)))
            .find(|(_, _, candidate)| rule(candidate, request, action))
            .map(|(name, at, _)| (name, at as u32))
    };
    if let Some(by) = first(Action::Deny) {
        return (Verdict::Deny, Reason::DenyRule, Some(by));
    }
    if selected.is_empty() && no_policy == NoPolicy::Deny {
        return (Verdict::Deny, Reason::NoPolicyDeny, None);
    }
    if !selected.iter().any(|policy| policy.action == Action::Allow) {
        return (Verdict::Allow, Reason::NoPolicyAllow, None);
    }
    match first(Action::Allow) {
        Some(by) => (Verdict::Allow, Reason::AllowRule, Some(by)),
        None => (Verdict::Deny, Reason::NoAllowRule, None),
    }
}

/// A few values that meet often, as patterns of every kind.
fn patterns(values: &'static [&'static str]) -> BoxedStrategy<Vec<Pattern>> {
    let pattern = (select(values), 0..6_u8, any::<prop::sample::Index>()).prop_map(|(value, form, at)| {
        let cut = at.index(value.len()).max(1);
        let text = match form {
            0 => format!("{}*", &value[..cut]),
            1 => format!("*{}", &value[value.len() - cut..]),
            2 if at.index(4) == 0 => "*".to_owned(),
            _ => value.to_owned(),
        };
        Pattern::parse(&text).unwrap()
    });
    // Beyond eight, the engine keeps them in another way.
    prop_oneof![9 => prop::collection::vec(pattern.clone(), 1..4), 1 => prop::collection::vec(pattern, 9..12)].boxed()
}

fn clauses<T: std::fmt::Debug + Clone + 'static>(values: BoxedStrategy<Vec<T>>) -> BoxedStrategy<Clause<T>> {
    let list = |weight: u32| prop_oneof![10 => Just(None), weight => values.clone().prop_map(Some)];
    (list(8), list(2)).prop_map(|(any_of, none_of)| Clause { any_of, none_of }).boxed()
}

const PEERS: &[&str] = &[
    "d.example/ns/shop/sa/web",
    "d.example/ns/shop/sa/batch",
    "d.example/ns/ops/sa/web",
    "other.example/ns/shop/sa/web",
    "d.example/gateway",
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/shop/extra/sa/web",
];
const NAMESPACES: &[&str] = &["shop", "ops", "sh"];
const ISSUERS: &[&str] = &["https://a.example", "https://b.example"];
const SUBJECTS: &[&str] = &["alice", "bob"];
const METHODS: &[&str] = &["GET", "POST", "get"];
const PATHS: &[&str] = &["/", "/orders", "/orders/7", "/admin", "/a.c"];
const HOSTS: &[&str] = &["orders", "Orders:8443", "x.orders"];
const VALUES: &[&str] = &["red", "green", "blue"];

fn subjects() -> BoxedStrategy<Vec<RequestPrincipal>> {
    const FORMS: &[&str] =
        &["*", "*ice", "https://a.example/alice", "https://a.example/*", "*/bob", "a*", "h*", "*e/alice"];
    prop::collection::vec(select(FORMS).prop_map(|text| RequestPrincipal::parse(text).unwrap()), 1..3).boxed()
}

fn ports() -> BoxedStrategy<Vec<u16>> {
    prop::collection::vec(select(&[80_u16, 8443, 0][..]), 1..3).boxed()
}

fn conditions() -> BoxedStrategy<Condition> {
    let values = || clauses(patterns(VALUES)).prop_filter("one is required", |clause| !clause.is_empty());
    let path = select(vec![vec!["group"], vec!["scope"], vec!["nested", "colour"]]);
    prop_oneof![
        clauses(patterns(PEERS)).prop_map(Condition::SourcePrincipal),
        clauses(patterns(NAMESPACES)).prop_map(Condition::SourceNamespace),
        clauses(ports()).prop_map(Condition::DestinationPort),
        clauses(subjects()).prop_map(Condition::RequestPrincipal),
        (path, values()).prop_map(|(path, values)| Condition::Claim {
            path: path.into_iter().map(str::to_owned).collect(),
            values
        }),
        values().prop_map(|values| Condition::Header { name: "x-colour".to_owned(), values }),
    ]
    .boxed()
}

fn rules() -> impl Strategy<Value = Rule> {
    let source = (clauses(patterns(PEERS)), clauses(subjects()), clauses(patterns(NAMESPACES)))
        .prop_map(|(principals, request_principals, namespaces)| Source { principals, request_principals, namespaces });
    let operation = (clauses(patterns(HOSTS)), clauses(ports()), clauses(patterns(METHODS)), clauses(patterns(PATHS)))
        .prop_map(|(hosts, ports, methods, paths)| Operation { hosts, ports, methods, paths });
    (
        prop::collection::vec(source, 0..3),
        prop::collection::vec(operation, 0..3),
        prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(conditions(), 1..3)],
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn documents() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let one = (
        select(&["shop", "root", "ops"][..]),
        prop_oneof![3 => Just(None), 1 => select(&["orders", "other"][..]).prop_map(Some)],
        prop_oneof![2 => Just(Action::Allow), 1 => Just(Action::Deny)],
        prop::collection::vec(rules(), 0..5),
    );
    prop::collection::vec(one, 0..5).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(at, (namespace, app, action, rules))| AuthorizationPolicy {
                name: format!("{namespace}/p{at}").into(),
                namespace: namespace.into(),
                selector: app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect(),
                action,
                rules,
                place: Place { file: "<test>".into(), line: 0, column: 0, path: String::new() },
            })
            .collect()
    })
}

#[derive(Debug)]
struct Colours(Vec<&'static str>);

impl Headers for Colours {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x-colour" {
            self.0.iter().for_each(|value| each(value.as_bytes()));
        }
    }
}

#[derive(Debug)]
struct Sent {
    peer: Option<SpiffeId>,
    token: Option<VerifiedToken>,
    method: &'static str,
    path: &'static str,
    host: &'static str,
    port: u16,
    colours: Colours,
}

impl Sent {
    fn request(&self) -> Request<'_> {
        Request {
            peer: self.peer.as_ref(),
            token: self.token.as_ref(),
            method: self.method,
            path: self.path,
            host: self.host,
            port: self.port,
            route: None,
            source_ip: None,
            headers: &self.colours,
        }
    }
}

fn tokens() -> impl Strategy<Value = VerifiedToken> {
    let claims = select(vec![
        json!({}),
        json!({ "group": "red", "scope": "red blue" }),
        json!({ "group": ["green", 7, "blue"], "scope": "green" }),
        json!({ "group": 7, "nested": { "colour": "red" } }),
        json!({ "nested": "red", "scope": ["red"] }),
    ]);
    (select(ISSUERS), prop::option::weighted(0.8, select(SUBJECTS)), claims).prop_map(|(issuer, subject, claims)| {
        let claims: Map<String, Value> = claims.as_object().unwrap().clone();
        VerifiedToken {
            issuer: issuer.into(),
            subject: subject.map(Into::into),
            audiences: vec![],
            expires: std::time::UNIX_EPOCH,
            claims,
        }
    })
}

fn requests() -> impl Strategy<Value = Sent> {
    let peer = select(PEERS).prop_map(|name| SpiffeId::parse(&format!("spiffe://{name}")).unwrap());
    (
        prop::option::weighted(0.8, peer),
        prop::option::weighted(0.6, tokens()),
        select(METHODS),
        select(PATHS),
        select(&["orders", "orders:8443", "x.orders", ""][..]),
        select(&[80_u16, 8443][..]),
        subsequence(VALUES.to_vec(), 0..=3),
    )
        .prop_map(|(peer, token, method, path, host, port, colours)| Sent {
            peer,
            token,
            method,
            path,
            host,
            port,
            colours: Colours(colours),
        })
}

proptest! {
    // A failure prints its seed and is kept beside this file.
    #![proptest_config(ProptestConfig { cases: 2_600, ..ProptestConfig::default() })]

    /// 2,600 sets of policies, eight requests each.
    #[test]
    fn the_engine_decides_as_a_naive_reading_of_the_documents(
        documents in documents(),
        sent in prop::collection::vec(requests(), 8),
        allow_without_policy in any::<bool>(),
    ) {
        let mut workload = Workload::new("orders", "shop");
        workload.labels = BTreeMap::from([("app".to_owned(), "orders".to_owned())]);
        let no_policy = if allow_without_policy { NoPolicy::Allow } else { NoPolicy::Deny };
        let options = EngineOptions {
            root_namespace: "root".to_owned(),
            trust_domain: TrustDomain::parse(DOMAIN).unwrap(),
            no_policy,
        };
        let engine = PolicyEngine::compile(&documents, &workload, &options);
        for sent in &sent {
            let request = sent.request();
            let decision = engine.decide(&request);
            let decided_by = decision.policy.as_deref().map(str::to_owned).zip(decision.rule);
            let expected = naive(&documents, &workload, no_policy, &request);
            prop_assert_eq!((decision.verdict, decision.reason, decided_by), expected, "{:?}", sent);
            let explanation = engine.explain(&request);
            prop_assert_eq!(&explanation.decision, &decision);
            let first = explanation.steps.iter().find(|step| step.matched);
            if let (Some(rule), Some(policy)) = (decision.rule, &decision.policy) {
                let first = first.unwrap();
                // ALLOW steps come after DENY steps, none of which can have matched.
                prop_assert_eq!((&first.policy, first.rule), (policy, rule));
            }
            let caller = PeerView { peer: request.peer, source_ip: request.source_ip, port: request.port };
            let reach = engine.reach(&caller);
            prop_assert!(reach.is_possible() || decision.verdict == Verdict::Deny, "{:?}: {:?}", reach, sent);
            // A 401 promises that some token would open the door: then none came, and it is shut.
            prop_assert!(!decision.token_would_help || (request.token.is_none() && decision.verdict == Verdict::Deny));
        }
    }

    /// Where a policy looks at nothing but the connection, the answer is no estimate.
    #[test]
    fn of_policies_about_callers_alone_reach_is_exact(
        documents in documents(),
        sent in prop::collection::vec(requests(), 8),
    ) {
        let mut documents = documents;
        for rule in documents.iter_mut().flat_map(|document| &mut document.rules) {
            for source in &mut rule.from {
                source.request_principals = Clause::default();
            }
            for operation in &mut rule.to {
                *operation = Operation { ports: operation.ports.clone(), ..Operation::default() };
            }
            rule.when.retain(|condition| matches!(
                condition,
                Condition::SourcePrincipal(_) | Condition::SourceNamespace(_) | Condition::DestinationPort(_)
            ));
        }
        let mut workload = Workload::new("orders", "shop");
        workload.labels = BTreeMap::from([("app".to_owned(), "orders".to_owned())]);
        let options =
            EngineOptions { root_namespace: "root".to_owned(), ..EngineOptions::new(TrustDomain::parse(DOMAIN).unwrap()) };
        let engine = PolicyEngine::compile(&documents, &workload, &options);
        for sent in &sent {
            let request = sent.request();
            let (verdict, reason, by) = naive(&documents, &workload, NoPolicy::Deny, &request);
            let expected = match verdict {
                Verdict::Allow => Reach::Possible,
                Verdict::Deny => {
                    let (policy, rule) = by.unzip();
                    Reach::Impossible { reason, policy: policy.map(Into::into), rule }
                }
            };
            let caller = PeerView { peer: request.peer, source_ip: None, port: request.port };
            prop_assert_eq!(engine.reach(&caller), expected, "{:?}", sent);
        }
    }
}
