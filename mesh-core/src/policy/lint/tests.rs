//! Each code has documents that trigger it and others that do not.

use super::*;
use crate::config::Errors;
use crate::policy::canonical::Canonicalization;
use crate::policy::{Mode, parse_documents_as, parse_file};

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
    let ends =
        (0..9).map(|n| format!("{{ from: [ {{ source: {{ namespaces: ['*op{n}'] }} }} ] }}")).collect::<Vec<_>>();
    let ends = format!("shop/p action: ALLOW, rules: [ {} ]", ends.join(", "));
    let nine = |rule: &str| format!("shop/p rules: [ {} ]", vec![format!("{{ {rule} }}"); 9].join(", "));
    let two = |one: &str, other: &str| format!("shop/p rules: [ {one}, {other} ]");
    let get = "{ to: [ { operation: { methods: [GET] } } ] }";
    let get_or_put = "{ to: [ { operation: { methods: [GET, PUT] } } ] }";
    let get_of_web = "{ from: [ { source: { namespaces: [web] } } ], to: [ { operation: { methods: [GET] } } ] }";
    let deny = to("DENY", "methods: [PUT]");
    let shut = "action: DENY, rules: [ { from: [ { source: { notPrincipals: ['*'] } } ] } ]";
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
                from("ALLOW", "notPrincipals: [td/a], namespaces: [a]"),
                from("ALLOW", "notPrincipals: [td/a], trustDomains: [a]"),
                from("ALLOW", "notPrincipals: [td/a]")
                    .replace("} } ] }", "} } ], when: [ { key: 'request.auth.claims[a]', values: [b] } ] }"),
                from("ALLOW", "notPrincipals: [td/a]")
                    .replace("} } ] }", "} } ], when: [ { key: request.auth.principal, values: ['*'] } ] }"),
                from("ALLOW", "notPrincipals: [td/a]")
                    .replace("} } ] }", "} } ], when: [ { key: source.principal, values: ['*'] } ] }"),
                from("ALLOW", "notIpBlocks: [10.0.0.1]"),
                from("DENY", "notPrincipals: ['*']"),
            ],
        ),
        (
            LintCode::DenyMissesAnonymous,
            vec![
                from("DENY", "namespaces: [a]"),
                from("DENY", "principals: [td/a]"),
                from("DENY", "serviceAccounts: [a]"),
                from("DENY", "trustDomains: [a]"),
                when("DENY", "key: source.namespace, values: [a]"),
                when("DENY", "key: source.trustDomain, values: [a]"),
                when("DENY", "key: source.serviceAccount, values: [a]"),
                when("DENY", "key: source.principal, values: [td/a]"),
                custom("{ from: [ { source: { principals: [td/a] } } ] }"),
                // Denied elsewhere, for a while, or in part.
                format!("{}\nother/q {shut}", from("DENY", "namespaces: [a]")),
                format!("{}\n!shop/q {shut}", from("DENY", "namespaces: [a]")),
                format!("{}\nshop/q {}", from("DENY", "namespaces: [a]"), shut.replace("'*'", "'td*'")),
            ],
            vec![
                format!("{}\nshop/q {shut}", from("DENY", "namespaces: [a]")),
                from("DENY", "notNamespaces: [a]"), from("ALLOW", "namespaces: [a]"), from("DENY", "ipBlocks: [10.0.0.1]")],
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
                custom("{ when: [ { key: source.principal, values: ['*'] } ] }"),
                custom("{ when: [ { key: request.auth.principal, values: ['*'] } ] }"),
                custom("{ from: [ { source: { ipBlocks: [10.0.0.1] } }, { source: { notNamespaces: [a] } } ] }"),
                custom("{ from: [ { source: { requestPrincipals: ['*'] } } ] }"),
            ],
            vec![
                custom(get),
                custom("{ from: [ { source: { ipBlocks: [10.0.0.1] } } ] }"),
                custom("{ when: [ { key: destination.port, values: ['1'] } ] }"),
                from("DENY", "notPrincipals: ['*']"),
            ],
        ),
        (
            LintCode::DenyOneSlashForm,
            vec![
                to("DENY", "paths: [/admin]"),
                to("DENY", "paths: [/admin/]"),
                to("DENY", "paths: [/admin/*]"),
                to("DENY", "paths: [/admin, /other/]"),
                to("DENY", "paths: ['*/admin']"),
                to("DENY", "paths: ['/{*}/admin']"),
                to("DENY", "paths: ['/admin/{**}']"),
                to("ALLOW", "notPaths: [/admin]"),
                to("ALLOW", "notPaths: [/admin], paths: ['/admin*']"),
                custom("{ to: [ { operation: { paths: [/admin] } } ] }"),
            ],
            vec![
                to("DENY", "paths: [/admin, /admin/]"),
                to("DENY", "paths: [/admin, /admin/*]"),
                to("DENY", "paths: [/admin*]"),
                to("DENY", "paths: [/]"),
                to("DENY", "paths: [/shop.Orders/Pay]"),
                to("ALLOW", "paths: [/admin]"),
                to("ALLOW", "notPaths: [/admin, /admin/]"),
                to("ALLOW", "notPaths: [/admin], paths: [/a, /admin]"),
                to("DENY", "paths: [/admin], notPaths: [/admin/]"),
                to("DENY", "paths: ['*/admin', '*/admin/', '*.json']"),
                to("DENY", "paths: ['/admin/{**}', /admin, '/{**}']"),
                to("AUDIT", "paths: [/admin]"),
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
                to("DENY", "hosts: ['orders:*']"),
            ],
            vec![
                to("ALLOW", "hosts: [orders, 'ORDERS:*']"),
                // `*` alone would hold them all.
                to("ALLOW", "hosts: ['orders:8443', '[::1]:1', '*.shop:8443']"),
                to("ALLOW", "hosts: ['orders*', '*']"),
            ],
        ),
        (
            LintCode::HeadOfGet,
            vec![
                to("DENY", "methods: [GET]"),
                to("DENY", "methods: ['G*', PUT]"),
                to("ALLOW", "notMethods: [GET]"),
                custom(get),
            ],
            vec![
                to("DENY", "methods: [GET, HEAD]"),
                to("DENY", "methods: ['*']"),
                to("DENY", "methods: [GET], notMethods: [HEAD]"),
                to("DENY", "methods: [POST]"),
                to("DENY", "notMethods: [GET]"),
                to("ALLOW", "methods: [GET]"),
                to("ALLOW", "notMethods: [GET, HEAD]"),
                to("ALLOW", "methods: [POST], notMethods: [GET]"),
                to("AUDIT", "methods: [GET]"),
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
                to("ALLOW", "methods: [GET], paths: [/orders/7, /a.b/c/d, '/orders/*', '/shop.Orders/Pa*']"),
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
                ends.replace("ALLOW", "DENY"),
                nine("from: [ { source: { principals: ['*'] } } ]"),
                nine("from: [ { source: { namespaces: [a, '*'] } } ]"),
                nine("from: [ { source: { notPrincipals: [td/a] } } ]"),
                nine("from: [ { source: { principals: [td/a] } }, { source: { trustDomains: [a] } } ]"),
                nine("to: [ { operation: { paths: [/a, '*'] } } ]"),
                nine("to: [ { operation: { paths: [/a] } }, { operation: { methods: [GET] } } ]"),
            ],
            vec![
                slow(8),
                ends.clone(),
                ends.replace("ALLOW", "DENY").replace("'*op", "'op"),
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
    // Of documents of another kind: see below.
    seen.extend([LintCode::TokensOptional, LintCode::AnyAudience, LintCode::TokenPlace]);
    assert!(LintCode::ALL.iter().all(|code| seen.contains(code)), "{seen:?}");
    // Nobody without a certificate gets this far.
    let strict = LintOptions { plaintext: false, ..LintOptions::default() };
    assert_eq!(of(lint_of(Mode::Strict, &from("ALLOW", "notPrincipals: [td/a]"), &strict)), []);
}

#[test]
fn tokens_that_nobody_must_bring_are_found() {
    let jwt = |namespace: &str, spec: &str| {
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: jwt, namespace: \
             {namespace} }}\nspec: {{ {spec} }}\n"
        );
        let mut errors = Errors::default();
        let found = parse_file(Mode::Compat, Canonicalization::Reject, "r.yaml", &yaml, &mut errors).requests;
        assert!(errors.is_empty(), "{:?}", errors.issues());
        found
    };
    let of = |requests: &[RequestAuthentication], policies: &[&str], workloads: &[Workload]| {
        let policies = read(Mode::Strict, policies);
        let options = LintOptions { requests, workloads, ..LintOptions::default() };
        let about = |finding: &Finding| finding.place.file.as_ref() == "r.yaml";
        lint(&policies, &options).into_iter().filter(about).map(|finding| finding.code).collect::<Vec<_>>()
    };
    let rule = "{ issuer: 'https://i.example', audiences: [a] }";
    let own = jwt("shop", &format!("jwtRules: [ {rule} ]"));
    let optional = [LintCode::TokensOptional];
    let allow = from("ALLOW", "requestPrincipals: ['*']");
    let closed = "shop/p action: DENY, rules: [ { from: [ { source: { notRequestPrincipals: ['*'] } } ] } ]";
    let claim = when("ALLOW", "key: 'request.auth.claims[a]', values: [b]");
    let elsewhere = closed.replace("shop/p", "web/p");
    let either =
        "shop/p rules: [ { from: [ { source: { requestPrincipals: ['*'] } }, { source: { namespaces: [a] } } ] } ]";
    let trial = closed.replace("shop/p", "!shop/p");
    let of_app = closed.replace("action", "selector: { matchLabels: { app: web } }, action");
    let mut app = Workload::new("web", "shop");
    app.labels.insert("app".to_owned(), "web".to_owned());
    let other = Workload::new("orders", "shop");
    for (policies, workloads, expected) in [
        (vec![], vec![], &optional[..]),
        (vec![ALLOW_WEB], vec![], &optional),
        (vec![&*elsewhere], vec![], &optional),
        (vec![&*trial], vec![], &optional),
        // One of two ways in is open without a token.
        (vec![either], vec![], &optional),
        (vec![&*allow], vec![], &[]),
        (vec![closed], vec![], &[]),
        (vec![&*claim], vec![], &[]),
        // It may be meant for all that there are.
        (vec![&*of_app], vec![], &[]),
        (vec![&*of_app], vec![app.clone()], &[]),
        (vec![&*of_app], vec![app, other], &optional),
        (vec![closed], vec![Workload::new("a", "web")], &[LintCode::SelectsNothing]),
    ] {
        assert_eq!(of(&own, &policies, &workloads), expected, "{policies:?} {workloads:?}");
    }
    let mesh = jwt("istio-system", &format!("jwtRules: [ {rule} ]"));
    assert_eq!(of(&mesh, &[closed], &[]), []);
    let odd = jwt("shop", "jwtRules: [ { issuer: 'https://i.example', fromParams: [a], fromCookies: [b] } ]");
    assert_eq!(of(&odd, &[closed], &[]), [LintCode::AnyAudience, LintCode::TokenPlace, LintCode::TokenPlace]);
    assert_eq!(of(&jwt("shop", ""), &[closed], &[]), [LintCode::Doubt]);
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

