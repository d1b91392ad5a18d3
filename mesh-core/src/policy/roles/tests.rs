use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{BindingConfig, Errors};
use crate::identity::SpiffeId;
use crate::policy::{EngineOptions, PolicyEngine, Reason, Request, Verdict, parse_documents};
use crate::rng::Rng;
use crate::token::VerifiedToken;

const HEAD: &str = "\
workload: { name: orders, namespace: shop }
identity: { trust_domain: td, source: { dev_ca: { dir: .mesh } } }
";

const SHOP: &str = r#"
roles:
  reader: [ { methods: [GET], paths: ["/orders/*"] }, { grpc: ["shop.Orders/Get"] } ]
  writer: [ { methods: [POST], paths: ["/orders"] } ]
  unused: [ { paths: ["/*"] } ]
bindings:
  - { name: web, role: reader, to: { identities: ["spiffe://td/ns/shop/sa/web"], scopes: ["orders:read"] } }
  - { role: writer, to: { groups: [staff], request_principals: ["https://idp/alice"] } }
"#;

fn read(yaml: &str) -> Result<Config, Vec<String>> {
    let mut errors = Errors::default();
    let text = format!("{HEAD}{yaml}");
    let found = Config::parse("mesh.yaml", &text, Path::new("."), |_| {}, &mut errors);
    errors.finish(found.map(|(config, _)| config)).map_err(|error| {
        let issues = error.issues().iter();
        issues.map(|issue| format!("{}:{}: {}", issue.place.line, issue.place.path, issue.message)).collect()
    })
}

fn config(yaml: &str) -> Config {
    read(yaml).unwrap_or_else(|issues| panic!("{issues:#?}\n{yaml}"))
}

