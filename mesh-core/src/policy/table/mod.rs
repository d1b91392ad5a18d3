//! One test for each row of what we take over from Istio: its rule, and the edges where others once went wrong.

mod fields;

use super::canonical::Canonicalization;
use super::*;
use crate::config::{Errors, NoPolicy, Workload};
use crate::identity::{SpiffeId, TrustDomain};
use crate::token::VerifiedToken;

fn document(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: shop \
         }}\nspec: {spec}\n"
    )
}

fn compile(mode: Mode, yaml: &str) -> PolicyEngine {
    let mut errors = Errors::default();
    let documents = parse_documents_as(mode, Canonicalization::Reject, "<test>", yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}", errors.issues());
    let domain = |text| TrustDomain::parse(text).unwrap();
    let mut options = EngineOptions { mode, ..EngineOptions::new(domain("td")) };
    options.trust_domain_aliases = vec![domain("old")];
    PolicyEngine::compile(&documents, &Workload::new("orders", "shop"), &options)
}

fn refused(spec: &str) -> bool {
    refused_in(Mode::Strict, spec)
}

fn refused_in(mode: Mode, spec: &str) -> bool {
    let mut errors = Errors::default();
    let _ = parse_documents_as(mode, Canonicalization::Reject, "<test>", &document("p", spec), &mut errors);
    !errors.is_empty()
}

/// Whether a rule with this part matches: as ALLOW it lets in, as DENY it keeps out.
fn matches_in(mode: Mode, part: &str, request: &Request<'_>) -> [bool; 2] {
    let rule = |action: &str| compile(mode, &document("p", &format!("{{ action: {action}, rules: [{{ {part} }}] }}")));
    [rule("ALLOW").decide(request).reason == Reason::AllowRule, rule("DENY").decide(request).reason == Reason::DenyRule]
}

fn matches(part: &str, request: &Request<'_>) -> bool {
    let [allow, deny] = matches_in(Mode::Strict, part, request);
    assert_eq!(allow, deny, "{part}");
    allow
}

fn source(field: &str, values: &str) -> String {
    format!("from: [{{ source: {{ {field}: [{values}] }} }}]")
}

fn operation(field: &str, values: &str) -> String {
    format!("to: [{{ operation: {{ {field}: [{values}] }} }}]")
}

fn when(key: &str, values: &str) -> String {
    format!("when: [{{ key: '{key}', values: [{values}] }}]")
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{text}")).unwrap()
}

fn from<'a>(peer: Option<&'a SpiffeId>) -> Request<'a> {
    Request { peer, method: "GET", path: "/", host: "orders", port: 8443, ..Request::UNKNOWN }
}

fn token(issuer: &str, subject: Option<&str>, claims: serde_json::Value) -> VerifiedToken {
    VerifiedToken {
        issuer: issuer.into(),
        subject: subject.map(Into::into),
        audiences: vec![],
        expires: std::time::UNIX_EPOCH,
        claims: claims.as_object().unwrap().clone(),
    }
}

#[test]
fn order() {
    let custom = document(
        "c",
        "{ action: CUSTOM, provider: { name: x }, rules: [{ to: [{ operation: { methods: [GET] } }] }] }",
    );
    let deny = document("d", "{ action: DENY, rules: [{ to: [{ operation: { paths: [/d] } }] }] }");
    let allow = document("a", "{ rules: [{ to: [{ operation: { paths: [/a, /d] } }] }] }");
    let audit = document("l", "{ action: AUDIT, rules: [{}] }");
    let nothing = document("n", "{}");
    let answered = |answer| {
        let mut answers = CustomAnswers::default();
        answers.insert("x".into(), answer);
        answers
    };
    let (yes, no) = (answered(CustomAnswer::Allow), answered(CustomAnswer::Deny));
    for (documents, path, answers, reason) in [
        (vec![&custom, &deny, &allow], "/a", &no, Reason::CustomDenied),
        (vec![&custom, &deny, &allow], "/d", &no, Reason::CustomDenied),
        (vec![&custom, &deny, &allow], "/a", &CustomAnswers::NONE, Reason::CustomNotAsked),
        (vec![&custom, &deny, &allow], "/d", &yes, Reason::DenyRule),
        (vec![&custom, &deny, &allow], "/a", &yes, Reason::AllowRule),
        (vec![&custom, &deny, &allow], "/x", &yes, Reason::NoAllowRule),
        (vec![&custom, &deny], "/x", &yes, Reason::NoPolicyAllow),
        (vec![&custom], "/x", &yes, Reason::NoPolicyAllow),
        // AUDIT changes no verdict, neither way.
        (vec![&audit], "/x", &yes, Reason::NoPolicyDeny),
        (vec![&audit, &deny], "/d", &yes, Reason::DenyRule),
        (vec![&audit, &deny], "/x", &yes, Reason::NoPolicyAllow),
        (vec![&audit, &nothing], "/x", &yes, Reason::NoAllowRule),
    ] {
        let yaml: String = documents.iter().map(|text| text.as_str()).collect();
        let engine = compile(Mode::Strict, &yaml);
        let decision = engine.decide_with(&Request { path, ..from(None) }, answers);
        assert_eq!(decision.reason, reason, "{path} {yaml}");
        let audited: Vec<&str> = decision.audit.iter().map(|name| &**name).collect();
        let expected: &[&str] = if documents.contains(&&audit) { &["shop/l"] } else { &[] };
        assert_eq!(audited, expected);
        // Where only AUDIT is, the file that allows may be missing.
        assert_eq!(engine.enforces(), yaml.matches("action: AUDIT").count() < documents.len());
    }
    for meaningless in ["{ action: DENY }", "{ action: CUSTOM, provider: { name: x } }"] {
        assert!(refused(meaningless) && refused_in(Mode::Compat, meaningless), "{meaningless}");
    }
    assert!(matches("", &from(None)), "an empty rule matches everything");
}

