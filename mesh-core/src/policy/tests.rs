//! The order of evaluation, reasons, and explanations.

use std::sync::Arc;

use super::*;
use crate::config::{Errors, NoPolicy, Workload};
use crate::identity::{SpiffeId, TrustDomain};

fn engine(yaml: &str, no_policy: NoPolicy) -> PolicyEngine {
    let mut errors = Errors::default();
    let documents = parse_documents("<test>", yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}", errors.issues());
    let mut workload = Workload::new("orders", "shop");
    workload.labels.insert("app".to_owned(), "orders".to_owned());
    let options = EngineOptions { no_policy, ..EngineOptions::new(TrustDomain::parse("shop.example").unwrap()) };
    PolicyEngine::compile(&documents, &workload, &options)
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: \
         shop }}\nspec: {spec}\n"
    )
}

fn request(peer: Option<&SpiffeId>) -> Request<'_> {
    let (method, path, host) = ("GET", "/orders/7", "orders:8443");
    Request { peer, method, path, host, port: 8443, ..Request::UNKNOWN }
}

#[test]
fn the_order_is_deny_then_allow_then_deny() {
    let allow_web =
        policy("web", "{ rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/web] } }] }] }");
    let deny_delete = policy("ro", "{ action: DENY, rules: [{ to: [{ operation: { notMethods: [GET] } }] }] }");
    let nothing = policy("nothing", "{}");
    let all = policy("all", "{ rules: [{}] }");
    let elsewhere = policy("x", "{ selector: { matchLabels: { app: other } }, action: DENY, rules: [{}] }");
    let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
    let other = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    for (documents, peer, method, reason, decided_by) in [
        (vec![], Some(&web), "GET", Reason::NoPolicyDeny, None),
        (vec![&elsewhere], Some(&web), "GET", Reason::NoPolicyDeny, None),
        (vec![&nothing], Some(&web), "GET", Reason::NoAllowRule, None),
        (vec![&nothing, &all], None, "GET", Reason::AllowRule, Some(("shop/all", 0))),
        (vec![&allow_web], Some(&web), "GET", Reason::AllowRule, Some(("shop/web", 0))),
        (vec![&allow_web], Some(&other), "GET", Reason::NoAllowRule, None),
        (vec![&allow_web], None, "GET", Reason::NoAllowRule, None),
        (vec![&deny_delete], None, "GET", Reason::NoPolicyAllow, None),
        (vec![&all, &deny_delete], Some(&web), "DELETE", Reason::DenyRule, Some(("shop/ro", 0))),
    ] {
        let yaml: String = documents.iter().map(|text| text.as_str()).collect();
        let engine = engine(&yaml, NoPolicy::Deny);
        let request = Request { method, ..request(peer) };
        let decision = engine.decide(&request);
        assert_eq!(decision.reason, reason, "{yaml}");
        assert_eq!(decision.policy.as_deref().zip(decision.rule), decided_by, "{yaml}");
        let explanation = engine.explain(&request);
        assert_eq!(explanation.decision, decision);
        assert_eq!(explanation.steps.iter().any(|step| step.matched), decided_by.is_some());
        // A rule that might have helped is of interest only where none decided.
        let may_allow = explanation.steps.iter().any(|step| step.action == Action::Allow);
        assert_eq!(explanation.nearest.is_some(), reason == Reason::NoAllowRule && may_allow, "{yaml}");
    }
    assert_eq!(engine("", NoPolicy::Allow).decide(&request(None)).verdict, Verdict::Allow);
}

#[test]
fn a_token_helps_exactly_where_nothing_else_is_missing() {
    let alice = crate::token::VerifiedToken {
        issuer: "https://idp.example".into(),
        subject: Some("alice".into()),
        audiences: vec![],
        expires: std::time::UNIX_EPOCH,
        claims: serde_json::Map::default(),
    };
    let any_token = "{ rules: [{ from: [{ source: { requestPrincipals: ['*'] } }] }] }";
    let token_and_get = "{ rules: [{ from: [{ source: { requestPrincipals: ['*'] } }], to: [{ operation: { \
                         methods: [GET] } }] }] }";
    let claim = "{ rules: [{ when: [{ key: 'request.auth.claims[role]', values: [admin] }] }] }";
    let bob = "{ rules: [{ from: [{ source: { requestPrincipals: ['https://idp.example/bob'] } }] }] }";
    // The usual way to demand a token in Istio, beside whatever allows.
    let demand = "{ action: DENY, rules: [{ from: [{ source: { notRequestPrincipals: ['*'] } }] }] }";
    let closed = "{ action: DENY, rules: [{ to: [{ operation: { methods: [POST] } }] }] }";
    for (specs, method, with_token, helps) in [
        (vec![any_token], "GET", false, true),
        (vec![any_token], "GET", true, false),
        (vec![token_and_get], "GET", false, true),
        (vec![token_and_get], "POST", false, false),
        (vec![claim], "GET", false, true),
        (vec![claim], "GET", true, false),
        (vec![bob], "GET", false, true),
        (vec![bob], "GET", true, false),
        (vec![demand], "GET", false, true),
        (vec![demand, any_token], "GET", false, true),
        (vec![demand, closed], "POST", false, false),
        (vec!["{}"], "GET", false, false),
        (vec![], "GET", false, false),
    ] {
        let yaml: String = specs.iter().enumerate().map(|(at, spec)| policy(&format!("p{at}"), spec)).collect();
        let engine = engine(&yaml, NoPolicy::Deny);
        let token = with_token.then_some(&alice);
        let decision = engine.decide(&Request { method, token, ..request(None) });
        assert_eq!(decision.token_would_help, helps, "{method} {specs:?}");
    }
}