/// A rule makes another useless only if it is as wide in every field: one that is narrower keeps it.
#[test]
fn a_rule_is_as_wide_as_its_narrowest_field() {
    let sources = [
        ("principals", "td/a", "td/b"),
        ("requestPrincipals", "i/a", "i/b"),
        ("trustDomains", "a", "b"),
        ("ipBlocks", "10.0.0.1", "10.0.0.2"),
        ("remoteIpBlocks", "10.0.0.1", "10.0.0.2"),
        ("namespaces", "a", "b"),
    ];
    let accounts = [("serviceAccounts", "a", "b"), ("ipBlocks", "10.0.0.1", "10.0.0.2")];
    let operations =
        [("hosts", "a:1", "b:1"), ("ports", "'1'", "'2'"), ("methods", "GET", "PUT"), ("paths", "/a", "/b")];
    let source = |fields: String| format!("{{ from: [ {{ source: {{ {fields} }} }} ] }}");
    let operation = |fields: String| format!("{{ to: [ {{ operation: {{ {fields} }} }} ] }}");
    let found = |wide: &str, narrow: &str| {
        let documents = read(Mode::Strict, &[&format!("shop/p rules: [ {wide}, {narrow} ]")]);
        let codes = lint(&documents, &LintOptions::default()).into_iter().map(|finding| (finding.code, finding.rule));
        codes.filter(|(code, _)| matches!(code, LintCode::ShadowedRule | LintCode::DuplicateRule)).collect::<Vec<_>>()
    };
    type Rule<'a> = &'a dyn Fn(String) -> String;
    let groups: [(&[_], Rule<'_>); 3] = [(&sources, &source), (&accounts, &source), (&operations, &operation)];
    for (fields, rule) in groups {
        for (name, one, two) in fields {
            let not = format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
            let (wide, narrow) = (rule(format!("{name}: [{one}, {two}]")), rule(format!("{name}: [{two}]")));
            assert_eq!(found(&wide, &narrow), [(LintCode::ShadowedRule, Some(1))], "{name}");
            assert_eq!(found(&narrow, &wide), [(LintCode::ShadowedRule, Some(0))], "{name}");
            assert_eq!(found(&wide, &wide), [(LintCode::DuplicateRule, Some(1))], "{name}");
            assert_eq!(found(&rule(format!("{name}: [{one}]")), &narrow), [], "{name}");
            let (wide, narrow) = (rule(format!("{not}: [{one}]")), rule(format!("{not}: [{one}, {two}]")));
            assert_eq!(found(&wide, &narrow), [(LintCode::ShadowedRule, Some(1))], "{not}");
            assert_eq!(found(&wide, &rule(format!("{not}: [{two}]"))), [], "{not}");
            assert_eq!(found(&wide, &rule(format!("{name}: [{one}]"))), [], "{not}");
            for (other, three, four) in fields.iter().filter(|(other, ..)| other != name) {
                let pair = |a: &str, b: &str| rule(format!("{name}: [{a}], {other}: [{b}]"));
                let both = format!("{one}, {two}");
                assert_eq!(found(&pair(&both, three), &pair(one, four)), [], "{name}, {other}");
                assert_eq!(found(&pair(&both, three), &rule(format!("{name}: [{one}]"))), [], "{name}, {other}");
                assert_eq!(
                    found(&pair(&both, three), &pair(one, three)),
                    [(LintCode::ShadowedRule, Some(1))],
                    "{name}"
                );
            }
        }
    }
    // Parts: what one rule does not ask it does not mind.
    let (from, to) = ("from: [ { source: { namespaces: [a] } } ]", "to: [ { operation: { methods: [GET] } } ]");
    let when = "when: [ { key: destination.port, values: ['1'] } ]";
    for (wide, narrow) in [(from, to), (to, when), (when, from)] {
        let both = format!("{{ {wide}, {narrow} }}");
        assert_eq!(found(&both, &format!("{{ {wide} }}")), [(LintCode::ShadowedRule, Some(0))]);
        assert_eq!(found(&format!("{{ {wide} }}"), &both), [(LintCode::ShadowedRule, Some(1))]);
        assert_eq!(found(&format!("{{ {wide} }}"), &format!("{{ {narrow} }}")), []);
    }
    // Nobody knows what a key means that Istio drops.
    let dropped = "{ when: [ { key: 'request.headersx[a]', values: [b] } ] }";
    for rules in [format!("{{}}, {dropped}"), format!("{dropped}, {dropped}")] {
        let documents = read(Mode::Compat, &[&format!("shop/p action: DENY, rules: [ {rules} ]")]);
        let compared = [LintCode::ShadowedRule, LintCode::DuplicateRule];
        assert!(lint(&documents, &LintOptions::default()).iter().all(|f| !compared.contains(&f.code)), "{rules}");
    }
    // Beyond 64 values, lists are equal or are not compared.
    let ports = |from: u16, count: u16| {
        let all: Vec<String> = (from..from + count).map(|port| format!("'{port}'")).collect();
        operation(format!("ports: [{}]", all.join(", ")))
    };
    assert_eq!(found(&ports(1, 64), &ports(1, 63)), [(LintCode::ShadowedRule, Some(1))]);
    assert_eq!(found(&ports(1, 65), &ports(1, 64)), []);
    assert_eq!(found(&ports(1, 65), &ports(1, 65)), [(LintCode::DuplicateRule, Some(1))]);
}

/// Whether a policy holds wherever another does decides what it can make useless.
#[test]
fn a_policy_is_as_wide_as_what_it_selects() {
    let rules = "rules: [ { to: [ { operation: { methods: [GET] } } ] } ]";
    let targets = |names: &[&str]| {
        let all: Vec<String> = names.iter().map(|name| format!("{{ kind: Service, name: {name} }}")).collect();
        format!("targetRefs: [ {} ], {rules}", all.join(", "))
    };
    let labels = |labels: &str| format!("selector: {{ matchLabels: {{ {labels} }} }}, {rules}");
    for (wide, narrow, expected) in [
        (format!("shop/p {rules}"), format!("shop/q {}", labels("a: x")), true),
        (format!("shop/p {}", labels("a: x")), format!("shop/q {}", labels("a: x, b: y")), true),
        (format!("shop/p {}", labels("a: x")), format!("shop/q {}", labels("a: y, b: x")), false),
        (format!("shop/p {rules}"), format!("other/q {}", labels("a: x")), false),
        (format!("istio-system/p {rules}"), format!("other/q {}", labels("a: x")), true),
        (format!("shop/p {rules}"), format!("shop/q {}", targets(&["a"])), true),
        (format!("shop/p {}", targets(&["a", "b"])), format!("shop/q {}", targets(&["a"])), true),
        (format!("shop/p {}", targets(&["a", "b"])), format!("shop/q {}", targets(&["a", "c"])), false),
        (format!("shop/p {}", targets(&["a", "b"])), format!("other/q {}", targets(&["a"])), false),
        (format!("shop/p {}", targets(&["a"])), format!("shop/q {rules}"), false),
    ] {
        let documents = read(Mode::Strict, &[&wide, &narrow]);
        let findings = lint(&documents, &LintOptions::default());
        let useless = findings.iter().any(|f| f.code == LintCode::ShadowedRule && f.policy.ends_with("/q"));
        assert_eq!(useless, expected, "{wide} {narrow}");
    }
}

#[test]
fn findings_are_in_the_order_of_the_documents_and_their_rules() {
    let open = "rules: [ { from: [ { source: { notNamespaces: [a] } } ] }, {} ]";
    let texts = ["c", "a", "b"].map(|name| format!("!shop/{name} {open}"));
    let documents = read(Mode::Strict, &texts.each_ref().map(String::as_str));
    let findings = lint(&documents, &LintOptions::default());
    let found: Vec<_> = findings.iter().map(|finding| (finding.policy.to_string(), finding.rule)).collect();
    let of = |name: &str| found.iter().filter(|(policy, _)| policy == name).cloned().collect::<Vec<_>>();
    // Of the policy as a whole, then of each rule, and nothing of another policy between.
    let expected: Vec<_> = ["shop/c", "shop/a", "shop/b"].into_iter().flat_map(of).collect();
    assert_eq!(found, expected);
    for name in ["shop/c", "shop/a", "shop/b"] {
        let rules: Vec<_> = of(name).into_iter().map(|(_, rule)| rule).collect();
        assert!(rules.is_sorted() && rules.first() == Some(&None) && rules.last() >= Some(&Some(0)), "{found:?}");
    }
}
