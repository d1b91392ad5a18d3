//! Every field, everything that is refused, whom documents hold for, and what two rules of one issuer mean.

use serde_json::json;

use super::*;
use crate::config::{ClaimHeader, IdentityConfig, PlugConfig};
use crate::policy::canonical::Canonicalization;
use crate::policy::{Documents, Mode, parse_documents, parse_file};
use crate::token::testkit::TestKey;

fn document(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  {spec}\n"
    )
}

fn read(mode: Mode, text: &str) -> (Documents, Vec<String>) {
    let mut errors = Errors::default();
    let found = parse_file(mode, Canonicalization::Reject, "r.yaml", text, &mut errors);
    (found, errors.issues().iter().map(ToString::to_string).collect())
}

fn good(mode: Mode, text: &str) -> Vec<RequestAuthentication> {
    let (found, errors) = read(mode, text);
    assert_eq!(errors, [""; 0], "{text}");
    found.requests
}

fn keys() -> String {
    json!({ "keys": [TestKey::es256().jwk("k")] }).to_string()
}

fn rule(fields: &str) -> String {
    format!("jwtRules: [ {{ {fields} }} ]")
}

const BASE: &str = "issuer: 'https://i.example', audiences: [orders]";

#[test]
fn every_field_says_what_it_says_in_tokens() {
    let keys = keys();
    let text = format!(
        "apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata: {{ name: jwt, namespace: shop, labels: {{ team: shop }} }}
spec:
  selector: {{ matchLabels: {{ app: orders }} }}
  jwtRules:
  - issuer: https://a.example
    audiences: [orders, shop]
    jwksUri: https://a.example/keys
    timeout: 3s
    fromHeaders: [ {{ name: x-jwt, prefix: 'JWT ' }}, {{ name: x-plain }} ]
    fromParams: [jwt]
    fromCookies: [session]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [ {{ header: x-sub, claim: sub }} ]
    forwardOriginalToken: true
    spaceDelimitedClaims: [scope]
  - {{ issuer: b, audiences: [orders], jwks: '{keys}' }}
  - {{ issuer: 'https://c.example', audiences: [orders] }}
  - {{ issuer: 'https://d.example', audiences: [orders], timeout: 1s }}
"
    );
    let documents = good(Mode::Strict, &text);
    let [document] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!((&*document.name, &*document.namespace), ("shop/jwt", "shop"));
    assert_eq!(document.selector, BTreeMap::from([("app".to_owned(), "orders".to_owned())]));
    let issuers: Vec<_> = document.rules.iter().map(|rule| rule.issuer.clone()).collect();
    let orders = || vec!["orders".to_owned()];
    let a = PlugConfig::new("url", &json!({ "uri": "https://a.example/keys", "timeout": "3s" }));
    let a = IssuerConfig::new("https://a.example", vec!["orders".to_owned(), "shop".to_owned()], a)
        .from_headers(vec![TokenHeader::new("x-jwt", "JWT "), TokenHeader::new("x-plain", "")])
        .from_params(vec!["jwt".to_owned()])
        .from_cookies(vec!["session".to_owned()])
        .output_payload_to_header("x-payload")
        .output_claim_to_headers(vec![ClaimHeader::new("x-sub", "sub")])
        .forward_original_token(true);
    let b = IssuerConfig::new("b", orders(), PlugConfig::new("inline", &json!(keys)));
    let c = IssuerConfig::new("https://c.example", orders(), PlugConfig::new("discovery", &json!({})));
    let d = IssuerConfig::new("https://d.example", orders(), PlugConfig::new("discovery", &json!({ "timeout": "1s" })));
    assert_eq!(issuers, [a, b, c, d]);
    let places: Vec<_> = document.rules.iter().map(|rule| (rule.place.line, rule.place.path.as_str())).collect();
    assert_eq!(places[..2], [(7, "spec.jwtRules[0]"), (18, "spec.jwtRules[1]")]);
}