#[test]
fn an_explanation_names_the_nearest_rule_and_every_field_it_missed() {
    let far = "{ from: [{ source: { principals: [shop.example/ns/ops/sa/a] } }], to: [{ operation: { methods: \
               [PUT], paths: [/x] } }] }";
    let near = "{ from: [{ source: { namespaces: [ops] } }, { source: { namespaces: [shop] } }], to: [{ \
                operation: { methods: [PUT, DELETE], paths: ['/orders/*'] } }] }";
    let yaml = policy("orders", &format!("{{ rules: [{far}, {near}] }}")) + &policy("nothing", "{}");
    let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
    let engine = engine(&yaml, NoPolicy::Deny);
    let explanation = engine.explain(&request(Some(&web)));
    assert_eq!(explanation.nearest, Some(1));
    assert_eq!(
        explanation.to_string(),
        "denied (no_allow_rule)\n\
         nearest: shop/orders rule 1\n  \
         to[0].operation.methods: the request has \"GET\", the rule wants one of `DELETE`, `PUT`\n\
         ALLOW shop/orders rule 0: no match: from[0].source.principals: the request has \
         \"shop.example/ns/shop/sa/web\", the rule wants one of `shop.example/ns/ops/sa/a` (and 2 more)\n\
         ALLOW shop/orders rule 1: no match: to[0].operation.methods: the request has \"GET\", the rule wants one \
         of `DELETE`, `PUT`\n\
         ALLOW shop/nothing: has no rules and allows nothing"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["decision"]["verdict"], "deny");
    assert_eq!(json["decision"]["reason"], "no_allow_rule");
    assert_eq!(json["steps"][0]["misses"][0]["found"], "shop.example/ns/shop/sa/web");
    assert_eq!(json["allow_nothing"][0], "shop/nothing");
    let summary: Vec<_> = engine.policies().iter().map(|policy| (&*policy.name, policy.rules)).collect();
    assert_eq!(summary, [("shop/orders", 2), ("shop/nothing", 0)]);
    // What a caller sends cannot write into a terminal.
    let forged = engine.explain(&Request { method: "GET\n\u{1b}[2Jallowed", ..request(Some(&web)) });
    assert!(!forged.to_string().contains('\u{1b}'));
}

#[test]
fn an_explanation_says_where_head_is_taken_for_get() {
    let deny = policy(
        "d",
        "{ action: DENY, rules: [{ to: [{ operation: { methods: [GET] } }, { operation: { paths: [/h] } }] }] }",
    );
    let allow = policy("a", "{ rules: [{ to: [{ operation: { notMethods: [GET] } }] }] }");
    let engine = engine(&(deny + &allow), NoPolicy::Deny);
    let told = |method, path| engine.explain(&Request { method, path, ..request(None) }).to_string();
    assert!(told("HEAD", "/a").contains("DENY shop/d rule 0: matched: the handler of GET answers HEAD\n"));
    assert!(told("HEAD", "/a").ends_with("\"HEAD, which the handler of GET answers\", the rule wants none of `GET`"));
    for (method, path) in [("GET", "/a"), ("HEAD", "/h")] {
        assert!(told(method, path).contains("DENY shop/d rule 0: matched\n"), "{method} {path}");
    }
}