fn engine(config: &Config, documents: &str) -> PolicyEngine {
    let mut errors = Errors::default();
    let mut all = parse_documents("<test>", documents, &mut errors);
    assert!(errors.is_empty(), "{:?}\n{documents}", errors.issues());
    all.extend(policies(config, None));
    PolicyEngine::compile(&all, &config.workload, &EngineOptions::of(config))
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn token(claims: &Value) -> VerifiedToken {
    VerifiedToken {
        issuer: "https://idp".into(),
        subject: claims["sub"].as_str().map(Into::into),
        audiences: Vec::new(),
        expires: std::time::SystemTime::UNIX_EPOCH,
        claims: claims.as_object().unwrap().clone(),
    }
}

#[test]
fn a_binding_is_a_policy_that_explanations_name() {
    let config = config(SHOP);
    let engine = engine(&config, "");
    let names: Vec<_> = engine.policies().iter().map(|policy| (&*policy.name, policy.rules)).collect();
    assert_eq!(names, [("shop/role:reader/web", 2), ("shop/role:writer/1", 2), ("shop/role:unused", 0)]);

    let (web, batch) = (id("spiffe://td/ns/shop/sa/web"), id("spiffe://td/ns/shop/sa/batch"));
    let scope = token(&json!({ "scp": "other orders:read" }));
    let staff = token(&json!({ "groups": ["staff"] }));
    let get = Request { method: "GET", path: "/orders/7", ..Request::UNKNOWN };
    let call = Request { method: "POST", path: "/shop.Orders/Get", ..Request::UNKNOWN };
    let post = Request { method: "POST", path: "/orders", ..Request::UNKNOWN };
    let by = |name: &'static str, rule| Some((name, rule));
    for (request, expected, token_would_help) in [
        (Request { peer: Some(&web), ..get }, by("shop/role:reader/web", 0), false),
        (Request { peer: Some(&web), ..call }, by("shop/role:reader/web", 0), false),
        (Request { peer: Some(&batch), token: Some(&scope), ..get }, by("shop/role:reader/web", 1), false),
        (Request { token: Some(&staff), ..post }, by("shop/role:writer/1", 1), false),
        (Request { peer: Some(&web), ..post }, None, true),
        (Request { peer: Some(&batch), token: Some(&staff), ..get }, None, false),
        (Request { peer: Some(&web), method: "GET", path: "/admin", ..Request::UNKNOWN }, None, false),
    ] {
        let decision = engine.decide(&request);
        let found = decision.policy.as_deref().zip(decision.rule);
        assert_eq!((found, decision.token_would_help), (expected, token_would_help), "{request:?}");
        let explained = engine.explain(&request).to_string();
        assert!(explained.contains("ALLOW shop/role:reader/web rule 1: "), "{explained}");
        assert!(explained.contains("ALLOW shop/role:unused: has no rules and allows nothing"), "{explained}");
    }
}

/// Who has a role has it wherever it calls.
#[test]
fn a_role_is_of_a_caller() {
    let config = config(SHOP);
    let engine = engine(&config, "");
    let (web, batch) = (id("spiffe://td/ns/shop/sa/web"), id("spiffe://td/ns/shop/sa/batch"));
    let alice = token(&json!({ "sub": "alice" }));
    let no = |token_would_help| RoleAnswer::NotHeld { token_would_help };
    for (role, peer, token, expected) in [
        ("reader", Some(&web), None, RoleAnswer::Held),
        ("reader", Some(&batch), None, no(true)),
        ("reader", Some(&batch), Some(&alice), no(false)),
        ("writer", None, Some(&alice), RoleAnswer::Held),
        ("writer", Some(&web), None, no(true)),
        ("unused", Some(&web), Some(&alice), no(false)),
        ("Reader", Some(&web), None, RoleAnswer::Unknown),
    ] {
        // A role without bindings is one that nobody has, with whatever token.
        assert_eq!(engine.role(role, peer, token), expected, "{role} {peer:?}");
    }
    assert_eq!(engine.role("unused", Some(&web), None), no(false));
}

#[test]
fn roles_close_a_workload_that_no_policy_selects() {
    let open = "authorization: { no_policy: allow }\n";
    let anybody = Request { method: "GET", path: "/", ..Request::UNKNOWN };
    let verdict = |yaml: &str| engine(&config(yaml), "").decide(&anybody);
    assert_eq!(verdict(open).reason, Reason::NoPolicyAllow);
    let closed = verdict(&format!("{open}roles: {{ nobody: [ {{ paths: ['/*'] }} ] }}\n"));
    assert_eq!((closed.verdict, closed.reason), (Verdict::Deny, Reason::NoAllowRule));
}

/// What a check would refuse, and code that skips it: nothing gets wider.
#[test]
fn what_is_wrong_allows_nothing() {
    let mut config = config("");
    let anybody = || SubjectsConfig::default().identities(["spiffe://td/*"]);
    for (name, entries) in [
        ("empty", vec![]),
        ("nothing", vec![PermissionConfig::default()]),
        ("no_method", vec![PermissionConfig::default().methods(["get"])]),
        ("no_call", vec![PermissionConfig::default().grpc(["/a/b"])]),
    ] {
        config.roles.insert(name.to_owned(), entries);
        config.bindings.push(BindingConfig::new(name, anybody()));
    }
    config.roles.insert("good".to_owned(), vec![PermissionConfig::default().paths(["/*"])]);
    config.bindings.push(BindingConfig::new("good", SubjectsConfig::default()));
    config.bindings.push(BindingConfig::new("good", SubjectsConfig::default().groups(["*"])));
    assert!(config.check().is_err());
    let (web, token) = (id("spiffe://td/ns/shop/sa/web"), token(&json!({ "groups": ["*", "a"] })));
    let request = Request { peer: Some(&web), token: Some(&token), method: "GET", path: "/", ..Request::UNKNOWN };
    assert_eq!(engine(&config, "").decide(&request).verdict, Verdict::Deny);
    // The control: the same with one good binding.
    config.bindings.push(BindingConfig::new("good", anybody()).name("last"));
    let decision = engine(&config, "").decide(&request);
    assert_eq!(decision.policy.as_deref(), Some("shop/role:good/last"));
}

#[test]
fn everything_that_is_wrong_is_said_with_its_line_and_field() {
    let cases: [(&str, &[&str]); 5] = [
        (
            r#"roles:
  reader: [ { methods: [get], paths: ["/a//b", "/x", "/{id}"] }, { grpc: ["/shop.Orders/Get"], methods: [GET] }, {} ]
  empty: []
  "b/d": [ { paths: [] } ]
bindings:
  - { role: readr, to: { identities: ["td/ns/shop/sa/web", "spiffe://td", "spiffe://td/ns/sh*"] } }
  - { role: reader, to: {} }
  - { role: reader, name: "a b", to: { request_principals: [alice], groups: ["a*"], scopes: ["a b", ""] } }
  - { role: reader, name: x, to: { groups: [] } }
  - { role: reader, name: x, to: { groups: [g] } }
  - { role: reader, name: "1", to: { groups: [g] } }
"#,
            &[
                "4:roles.reader[0].methods[0]: \"get\" is no method: ",
                "4:roles.reader[0].paths[0]: `/a//b` matches no request ",
                "4:roles.reader[0].paths[2]: `/{id}`: braces are understood only as ",
                "4:roles.reader[1].grpc: `grpc` says method and path itself: ",
                "4:roles.reader[1].grpc[0]: \"/shop.Orders/Get\" is no gRPC method: ",
                "4:roles.reader[2]: expected `methods`, `paths` or `grpc`; ",
                "5:roles.empty: a role needs at least one entry: ",
                "6:roles.b/d: \"b/d\" is no name: ",
                "6:roles.b/d[0].paths: an empty list is refused: ",
                "8:bindings[0].role: no role is called `readr`; did you mean `reader`?",
                "8:bindings[0].to.identities[0]: \"td/ns/shop/sa/web\": ",
                "8:bindings[0].to.identities[1]: spiffe://td names a trust domain, ",
                "8:bindings[0].to.identities[2]: \"spiffe://td/ns/sh*\": ",
                "9:bindings[1].to: expected `identities`, ",
                "10:bindings[2].name: \"a b\" is no name: ",
                "10:bindings[2].to.request_principals[0]: `alice`: expected ISSUER/SUBJECT",
                "10:bindings[2].to.groups[0]: \"a*\" is no group: ",
                "10:bindings[2].to.scopes[0]: \"a b\" is no scope: ",
                "10:bindings[2].to.scopes[1]: \"\" is no scope: ",
                "11:bindings[3].to.groups: an empty list is refused: ",
                "12:bindings[4].name: `reader` has a binding `x` already",
                "13:bindings[5].name: `reader` has a binding `1` already",
            ],
        ),
        (
            "roles: { r: [ { method: [GET], methods: GET } ] }
bindings: [ { role: r, to: { spiffe: [x], groups: [g] } }, { role: r } ]
",
            &[
                "3:roles.r[0].method: unknown field; did you mean `methods`?",
                "3:roles.r[0].methods: expected a list, ",
                "4:bindings[0].to.spiffe: unknown field",
                "4:bindings[1].to: this field is required",
            ],
        ),
        (
            "authorization: { groups_claim: '' }\n",
            &["3:authorization.groups_claim: the name of a claim cannot be empty"],
        ),
        (
            "authorization: { groups_claim: 7 }\n",
            &["3:authorization.groups_claim: expected the name of a claim, or a list of the names that lead to it"],
        ),
        ("roles: []\nbindings: {}\n", &["3:roles: expected a mapping", "4:bindings: expected a list"]),
    ];
    for (yaml, expected) in cases {
        let found = read(yaml).expect_err(yaml);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "found    {found}\nexpected {expected}");
        }
    }
    // What other settings make of the same values.
    config("authorization: { canonical: base }\nroles: { r: [ { paths: ['/a//b'] } ] }\n");
}