#[test]
fn what_is_wrong_is_refused_at_its_field_and_compat_takes_what_istio_takes() {
    let keys = keys();
    let with = |fields: &str| rule(&format!("{BASE}, {fields}"));
    let both = format!("jwks: '{keys}', jwksUri: 'https://i.example/keys'");
    let idle = format!("jwks: '{keys}', timeout: 1s");
    // Spec, the field, what is said of it, and whether compat mode takes it.
    for (spec, field, message, compat) in [
        (rule("issuer: 'https://i.example'"), "spec.jwtRules[0].audiences", "without `audiences`", true),
        (rule("issuer: 'https://i.example', audiences: []"), "spec.jwtRules[0].audiences", "an empty list", true),
        ("jwtRules: []".to_owned(), "spec.jwtRules", "an empty list", true),
        ("{}".to_owned(), "spec.jwtRules", "no rule", true),
        (with("fromHeaders: []"), "spec.jwtRules[0].fromHeaders", "an empty list", true),
        (with("jwksUri: ''"), "spec.jwtRules[0].jwksUri", "cannot be empty", true),
        (with("outputPayloadToHeader: ''"), "spec.jwtRules[0].outputPayloadToHeader", "cannot be empty", true),
        (with(&idle), "spec.jwtRules[0].timeout", "nothing is fetched", true),
        (rule("audiences: [a], jwksUri: 'https://i.example/k'"), "spec.jwtRules[0].issuer", "exact `iss`", false),
        (rule("issuer: 7, audiences: [a]"), "spec.jwtRules[0].issuer", "expected a string", false),
        (rule("issuer: foo, audiences: [a]"), "spec.jwtRules[0].issuer", "discovered at the issuer", false),
        (
            rule("issuer: 'http://i.example', audiences: [a]"),
            "spec.jwtRules[0].issuer",
            "begins with `https://`",
            false,
        ),
        (
            rule("issuer: 'https://i.example', audiences: ['']"),
            "spec.jwtRules[0].audiences[0]",
            "cannot be empty",
            false,
        ),
        (
            rule("issuer: 'https://i.example', audiences: orders"),
            "spec.jwtRules[0].audiences",
            "expected a list",
            false,
        ),
        (rule("issuer: 'https://i.example', audiences: [7]"), "spec.jwtRules[0].audiences[0]", "a string", false),
        (with("jwksUri: 'http://i.example/keys'"), "spec.jwtRules[0].jwksUri", "begins with `https://`", false),
        (with("jwksUri: keys"), "spec.jwtRules[0].jwksUri", "begins with `https://`", false),
        (with("jwksUri: [a]"), "spec.jwtRules[0].jwksUri", "expected a string", false),
        (with("jwks: '{'"), "spec.jwtRules[0].jwks", "not a JWK set", false),
        (with("jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}'"), "spec.jwtRules[0].jwks", "private", false),
        (with("jwks: { keys: [] }"), "spec.jwtRules[0].jwks", "expected a string", false),
        (with(&both), "spec.jwtRules[0].jwks", "exclude each other", false),
        (with("jwks_uri: 'https://i.example/keys'"), "spec.jwtRules[0].jwks_uri", "did you mean `jwksUri`?", false),
        (with("fromHeaders: [ { prefix: x } ]"), "spec.jwtRules[0].fromHeaders[0].name", "required", false),
        (with("fromHeaders: [ { name: 'a b' } ]"), "spec.jwtRules[0].fromHeaders[0].name", "name of a header", false),
        (with("fromHeaders: [ { name: x-envoy-a } ]"), "spec.jwtRules[0].fromHeaders[0].name", "reaches", false),
        (with("fromHeaders: [ { name: a, value: b } ]"), "spec.jwtRules[0].fromHeaders[0].value", "unknown", false),
        (with("fromHeaders: [ null ]"), "spec.jwtRules[0].fromHeaders[0]", "expected a value", false),
        (with("fromParams: ['a&b']"), "spec.jwtRules[0].fromParams[0]", "expected letters", false),
        (with("fromCookies: ['a=b']"), "spec.jwtRules[0].fromCookies[0]", "name of a cookie", false),
        (with("outputPayloadToHeader: Host"), "spec.jwtRules[0].outputPayloadToHeader", "meaning of its own", false),
        (
            with("outputClaimToHeaders: [ { header: x_a, claim: a } ]"),
            "spec.jwtRules[0].outputClaimToHeaders[0].header",
            "letters, digits",
            false,
        ),
        (
            with("outputPayloadToHeader: X-A, outputClaimToHeaders: [ { header: x-a, claim: a } ]"),
            "spec.jwtRules[0].outputClaimToHeaders[0].header",
            "another claim",
            false,
        ),
        (
            with("outputClaimToHeaders: [ { header: x-a } ]"),
            "spec.jwtRules[0].outputClaimToHeaders[0].claim",
            "required",
            false,
        ),
        (with("forwardOriginalToken: 'true'"), "spec.jwtRules[0].forwardOriginalToken", "expected true", false),
        (with("spaceDelimitedClaims: [roles]"), "spec.jwtRules[0].spaceDelimitedClaims[0]", "not split", false),
        (with("trigger: x"), "spec.jwtRules[0].trigger", "unknown field", false),
        ("jwtRule: []".to_owned(), "spec.jwtRule", "did you mean `jwtRules`?", false),
        ("jwtRules: { issuer: a }".to_owned(), "spec.jwtRules", "expected a list", false),
        (
            format!("targetRefs: [ {{ kind: Gateway, name: g, group: gateway.networking.k8s.io }} ]\n  {}", rule(BASE)),
            "spec.targetRefs[0]",
            "expected `Service`",
            false,
        ),
        (
            format!(
                "selector: {{ matchLabels: {{ a: b }} }}\n  targetRefs: [ {{ kind: Service, name: g }} ]\n  {}",
                rule(BASE)
            ),
            "spec",
            "exclude each other",
            false,
        ),
    ] {
        let text = document("shop", "jwt", &spec);
        let (found, errors) = read(Mode::Strict, &text);
        let at = |error: &String| error.starts_with("r.yaml:") && error.contains(&format!(": {field}: "));
        assert!(errors.iter().any(|error| at(error) && error.contains(message)), "{spec}\n{errors:?}");
        assert!(found.is_empty(), "{spec}");
        let (found, errors) = read(Mode::Compat, &text);
        assert_eq!((errors.is_empty(), found.requests.len() == 1), (compat, compat), "{spec}\n{errors:?}");
    }
    let trial = "metadata: { name: jwt, namespace: shop, annotations: { istio.io/dry-run: 'true' } }";
    for (from, to, expected) in [
        ("metadata: { name: jwt, namespace: shop }", trial, "a dry run"),
        ("security.istio.io/v1", "networking.istio.io/v1", "`networking.istio.io/v1` is not supported"),
        ("issuer: 'https://i.example'", "issuer: a, issuer: b", "r.yaml:6"),
        (
            "kind: RequestAuthentication",
            "kind: RequestAuthenticatio",
            "`PeerAuthentication` or `RequestAuthentication`",
        ),
    ] {
        let text = document("shop", "jwt", &rule(BASE));
        let (found, errors) = read(Mode::Compat, &text.replace(from, to));
        assert!(found.is_empty() && errors.iter().any(|error| error.contains(expected)), "{to}: {errors:?}");
    }
    let mut errors = Errors::default();
    parse_documents("r.yaml", &document("shop", "jwt", &rule(BASE)), &mut errors);
    assert!(errors.issues()[0].to_string().contains("kind `RequestAuthentication` is not supported here"));
}

