//! The order of evaluation, reasons, and explanations.

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