#[test]
fn a_role_that_nobody_has_is_a_warning_with_its_line() {
    let mut errors = Errors::default();
    let (config, root) =
        Config::parse("mesh.yaml", &format!("{HEAD}{SHOP}"), Path::new("."), |_| {}, &mut errors).unwrap();
    let warnings: Vec<_> = config.unbound_roles(Some(&root)).iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["mesh.yaml:7:11: roles.unused: no binding gives this role to anybody"]);
    let places: Vec<_> = policies(&config, Some(&root)).iter().map(|policy| policy.place.line).collect();
    assert_eq!(places, [9, 10, 7]);
}

#[test]
fn groups_are_where_the_configuration_says() {
    let yaml = |claim: &str| {
        format!(
            "authorization: {{ {claim} }}\nroles: {{ r: [ {{ paths: ['/*'] }} ] }}\n\
             bindings: [ {{ role: r, to: {{ groups: ['Domain Admins'] }} }} ]\n"
        )
    };
    let nested = json!({ "realm_access": { "roles": ["Domain Admins"] }, "groups": "other" });
    let flat = json!({ "groups": "Domain Admins", "https://a.b/c": 7 });
    let named = json!({ "https://a.b/c": ["x", "Domain Admins"], "groups": ["Domain", "Admins"] });
    for (claim, expected) in [
        ("", [false, true, false]),
        ("groups_claim: [realm_access, roles]", [true, false, false]),
        ("groups_claim: 'https://a.b/c'", [false, false, true]),
    ] {
        let engine = engine(&config(&yaml(claim)), "");
        let held = [&nested, &flat, &named].map(|claims| engine.role("r", None, Some(&token(claims))));
        assert_eq!(held.map(|answer| answer == RoleAnswer::Held), expected, "{claim}");
    }
}