/// Whichever of two readings a handler makes of a path: what policy denies it does not get.
#[test]
fn of_two_readings_allow_needs_both_and_deny_one() {
    for (action, operation, sent, resolved, allowed) in [
        ("ALLOW", "paths: ['/public/*']", "/public/a", "/public/a", true),
        ("ALLOW", "paths: ['/public/*']", "/public/../admin", "/admin", false),
        ("ALLOW", "paths: ['/public/*']", "/x/../public/a", "/public/a", false),
        ("ALLOW", "paths: ['/public/*', '/x/*']", "/x/../public/a", "/public/a", true),
        ("ALLOW", "paths: ['/public/{*}']", "/public/%61", "/public/a", true),
        ("ALLOW", "notPaths: [/admin]", "/public/../admin", "/admin", false),
        ("ALLOW", "notPaths: [/admin]", "/admin", "/public", false),
        ("ALLOW", "notPaths: [/admin]", "/a//b", "/a/b", true),
        ("DENY", "paths: [/admin]", "/public/../admin", "/admin", false),
        ("DENY", "paths: [/admin]", "/admin", "/public", false),
        ("DENY", "paths: [/admin]", "/a//b", "/a/b", true),
        ("DENY", "notPaths: ['/public/*']", "/public/../admin", "/admin", false),
        ("DENY", "notPaths: ['/public/*']", "/public//a", "/public/a", true),
    ] {
        let spec = format!("{{ action: {action}, rules: [{{ to: [{{ operation: {{ {operation} }} }}] }}] }}");
        let engine = engine(&policy("p", &spec), NoPolicy::Deny);
        let request = Request { path: sent, resolved_path: Some(resolved), ..Request::UNKNOWN };
        let verdict = engine.decide(&request).verdict;
        assert_eq!(verdict == Verdict::Allow, allowed, "{action} {operation} of {sent}, read as {resolved}");
    }
}

struct Team;

impl Headers for Team {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x-team" {
            ["a", "b"].iter().for_each(|value| each(value.as_bytes()));
        }
    }
}

/// Each field says what the request has of it, and that it has nothing where that is so.
#[test]
fn a_miss_says_what_the_request_has() {
    let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
    let token = crate::token::VerifiedToken {
        issuer: "https://idp.example".into(),
        subject: Some("alice".into()),
        audiences: vec![],
        expires: std::time::UNIX_EPOCH,
        claims: serde_json::json!({ "role": { "of": ["x", 7] }, "scope": "read write" }).as_object().unwrap().clone(),
    };
    let ip = |last| Some(std::net::IpAddr::from([10, 0, 0, last]));
    let full = Request {
        token: Some(&token),
        resolved_path: Some("/b"),
        path: "/a",
        route: Some("/{x}"),
        source_ip: ip(1),
        remote_ip: ip(2),
        destination_ip: ip(3),
        sni: Some("s.example"),
        headers: &Team,
        ..request(Some(&web))
    };
    let shown = format!("{full:?}");
    assert!(shown.contains("/{x}") && shown.contains("orders:8443") && !shown.contains("alice"), "{shown}");
    let source = |field: &str| format!("from: [{{ source: {{ {field} }} }}]");
    let operation = |field: &str| format!("to: [{{ operation: {{ {field} }} }}]");
    let when = |key: &str| format!("when: [{{ key: '{key}', values: [a] }}]");
    let principal = Some("shop.example/ns/shop/sa/web");
    for (part, wants, has, empty) in [
        (source("principals: [td/a, 'td/b*']"), "one of `td/a`, `td/b*`", principal, None),
        (source("namespaces: [a]"), "one of `a`", Some("shop"), None),
        // Looked for anywhere in the identity, as a list that keeps out is.
        (source("notNamespaces: [shop, a]"), "none of `shop`, `a`", principal, None),
        (source("serviceAccounts: [a, b/c]"), "one of `shop/a`, `b/c`", principal, None),
        (source("trustDomains: [a]"), "one of `a`", Some("shop.example"), None),
        (source("ipBlocks: [10.1.0.0/16]"), "one of `10.1.0.0/16`", Some("10.0.0.1"), None),
        (source("remoteIpBlocks: [10.1.0.1]"), "one of `10.1.0.1/32`", Some("10.0.0.2"), None),
        (source("requestPrincipals: [a/b]"), "one of `a/b`", Some("https://idp.example/alice"), None),
        (operation("hosts: [a]"), "one of `a`", Some("orders:8443"), Some("")),
        (operation("ports: [1]"), "one of `1`", Some("8443"), Some("0")),
        (operation("methods: [PUT]"), "one of `PUT`", Some("GET"), Some("")),
        (operation("paths: [/c, '/{*}/c']"), "one of `/c`, `/{*}/c`", Some("/a, read as /b"), Some("")),
        (when("destination.ip").replace("[a]", "[10.1.0.1]"), "one of `10.1.0.1/32`", Some("10.0.0.3"), None),
        (when("connection.sni"), "one of `a`", Some("s.example"), None),
        (when("route"), "one of `a`", Some("/{x}"), None),
        (when("request.auth.claims[role][of]"), "one of `a`", Some("[\"x\",7]"), None),
        (when("request.auth.claims[scope]"), "one of `a`", Some("\"read write\""), None),
        (when("request.headers[X-Team]"), "one of `a`", Some("a, b"), None),
        (when("request.headers[x-other]"), "one of `a`", None, None),
    ] {
        let engine = engine(&policy("p", &format!("{{ rules: [{{ {part} }}] }}")), NoPolicy::Deny);
        for (request, has) in [(&full, has), (&Request::UNKNOWN, empty)] {
            let explanation = engine.explain(request);
            // What is not there is in no list that excludes.
            let [miss] = explanation.steps[0].misses.as_slice() else {
                assert!(explanation.steps[0].matched && part.contains("not"), "{part}: {explanation}");
                continue;
            };
            assert_eq!((miss.expected.as_str(), miss.found.as_deref()), (wants, has), "{part}");
        }
    }
}