#[test]
fn errors() {
    // On raw TCP an ALLOW rule about HTTP is dropped; of a DENY rule only the field.
    let tcp = Request { protocol: Protocol::Tcp, port: 8443, ..Request::UNKNOWN };
    let get_here = "to: [{ operation: { methods: [GET], ports: ['8443'] } }]";
    let get_there = "to: [{ operation: { methods: [GET], ports: ['80'] } }]";
    let either = "to: [{ operation: { methods: [GET] } }, { operation: { ports: ['8443'] } }]";
    for mode in [Mode::Strict, Mode::Compat] {
        assert_eq!(matches_in(mode, get_here, &tcp), [false, true]);
        assert_eq!(matches_in(mode, get_there, &tcp), [false, false]);
        assert_eq!(matches_in(mode, either, &tcp), [false, true]);
        assert_eq!(matches_in(mode, "to: [{ operation: { ports: ['8443'] } }]", &tcp), [true, true]);
    }
    // So does a key that Istio's validation passes and its translation does not.
    let lost = "when: [{ key: 'request.headersx[a]', values: [b] }]";
    assert_eq!(matches_in(Mode::Compat, lost, &from(None)), [false, true]);
    assert!(refused(&format!("{{ rules: [{{ {lost} }}] }}")));
    // One bad document refuses the whole set; unknown fields do in both modes.
    let mut errors = Errors::default();
    let yaml = document("good", "{}") + &document("bad", "{ rules: [{ form: [] }] }");
    assert_eq!(parse_documents_as(Mode::Compat, Canonicalization::Reject, "<test>", &yaml, &mut errors).len(), 1);
    assert!(!errors.is_empty());
    // What compat takes with a doubt, it says.
    let mut errors = Errors::default();
    let doubtful = document("p", "{ rules: [{ to: [{ operation: { methods: [get], paths: ['*a*'] } }] }] }");
    let documents = parse_documents_as(Mode::Compat, Canonicalization::Reject, "<test>", &doubtful, &mut errors);
    assert_eq!((documents[0].doubts.len(), errors.is_empty()), (2, true), "{:?}", documents[0].doubts);
}

#[test]
fn custom() {
    let spec = |provider: &str, path: &str| {
        format!(
            "{{ action: CUSTOM, provider: {{ name: {provider} }}, rules: [{{ to: [{{ operation: {{ paths: [{path}] }} }}] }}] }}"
        )
    };
    let yaml = document("c0", &spec("one", "/a"))
        + &document("c1", &spec("two", "'/a*'"))
        + &document("c2", &spec("one", "'*'"));
    let engine = compile(Mode::Strict, &yaml);
    let request = Request { path: "/a", ..from(None) };
    let asked: Vec<_> =
        engine.custom(&request).iter().map(|hit| format!("{} {} {}", hit.provider, hit.policy, hit.rule)).collect();
    assert_eq!(asked, ["one shop/c0 0", "two shop/c1 0"]);
    for (one, two, reason, by) in [
        (CustomAnswer::Allow, CustomAnswer::Allow, Reason::NoPolicyAllow, None),
        (CustomAnswer::Allow, CustomAnswer::Deny, Reason::CustomDenied, Some("shop/c1")),
        (CustomAnswer::Error, CustomAnswer::Deny, Reason::CustomError, Some("shop/c0")),
        (CustomAnswer::Timeout, CustomAnswer::Allow, Reason::CustomTimeout, Some("shop/c0")),
        (CustomAnswer::Allow, CustomAnswer::Unknown, Reason::CustomUnknownProvider, Some("shop/c1")),
    ] {
        let mut answers = CustomAnswers::default();
        answers.insert("one".into(), one);
        answers.insert("two".into(), two);
        let decision = engine.decide_with(&request, &answers);
        assert_eq!((decision.reason, decision.policy.as_deref()), (reason, by), "{one:?} {two:?}");
    }
    // Istio does not know who calls when it asks; this mesh does.
    let identity = "{ action: CUSTOM, provider: { name: x }, rules: [{ from: [{ source: { principals: ['*'] } }] }] }";
    assert!(!refused(identity) && refused_in(Mode::Compat, identity));
}