const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const PATHS: [&str; 6] = ["/orders", "/orders/*", "/orders/{*}", "/orders/{**}/items", "*/items", "/"];
const CALLS: [(&str, &str); 3] = [
    ("shop.Orders/Get", "/shop.Orders/Get"),
    ("shop.Orders/*", "/shop.Orders/*"),
    ("shop.Payments/Charge", "/shop.Payments/Charge"),
];
const IDENTITIES: [(&str, &str); 4] = [
    ("spiffe://td/ns/shop/sa/web", "td/ns/shop/sa/web"),
    ("spiffe://td/ns/shop/*", "td/ns/shop/*"),
    ("spiffe://other/*", "other/*"),
    ("spiffe://td/gateway", "td/gateway"),
];
const PRINCIPALS: [&str; 3] = ["https://idp/alice", "https://idp/*", "*"];
const GROUPS: [&str; 2] = ["staff", "Domain Admins"];
const SCOPES: [&str; 3] = ["orders:read", "orders:write", "admin"];
const DENY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: no, namespace: shop }\n\
                    spec: { action: DENY, rules: [ { to: [ { operation: { methods: [PUT] } } ] } ] }\n";

/// Some of these, at least one, as YAML lists in both languages.
fn some(rng: &Rng, all: &[(&str, &str)]) -> (String, String) {
    let picked: Vec<_> = (0..=rng.below(2)).map(|_| all[rng.below(all.len())]).collect();
    let list = |of: fn(&(&str, &str)) -> String| format!("[{}]", picked.iter().map(of).collect::<Vec<_>>().join(", "));
    (list(|(short, _)| format!("'{short}'")), list(|(_, long)| format!("'{long}'")))
}