/// A request of somebody else is judged as if nothing were known of the connection.
#[test]
fn what_is_known_of_one_connection_is_used_for_no_other() {
    let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
    let ip = |last| Some(std::net::IpAddr::from([10, 0, 0, last]));
    let named = Request { source_ip: ip(1), destination_ip: ip(2), sni: Some("s.example"), ..request(Some(&web)) };
    for (key, value, other) in [
        ("source.principal", "shop.example/ns/shop/sa/web", Request { peer: None, ..named }),
        ("source.ip", "10.0.0.1", Request { source_ip: ip(9), ..named }),
        ("destination.ip", "10.0.0.2", Request { destination_ip: None, ..named }),
        ("destination.port", "8443", Request { port: 1, ..named }),
        ("connection.sni", "s.example", Request { sni: None, ..named }),
    ] {
        let deny = format!("{{ action: DENY, rules: [{{ when: [{{ key: {key}, values: ['{value}'] }}] }}] }}");
        let compiled = || Arc::new(engine(&(policy("all", "{ rules: [{}] }") + &policy("p", &deny)), NoPolicy::Deny));
        let engine = compiled();
        for caller in [&named, &other] {
            let known = engine.for_peer(&caller.peer_view());
            let verdicts = [&named, &other].map(|request| known.decide(request).verdict);
            assert_eq!(verdicts, [Verdict::Deny, Verdict::Allow], "{key}: {caller:?}");
            assert!(known.is_of(&engine) && !known.is_of(&compiled()));
        }
    }
}

/// One line for people says all that was decided.
#[test]
fn a_decision_says_what_decided_it() {
    let trial = |name: &str, spec: &str| {
        policy(name, spec).replace("namespace: shop", "namespace: shop, annotations: { istio.io/dry-run: 'true' }")
    };
    let (allow, audit) = (policy("all", "{ rules: [{}] }"), policy("log", "{ action: AUDIT, rules: [{}] }"));
    let again = policy("again", "{ action: AUDIT, rules: [{}, {}] }");
    let token = policy("token", "{ rules: [{ from: [{ source: { requestPrincipals: ['*'] } }] }] }");
    let (deny, admit) = (trial("no", "{ action: DENY, rules: [{}] }"), trial("yes", "{ rules: [{}] }"));
    for (documents, expected) in [
        (vec![&allow], "allowed (allow_rule) by shop/all, rule 0"),
        (vec![&token], "denied (no_allow_rule); a token would help (401)"),
        (vec![&allow, &audit, &again], "allowed (allow_rule) by shop/all, rule 0; audited by shop/again, shop/log"),
        (vec![&allow, &deny], "allowed (allow_rule) by shop/all, rule 0; with the policies under trial: denied"),
        (vec![&admit], "denied (no_policy_deny); with the policies under trial: allowed"),
        (
            vec![&token, &admit],
            "denied (no_allow_rule); a token would help (401); with the policies under trial: allowed",
        ),
        (vec![], "denied (no_policy_deny)"),
    ] {
        let yaml: String = documents.iter().map(|text| text.as_str()).collect();
        let engine = engine(&yaml, NoPolicy::Deny);
        assert_eq!(engine.decide(&request(None)).to_string(), expected, "{yaml}");
        assert_eq!((engine.len(), engine.is_empty()), (documents.len(), documents.is_empty()));
        let (in_force, on_trial) =
            (documents.contains(&&allow) || documents.contains(&&token), expected.contains("trial"));
        assert_eq!(engine.enforces(), in_force, "{yaml}");
        assert_eq!(engine.policies().iter().any(|policy| policy.dry_run), on_trial);
        let steps = engine.explain(&request(None)).steps;
        let tried: Vec<String> = steps.iter().filter(|step| step.dry_run).map(ToString::to_string).collect();
        assert!(
            tried.iter().all(|step| step.contains(" (dry run) ") && step.ends_with("rule 0: matched")),
            "{tried:?}"
        );
        assert_eq!(tried.is_empty(), !on_trial);
    }
}
