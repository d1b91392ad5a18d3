//! Each code has documents that trigger it and others that do not.

use super::*;
use crate::config::Errors;
use crate::policy::canonical::Canonicalization;
use crate::policy::{Mode, parse_documents_as};

/// `NAMESPACE/NAME SPEC`, and behind a `!` in front of it a dry run.
fn document(text: &str) -> String {
    let (name, spec) = text.split_once(' ').unwrap();
    let (name, trial) = name.strip_prefix('!').map_or((name, "false"), |name| (name, "true"));
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: \
         {namespace}\n  annotations: {{ istio.io/dry-run: \"{trial}\" }}\nspec: {{ {spec} }}\n"
    )
}

fn read(mode: Mode, documents: &[&str]) -> Vec<AuthorizationPolicy> {
    let yaml: String = documents.iter().map(|text| document(text)).collect();
    let mut errors = Errors::default();
    let documents = parse_documents_as(mode, Canonicalization::Reject, "p.yaml", &yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}", errors.issues());
    documents
}

const ALLOW_WEB: &str = "shop/web rules: [ { from: [ { source: { principals: [td/ns/shop/sa/web] } } ] } ]";

fn from(action: &str, source: &str) -> String {
    format!("shop/p action: {action}, rules: [ {{ from: [ {{ source: {{ {source} }} }} ] }} ]")
}

fn to(action: &str, operation: &str) -> String {
    format!("shop/p action: {action}, rules: [ {{ to: [ {{ operation: {{ {operation} }} }} ] }} ]")
}

fn when(action: &str, condition: &str) -> String {
    format!("shop/p action: {action}, rules: [ {{ when: [ {{ {condition} }} ] }} ]")
}

#[test]
fn every_code_is_found_where_it_is_and_nowhere_else() {
    let custom = |rule: &str| format!("shop/p action: CUSTOM, provider: {{ name: x }}, rules: [ {rule} ]");
    let slow = |count: usize| {
        let rules: Vec<_> =
            (0..count).map(|n| format!("{{ to: [ {{ operation: {{ ports: [\"{n}\"] }} }} ] }}")).collect();
        format!("shop/p rules: [ {} ]", rules.join(", "))
    };
    let nine = |rule: &str| format!("shop/p rules: [ {} ]", vec![format!("{{ {rule} }}"); 9].join(", "));
    let two = |one: &str, other: &str| format!("shop/p rules: [ {one}, {other} ]");
    let get = "{ to: [ { operation: { methods: [GET] } } ] }";
    let get_or_put = "{ to: [ { operation: { methods: [GET, PUT] } } ] }";
    let get_of_web = "{ from: [ { source: { namespaces: [web] } } ], to: [ { operation: { methods: [GET] } } ] }";
    let deny = to("DENY", "methods: [PUT]");
    let table: Vec<(LintCode, Vec<String>, Vec<String>)> = vec![
        (
            LintCode::AllowsAnonymous,
            vec![
                from("ALLOW", "notPrincipals: [td/a]"),
                from("ALLOW", "notNamespaces: [a]"),
                from("ALLOW", "notTrustDomains: [a]"),
                from("ALLOW", "notServiceAccounts: [a]"),
                when("ALLOW", "key: source.namespace, notValues: [a]"),
            ],
            vec![
                from("ALLOW", "notPrincipals: [td/a], principals: ['*']"),
                from("ALLOW", "notPrincipals: [td/a], requestPrincipals: ['*']"),
                from("ALLOW", "notIpBlocks: [10.0.0.1]"),
                from("DENY", "notPrincipals: ['*']"),
            ],
        ),
        (
            LintCode::DenyMissesAnonymous,
            vec![from("DENY", "namespaces: [a]"), when("DENY", "key: source.principal, values: [td/a]")],
            vec![from("DENY", "notNamespaces: [a]"), from("ALLOW", "namespaces: [a]"), from("DENY", "ipBlocks: [10.0.0.1]")],
        ),
        (
            LintCode::JwtSvidSubject,
            vec![
                from("ALLOW", "requestPrincipals: ['https://idp.example/spiffe://td/ns/a/sa/b']"),
                from("ALLOW", "notRequestPrincipals: ['https://idp.example/spiffe://td/b'], principals: ['*']"),
                when("ALLOW", "key: request.auth.principal, values: ['i/spiffe://td/web']"),
            ],
            vec![from("ALLOW", "requestPrincipals: ['https://idp.example/alice']"), from("ALLOW", "requestPrincipals: ['*']")],
        ),
        (
            LintCode::CustomIdentity,
            vec![
                custom("{ from: [ { source: { principals: ['*'] } } ] }"),
                custom("{ from: [ { source: { notRequestPrincipals: ['*'] } } ] }"),
                custom("{ when: [ { key: 'request.auth.claims[a]', values: [b] } ] }"),
                custom("{ when: [ { key: source.namespace, notValues: [b] } ] }"),
            ],
            vec![custom(get), from("DENY", "notPrincipals: ['*']")],
        ),
        (
            LintCode::DenyOneSlashForm,
            vec![
                to("DENY", "paths: [/admin]"),
                to("DENY", "paths: [/admin/]"),
                to("DENY", "paths: [/admin/*]"),
                to("DENY", "paths: [/admin, /other/]"),
            ],
            vec![
                to("DENY", "paths: [/admin, /admin/]"),
                to("DENY", "paths: [/admin, /admin/*]"),
                to("DENY", "paths: [/admin*]"),
                to("DENY", "paths: [/]"),
                to("DENY", "paths: [/shop.Orders/Pay]"),
                to("ALLOW", "paths: [/admin]"),
            ],
        ),
        (
            LintCode::PrefixWithoutSlash,
            vec![to("ALLOW", "paths: [/orders*]")],
            vec![to("ALLOW", "paths: [/orders/*, /orders, '*']"), to("DENY", "paths: [/orders*]")],
        ),
        (
            LintCode::PathTemplate,
            vec![to("ALLOW", "paths: ['/a/{*}']"), to("ALLOW", "notPaths: ['/a/{**}']")],
            vec![to("ALLOW", "paths: [/a/*]")],
        ),
        (
            LintCode::RouteKey,
            vec![when("ALLOW", "key: route, values: ['/a/{id}']")],
            vec![when("ALLOW", "key: destination.port, values: ['1']")],
        ),
        (
            LintCode::HostWithoutPort,
            vec![
                to("ALLOW", "hosts: [orders]"),
                to("DENY", "notHosts: ['*.shop']"),
                to("DENY", "hosts: ['[::1]']"),
                to("DENY", "hosts: [orders, 'other:*']"),
            ],
            vec![
                to("ALLOW", "hosts: [orders, 'ORDERS:*']"),
                to("ALLOW", "hosts: ['orders:8443', '[::1]:1', 'orders*', '*', '*.shop:8443']"),
            ],
        ),
        (
            LintCode::GrpcMethod,
            vec![
                to("ALLOW", "methods: [GET], paths: [/shop.Orders/Pay]"),
                to("ALLOW", "methods: [GET], paths: [/shop.Orders/*]"),
            ],
            vec![
                to("ALLOW", "methods: [POST], paths: [/shop.Orders/Pay]"),
                to("ALLOW", "paths: [/shop.Orders/Pay]"),
                to("ALLOW", "methods: [GET], paths: [/orders/7, /a.b/c/d]"),
            ],
        ),
        (
            LintCode::AllowsEverything,
            vec!["shop/p rules: [{}]".to_owned()],
            vec!["shop/p action: DENY, rules: [{}]".to_owned(), "!shop/p rules: [{}]".to_owned(), "shop/p {}: x".replace("{}: x", "")],
        ),
        (
            LintCode::DryRun,
            vec!["!shop/p rules: [{}]".to_owned()],
            vec!["shop/p rules: [{}]".to_owned()],
        ),
        (LintCode::DenyOnly, vec![deny.clone()], vec![format!("{deny}\n{ALLOW_WEB}"), format!("!{deny}")]),
        (
            LintCode::NotIndexed,
            vec![
                slow(9),
                nine("from: [ { source: { principals: ['*'] } } ]"),
                nine("from: [ { source: { namespaces: [a, '*'] } } ]"),
                nine("from: [ { source: { notPrincipals: [td/a] } } ]"),
                nine("from: [ { source: { principals: [td/a] } }, { source: { trustDomains: [a] } } ]"),
                nine("to: [ { operation: { paths: [/a, '*'] } } ]"),
                nine("to: [ { operation: { paths: [/a] } }, { operation: { methods: [GET] } } ]"),
            ],
            vec![
                slow(8),
                nine("from: [ { source: { principals: [td/a] } } ]"),
                nine("from: [ { source: { namespaces: [a] } } ]"),
                nine("from: [ { source: { serviceAccounts: [a] } } ]"),
                nine("from: [ { source: { principals: ['*'], namespaces: [a] } } ]"),
                nine("to: [ { operation: { paths: [/a] } } ]"),
                nine("from: [ { source: { principals: ['*'] } } ], to: [ { operation: { paths: [/a] } } ]"),
            ],
        ),
        (
            LintCode::DuplicateRule,
            vec![two(get, get), format!("shop/p rules: [ {get} ]\nshop/q rules: [ {get} ]")],
            vec![
                two(get, get_of_web),
                format!("shop/p rules: [ {get} ]\nshop/q action: DENY, rules: [ {get} ]"),
                format!("shop/p rules: [ {get} ]\nother/q rules: [ {get} ]"),
                format!("shop/p rules: [ {get} ]\n!shop/q rules: [ {get} ]"),
            ],
        ),
        (
            LintCode::ShadowedRule,
            vec![
                two(get, get_of_web),
                two(get_of_web, get_or_put),
                two("{}", get),
                format!("shop/p rules: [ {get} ]\nistio-system/q rules: [ {get_or_put} ]"),
            ],
            vec![
                two(get, get),
                two(get, "{ to: [ { operation: { methods: [PUT] } } ] }"),
                two(get, "{ from: [ { source: { namespaces: [web] } } ] }"),
                two(get, "{ to: [ { operation: { methods: [GET], notPaths: [/a] } } ], when: [ { key: route, values: [a] } ] }")
                    .replace(get, get_of_web),
            ],
        ),
    ];
    let lint_of =
        |mode, text: &str, options: &LintOptions<'_>| lint(&read(mode, &text.split('\n').collect::<Vec<_>>()), options);
    let mut seen: Vec<LintCode> = Vec::new();
    for (code, bad, good) in table {
        let found = |text: &str| lint_of(Mode::Strict, text, &LintOptions::default()).iter().any(|f| f.code == code);
        for text in &bad {
            assert!(found(text), "{code:?}: {text}");
        }
        for text in &good {
            assert!(!found(text), "{code:?}: {text}");
        }
        seen.push(code);
    }
    // Those that depend on more than the documents.
    let doubtful = to("ALLOW", "paths: ['/a*b']");
    let of = |findings: Vec<Finding>| findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>();
    assert_eq!(of(lint_of(Mode::Compat, &doubtful, &LintOptions::default())), [LintCode::Doubt]);
    let workloads = [Workload::new("orders", "shop")];
    let known = LintOptions { workloads: &workloads, ..LintOptions::default() };
    assert_eq!(
        of(lint_of(Mode::Strict, &ALLOW_WEB.replace("shop/web", "other/web"), &known)),
        [LintCode::SelectsNothing]
    );
    assert_eq!(of(lint_of(Mode::Strict, ALLOW_WEB, &known)), []);
    assert_eq!(of(lint_of(Mode::Strict, &deny, &known)), [LintCode::DenyOnly]);
    assert_eq!(of(lint_of(Mode::Strict, &format!("{deny}\n{ALLOW_WEB}"), &known)), []);
    let many: Vec<String> = (0..3).map(|n| slow(700).replace("shop/p", &format!("shop/p{n}"))).collect();
    assert!(of(lint_of(Mode::Strict, &many.join("\n"), &known)).contains(&LintCode::NotCompared));
    seen.extend([LintCode::Doubt, LintCode::SelectsNothing, LintCode::NotCompared]);
    assert!(LintCode::ALL.iter().all(|code| seen.contains(code)), "{seen:?}");
    // Nobody without a certificate gets this far.
    let strict = LintOptions { plaintext: false, ..LintOptions::default() };
    assert_eq!(of(lint_of(Mode::Strict, &from("ALLOW", "notPrincipals: [td/a]"), &strict)), []);
}

#[test]
fn a_finding_stands_where_its_rule_does() {
    let documents =
        read(Mode::Strict, &[ALLOW_WEB, "shop/p rules: [ { from: [ { source: { notNamespaces: [a] } } ] } ]"]);
    let findings = lint(&documents, &LintOptions::default());
    let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "p.yaml:16:18: spec.rules[0].from[0].source: warning [allows_anonymous] shop/p rule 0: it excludes identities \
          and demands none: a caller over plaintext has none, and is let in; demand an identity beside it: \
          `principals: [\"*\"]`"
        ]
    );
}