fn same<const N: usize>(all: [&'static str; N]) -> [(&'static str, &'static str); N] {
    all.map(|text| (text, text))
}

/// Roles and bindings, and the documents that somebody would have written by hand.
fn generate(rng: &Rng) -> (String, String) {
    let (mut roles, mut bindings, mut documents) =
        (String::from("roles:\n"), String::from("bindings:\n"), String::new());
    for role in 0..=rng.below(2) {
        let (mut entries, mut operations) = (Vec::new(), Vec::new());
        for _ in 0..=rng.below(2) {
            let (methods, paths, calls) = (some(rng, &same(METHODS)), some(rng, &same(PATHS)), some(rng, &CALLS));
            let (entry, operation) = match rng.below(4) {
                0 => (format!("methods: {}", methods.0), format!("methods: {}", methods.1)),
                1 => (format!("paths: {}", paths.0), format!("paths: {}", paths.1)),
                2 => (format!("grpc: {}", calls.0), format!("methods: [POST], paths: {}", calls.1)),
                _ => (
                    format!("methods: {}, paths: {}", methods.0, paths.0),
                    format!("paths: {}, methods: {}", paths.1, methods.1),
                ),
            };
            entries.push(format!("{{ {entry} }}"));
            operations.push(format!("{{ operation: {{ {operation} }} }}"));
        }
        roles += &format!("  r{role}: [ {} ]\n", entries.join(", "));
        let mut rules = Vec::new();
        for _ in 0..=rng.below(2) {
            let mut to = Vec::new();
            let which = 1 + rng.below(15);
            let mut rule = |who: String| rules.push(format!("{{ {who}, to: [{}] }}", operations.join(", ")));
            if which & 1 > 0 {
                let (short, long) = some(rng, &IDENTITIES);
                to.push(format!("identities: {short}"));
                rule(format!("from: [ {{ source: {{ principals: {long} }} }} ]"));
            }
            if which & 2 > 0 {
                let (short, long) = some(rng, &same(PRINCIPALS));
                to.push(format!("request_principals: {short}"));
                rule(format!("from: [ {{ source: {{ requestPrincipals: {long} }} }} ]"));
            }
            if which & 4 > 0 {
                let (short, long) = some(rng, &same(GROUPS));
                to.push(format!("groups: {short}"));
                rule(format!("when: [ {{ key: 'request.auth.claims[groups]', values: {long} }} ]"));
            }
            if which & 8 > 0 {
                let (short, long) = some(rng, &same(SCOPES));
                to.push(format!("scopes: {short}"));
                for claim in ["scope", "scp"] {
                    rule(format!("when: [ {{ key: 'request.auth.claims[{claim}]', values: {long} }} ]"));
                }
            }
            bindings += &format!("  - {{ role: r{role}, to: {{ {} }} }}\n", to.join(", "));
        }
        documents += &format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p{role}, namespace: shop \
             }}\nspec: {{ rules: [ {} ] }}\n",
            rules.join(", ")
        );
    }
    (format!("{roles}{bindings}"), documents)
}

#[test]
fn a_role_file_decides_as_the_policies_that_somebody_would_write() {
    let peers = ["td/ns/shop/sa/web", "td/ns/shop/sa/batch", "td/ns/ops/sa/web", "other/ns/shop/sa/web", "td/gateway"];
    let peers = peers.map(|text| id(&format!("spiffe://{text}")));
    let tokens = [
        json!({ "sub": "alice", "scope": "orders:read admin" }),
        json!({ "sub": "bob", "scp": ["orders:write"], "groups": ["Domain Admins", 7] }),
        json!({ "scp": "admin", "groups": "staff" }),
        json!({ "sub": "", "scope": ["orders:read"], "groups": { "staff": true } }),
    ];
    let tokens = tokens.map(|claims| token(&claims));
    let paths = ["/orders", "/orders/7", "/orders/7/items", "/", "/shop.Orders/Get", "/shop.Payments/Charge", "/x"];
    let (mut allowed, mut would_help, mut asked) = (0, 0, 0);
    for seed in 1..400 {
        let rng = Rng::seeded(seed);
        let (short, long) = generate(&rng);
        let deny = if rng.below(2) == 0 { DENY } else { "" };
        let by_roles = engine(&config(&short), deny);
        let by_hand = engine(&config(""), &format!("{long}{deny}"));
        for _ in 0..40 {
            let request = Request {
                peer: (rng.below(4) > 0).then(|| &peers[rng.below(peers.len())]),
                token: (rng.below(2) > 0).then(|| &tokens[rng.below(tokens.len())]),
                method: METHODS[rng.below(METHODS.len())],
                path: paths[rng.below(paths.len())],
                ..Request::UNKNOWN
            };
            let judged = [&by_roles, &by_hand].map(|engine| {
                let decision = engine.decide(&request);
                (decision.verdict, decision.reason, decision.token_would_help)
            });
            assert_eq!(judged[0], judged[1], "seed {seed}: {request:?}\n{short}\n{long}");
            asked += 1;
            allowed += usize::from(judged[0].0 == Verdict::Allow);
            would_help += usize::from(judged[0].2);
        }
    }
    // A generator that reaches one verdict proves little.
    assert!(
        allowed > asked / 10 && allowed < asked * 9 / 10 && would_help > asked / 50,
        "{allowed} {would_help} {asked}"
    );
}