#[test]
fn dry_run() {
    let trial = |name: &str, spec: &str| {
        document(name, spec).replace("namespace: shop", "namespace: shop, annotations: { istio.io/dry-run: 'true' }")
    };
    let allow_a = "{ rules: [{ to: [{ operation: { paths: [/a] } }] }] }";
    let deny_a = "{ action: DENY, rules: [{ to: [{ operation: { paths: [/a] } }] }] }";
    let all = document("all", "{ rules: [{}] }");
    for (yaml, path, reason, would, matched) in [
        // It never counts as an ALLOW policy: it neither closes nor opens.
        (trial("t", allow_a), "/a", Reason::NoPolicyDeny, Verdict::Allow, 1),
        (
            trial("t", allow_a) + &document("d", "{ action: DENY, rules: [{ to: [{ operation: { paths: [/d] } }] }] }"),
            "/x",
            Reason::NoPolicyAllow,
            Verdict::Deny,
            0,
        ),
        (trial("t", allow_a) + &document("n", "{}"), "/a", Reason::NoAllowRule, Verdict::Allow, 1),
        (trial("t", deny_a) + &all, "/a", Reason::AllowRule, Verdict::Deny, 1),
        (trial("t", deny_a) + &all, "/b", Reason::AllowRule, Verdict::Allow, 0),
    ] {
        let engine = compile(Mode::Strict, &yaml);
        let decision = engine.decide(&Request { path, ..from(None) });
        let dry_run = decision.dry_run.unwrap();
        assert_eq!(
            (decision.reason, dry_run.verdict, dry_run.matched.len()),
            (reason, would, matched),
            "{path} {yaml}"
        );
    }
    assert_eq!(compile(Mode::Strict, &all).decide(&from(None)).dry_run, None);
}

#[test]
fn scope() {
    let all = |metadata: &str, spec: &str| {
        format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {metadata}\nspec: {spec}\n")
    };
    let mut workload = Workload::new("orders", "shop");
    workload.labels = [("app", "orders"), ("tier", "db")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    for (metadata, spec, expected) in [
        ("{ name: p, namespace: shop }", "{}", true),
        ("{ name: p, namespace: ops }", "{}", false),
        ("{ name: p, namespace: istio-system }", "{}", true),
        ("{ name: p, namespace: shop }", "{ selector: { matchLabels: { app: orders, tier: db } } }", true),
        ("{ name: p, namespace: shop }", "{ selector: { matchLabels: { app: orders, tier: web } } }", false),
        ("{ name: p, namespace: istio-system }", "{ selector: { matchLabels: { app: orders } } }", true),
        ("{ name: p, namespace: shop }", "{ targetRefs: [{ kind: Service, name: orders }] }", true),
        ("{ name: p, namespace: shop }", "{ targetRef: { group: core, kind: Service, name: orders } }", true),
        (
            "{ name: p, namespace: shop }",
            "{ targetRefs: [{ kind: Service, name: a }, { kind: Service, name: orders }] }",
            true,
        ),
        ("{ name: p, namespace: shop }", "{ targetRefs: [{ kind: Service, name: other }] }", false),
        // Never wider than its own namespace.
        ("{ name: p, namespace: istio-system }", "{ targetRefs: [{ kind: Service, name: orders }] }", false),
    ] {
        let mut errors = Errors::default();
        let documents = parse_documents("<test>", &all(metadata, spec), &mut errors);
        assert_eq!(documents[0].selects(&workload, "istio-system"), expected, "{metadata} {spec}");
    }
    for target in ["kind: Gateway", "group: gateway.networking.k8s.io, kind: GatewayClass", "kind: ServiceEntry"] {
        let spec = format!("{{ targetRefs: [{{ {target}, name: a }}] }}");
        assert!(refused(&spec) && refused_in(Mode::Compat, &spec), "{target}");
    }
}

#[test]
fn routes() {
    let known = Request { route: Some("/orders/{id}"), ..from(None) };
    assert!(matches(&when("route", "'/orders/{id}', '/files/{*path}'"), &known));
    assert!(!matches(&when("route", "'/files/*'"), &known));
    // Nobody knows which route it is: ALLOW does not hold, DENY does, whichever way it is written.
    for part in [when("route", "'/orders/{id}'"), "when: [{ key: route, notValues: ['/x'] }]".to_owned()] {
        assert_eq!(matches_in(Mode::Strict, &part, &from(None)), [false, true], "{part}");
        let rule = document("p", &format!("{{ rules: [{{ {part} }}] }}"));
        assert!(compile(Mode::Strict, &rule).needs_route());
    }
    assert!(!compile(Mode::Strict, &document("p", "{ rules: [{}] }")).needs_route());
}

#[test]
fn no_policy() {
    let engine = |no_policy| {
        let options = EngineOptions { no_policy, ..EngineOptions::new(TrustDomain::parse("td").unwrap()) };
        PolicyEngine::compile(&[], &Workload::new("orders", "shop"), &options)
    };
    assert_eq!(engine(NoPolicy::Deny).decide(&from(None)).reason, Reason::NoPolicyDeny);
    assert_eq!(engine(NoPolicy::Allow).decide(&from(None)).reason, Reason::NoPolicyAllow);
}