#[test]
fn a_rule_without_audiences_takes_every_audience_in_compat_alone() {
    let text = document("shop", "jwt", &rule("issuer: 'https://i.example'"));
    let [document] = &good(Mode::Compat, &text)[..] else { panic!() };
    let issuer = &document.rules[0].issuer;
    assert_eq!((issuer.dangerous_any_audience, issuer.audiences.len(), document.doubts.len()), (true, 0, 0));
    let [document] = &good(Mode::Compat, &self::document("shop", "jwt", &rule(BASE)))[..] else { panic!() };
    assert!(!document.rules[0].issuer.dangerous_any_audience);
}

fn orders() -> Workload {
    let mut workload = Workload::new("orders", "shop");
    workload.labels.insert("app".to_owned(), "orders".to_owned());
    workload
}

#[test]
fn documents_hold_for_whom_they_say() {
    let with = |before: &str| if before.is_empty() { rule(BASE) } else { format!("{before}\n  {}", rule(BASE)) };
    let app = |name: &str| format!("selector: {{ matchLabels: {{ app: {name} }} }}");
    let target = |name: &str| format!("targetRefs: [ {{ kind: Service, name: {name} }} ]");
    for (namespace, scope, selected) in [
        ("shop", String::new(), true),
        ("web", String::new(), false),
        ("istio-system", String::new(), true),
        ("shop", app("orders"), true),
        ("shop", app("web"), false),
        ("web", app("orders"), false),
        // As for AuthorizationPolicy, and unlike PeerAuthentication: in the root namespace a selector selects everywhere.
        ("istio-system", app("orders"), true),
        ("istio-system", app("web"), false),
        ("shop", target("orders"), true),
        ("shop", target("web"), false),
        ("istio-system", target("orders"), false),
        ("shop", "targetRef: { kind: Service, name: orders }".to_owned(), true),
    ] {
        let documents = good(Mode::Strict, &document(namespace, "jwt", &with(&scope)));
        let policy = RequestPolicy::of(&documents, &orders(), "istio-system");
        assert_eq!(policy.documents().count() == 1, selected, "{namespace} {scope}");
        let mut errors = Errors::default();
        assert_eq!(policy.issuers(&mut errors).len(), usize::from(selected));
    }
}

/// What the rules of one issuer amount to, or what is said of them.
fn united(mode: Mode, rules: &[&str]) -> Result<IssuerConfig, String> {
    let all = |fields: &&str| format!("issuer: 'https://i.example', {fields}");
    let text: String =
        rules.iter().enumerate().map(|(n, fields)| document("shop", &format!("r{n}"), &rule(&all(fields)))).collect();
    let documents = good(mode, &text);
    let mut errors = Errors::default();
    let mut issuers = RequestPolicy::of(&documents, &orders(), "istio-system").issuers(&mut errors);
    assert_eq!(issuers.len(), 1);
    let first = issuers.remove(0);
    errors.finish(Some(first)).map_err(|error| error.to_string())
}

#[test]
fn rules_of_one_issuer_are_one_where_one_rule_says_the_same() {
    let united = |rules: &[&str]| united(Mode::Compat, rules);
    let places = |issuer: &IssuerConfig| {
        let headers = issuer.from_headers.iter().map(|header| format!("{}:{}", header.name, header.prefix));
        headers.chain(issuer.from_params.clone()).chain(issuer.from_cookies.clone()).collect::<Vec<_>>()
    };
    let same = united(&["audiences: [a]", "audiences: [a]"]).unwrap();
    assert_eq!(same.audiences, ["a"]);
    let audiences = united(&["audiences: [a]", "audiences: [b, a]", "audiences: [c]"]).unwrap();
    assert_eq!(
        (audiences.audiences, audiences.dangerous_any_audience),
        (["a", "b", "c"].map(String::from).into(), false)
    );
    let any = united(&["audiences: [a]", "forwardOriginalToken: false"]).unwrap();
    assert_eq!((any.audiences.len(), any.dangerous_any_audience), (0, true));
    let located = united(&["audiences: [a], fromParams: [p]", "audiences: [a], fromCookies: [c], fromParams: [q, p]"]);
    assert_eq!(places(&located.unwrap()), ["p", "q", "c"]);
    // The places by default stay, beside those of the other rule.
    let default = united(&["audiences: [a], fromHeaders: [ { name: x-jwt } ]", "audiences: [a]"]).unwrap();
    assert_eq!(places(&default), ["x-jwt:", "authorization:Bearer ", "access_token"]);
    for differing in [
        ["audiences: [a], fromParams: [p]", "audiences: [b]"],
        ["audiences: [a]", "audiences: [a], jwksUri: 'https://i.example/k'"],
        ["audiences: [a]", "audiences: [a], forwardOriginalToken: true"],
        ["audiences: [a]", "audiences: [a], timeout: 1s"],
        ["audiences: [a]", "audiences: [a], outputPayloadToHeader: x-a"],
        ["audiences: [a]", "audiences: [a], outputClaimToHeaders: [ { header: x-a, claim: b } ]"],
    ] {
        let said = united(&differing).unwrap_err();
        assert!(said.contains("r.yaml:12") && said.contains("jwtRules[0].issuer"), "{said}");
        assert!(said.contains("has a rule at r.yaml:6 (spec.jwtRules[0])"), "{said}");
    }
}

#[test]
fn rules_stand_beside_tokens_of_other_issuers_and_never_of_the_same() {
    let documents = good(Mode::Strict, &document("shop", "jwt", &rule(BASE)));
    let source = PlugConfig::new("memory", &json!({}));
    for (configured, expected) in [("https://other.example", Ok(2)), ("https://i.example", Err("is `tokens[0]`"))] {
        let mut config = Config::new(orders(), IdentityConfig::new("td".parse().unwrap(), source.clone()));
        let jwks = PlugConfig::new("file", &json!("keys.json"));
        config.tokens.push(IssuerConfig::new(configured, vec!["orders".to_owned()], jwks));
        let mut errors = Errors::default();
        RequestPolicy::of(&documents, &orders(), "istio-system").apply(&mut config, &mut errors);
        let found = errors.finish(Some(config.tokens.len())).map_err(|error| error.to_string());
        match expected {
            Ok(count) => assert_eq!(found.unwrap(), count),
            Err(part) => {
                let said = found.unwrap_err();
                assert!(said.contains(part) && said.contains("r.yaml:6"), "{said}");
            }
        }
    }
}
