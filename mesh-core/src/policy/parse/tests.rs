use super::*;
use crate::policy::RequestPrincipal;
use crate::policy::document::Clause;
use crate::policy::document::{Condition, PathPattern};
use crate::policy::pattern::Pattern;

fn document(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: shop }}\n\
             spec: {spec}\n"
    )
}

fn parse(text: &str) -> (Vec<AuthorizationPolicy>, Vec<String>) {
    let mut errors = Errors::default();
    let documents = parse_documents("p.yaml", text, &mut errors);
    (documents, errors.issues().iter().map(ToString::to_string).collect())
}

/// What a rule with this source, operation or condition is refused with.
fn rule_with(part: &str) -> String {
    document(&format!("{{ rules: [{{ {part} }}] }}"))
}

#[test]
fn a_whole_document_is_read_to_the_last_field() {
    let (documents, errors) = parse(
        r#"---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: shop
  labels: { team: shop }
  annotations: { kubectl.kubernetes.io/last-applied-configuration: "{}" }
spec:
  selector: { matchLabels: { app: orders } }
  action: DENY
  rules:
    - from:
        - source:
            principals: ["cluster.local/ns/shop/sa/web", "*/sa/batch"]
            notNamespaces: ["ops-*"]
        - source: { requestPrincipals: ["https://idp.example/*"], notRequestPrincipals: ["*"] }
      to:
        - operation: { hosts: ["orders:*"], ports: ["8443", 80], notMethods: [GET], paths: ["/a/*"] }
      when:
        - { key: "request.auth.claims[groups][x]", values: [admins] }
        - { key: "request.headers[X-Team]", notValues: ["*"] }
    - {}
---
"#,
    );
    assert_eq!(errors, [""; 0]);
    let [document] = documents.as_slice() else { panic!("{documents:?}") };
    let exact = |text: &str| Pattern::Exact(text.into());
    assert_eq!((&*document.name, &*document.namespace, document.action), ("shop/orders", "shop", Action::Deny));
    assert_eq!(document.selector, BTreeMap::from([("app".to_owned(), "orders".to_owned())]));
    assert_eq!(document.place.line, 2);
    let [rule, everything] = document.rules.as_slice() else { panic!("{document:?}") };
    assert_eq!(*everything, Rule::default());
    let principals = vec![exact("cluster.local/ns/shop/sa/web"), Pattern::Suffix("/sa/batch".into())];
    assert_eq!(rule.from[0].principals, Clause { any_of: Some(principals), none_of: None });
    assert_eq!(rule.from[0].namespaces.none_of, Some(vec![Pattern::Prefix("ops-".into())]));
    let all_of_idp = RequestPrincipal { issuer: exact("https://idp.example"), subject: Pattern::Present };
    let anybody = RequestPrincipal { issuer: Pattern::Present, subject: Pattern::Present };
    let expected = Clause { any_of: Some(vec![all_of_idp]), none_of: Some(vec![anybody]) };
    assert_eq!(rule.from[1].request_principals, expected);
    assert_eq!(rule.to[0].ports.any_of, Some(vec![8443, 80]));
    assert_eq!(rule.to[0].hosts.any_of, Some(vec![Pattern::Prefix("orders:".into())]));
    assert_eq!(rule.to[0].methods.none_of, Some(vec![exact("GET")]));
    assert_eq!(rule.to[0].paths.any_of, Some(vec![PathPattern::Text(Pattern::Prefix("/a/".into()))]));
    let claim = Clause { any_of: Some(vec![exact("admins")]), none_of: None };
    assert_eq!(rule.when[0], Condition::Claim { path: vec!["groups".into(), "x".into()], values: claim });
    let header = Clause { any_of: None, none_of: Some(vec![Pattern::Present]) };
    assert_eq!(rule.when[1], Condition::Header { name: "x-team".to_owned(), values: header });
}

#[test]
fn absent_rules_and_an_empty_rule_are_opposites() {
    for (spec, rules) in [("{}", 0), ("{ action: ALLOW }", 0), ("{ rules: [{}] }", 1)] {
        let (documents, errors) = parse(&document(spec));
        assert_eq!((documents[0].rules.len(), errors.len()), (rules, 0), "{spec}");
    }
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    let operation = |field: &str| rule_with(&format!("to: [{{ operation: {{ {field} }} }}]"));
    let source = |field: &str| rule_with(&format!("from: [{{ source: {{ {field} }} }}]"));
    let when = |condition: &str| rule_with(&format!("when: [{{ {condition} }}]"));
    for (text, path, message) in [
        // Values of fields that have a form.
        (source("serviceAccounts: ['*']"), "spec.rules[0].from[0].source.serviceAccounts[0]", "`*` means nothing"),
        (source("serviceAccounts: [a/b/c]"), "spec.rules[0].from[0].source.serviceAccounts[0]", "expected NAMESPACE/"),
        (
            source("notServiceAccounts: [a], namespaces: [b]"),
            "spec.rules[0].from[0].source",
            "excludes `principals` and `namespaces`",
        ),
        (source("ipBlocks: [10.0.0.0/33]"), "spec.rules[0].from[0].source.ipBlocks[0]", "CIDR range"),
        (source("notRemoteIpBlocks: [x]"), "spec.rules[0].from[0].source.notRemoteIpBlocks[0]", "an IP address"),
        (source("trustDomains: [a/b]"), "spec.rules[0].from[0].source.trustDomains[0]", "holds no `/`"),
        (source("trustDomains: ['a*b']"), "spec.rules[0].from[0].source.trustDomains[0]", "at the start or at the end"),
        (source("trustDomains: [A]"), "spec.rules[0].from[0].source.trustDomains[0]", "[a-z0-9._-]"),
        (operation("paths: ['/a/{id}']"), "spec.rules[0].to[0].operation.paths[0]", "braces"),
        (operation("paths: ['/a/{*}x']"), "spec.rules[0].to[0].operation.paths[0]", "stand alone"),
        (operation("notPaths: ['/{**}/{*}']"), "spec.rules[0].to[0].operation.notPaths[0]", "last operator"),
        (when("key: source.ip, values: [here]"), "spec.rules[0].when[0].values[0]", "an IP address"),
        (when("key: 'experimental.envoy.filters.a[b]', values: [c]"), "spec.rules[0].when[0].key", "Envoy's own"),
        (when("key: 'request.headersx[a]', values: [b]"), "spec.rules[0].when[0].key", "unknown key"),
        (document("{ action: CUSTOM, provider: { name: x } }"), "spec", "asks nobody"),
        (document("{ action: CUSTOM, rules: [{}] }"), "spec", "CUSTOM needs `provider"),
        (document("{ action: CUSTOM, rules: [{}], provider: { name: '' } }"), "spec.provider", "cannot be empty"),
        (document("{ action: DENY, rules: [{}], provider: { name: x } }"), "spec.provider", "belongs to CUSTOM"),
        (document("{ targetRefs: [{ kind: Gateway, name: g }] }"), "spec.targetRefs[0]", "expected `Service`"),
        (
            document("{ targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: g }] }"),
            "spec.targetRefs[0]",
            "`gateway.networking.k8s.io/Gateway`",
        ),
        (document("{ targetRefs: [{ kind: GatewayClass, name: g }] }"), "spec.targetRefs[0]", "expected `Service`"),
        (document("{ targetRef: { kind: Service, name: '' } }"), "spec.targetRef", "cannot be empty"),
        (document("{ targetRefs: [] }"), "spec.targetRefs", "an empty list"),
        (
            document("{ targetRefs: [{ kind: Service, name: a, namespace: b }] }"),
            "spec.targetRefs[0].namespace",
            "own namespace",
        ),
        (
            document("{ targetRefs: [{ kind: Service, name: a }], selector: { matchLabels: { a: b } } }"),
            "spec",
            "exclude each other",
        ),
        (
            document("{}").replace("namespace: shop", "namespace: shop, annotations: { istio.io/dry-run: 'yes' }"),
            "metadata.annotations.istio.io/dry-run",
            "\"true\" or \"false\"",
        ),
        (
            document("{ action: AUDIT, rules: [{}] }")
                .replace("namespace: shop", "namespace: shop, annotations: { istio.io/dry-run: 'true' }"),
            "metadata.annotations.istio.io/dry-run",
            "not for AUDIT",
        ),
        (
            document("{}").replace("namespace: shop", "namespace: shop, annotations: { istio.io/rev: 'true' }"),
            "metadata.annotations.istio.io/rev",
            "not known here",
        ),
        // Never part of it.
        (source("principal: [a]"), "spec.rules[0].from[0].source.principal", "did you mean `principals`?"),
        (operation("method: [GET]"), "spec.rules[0].to[0].operation.method", "did you mean `methods`?"),
        (rule_with("form: []"), "spec.rules[0].form", "did you mean `from`?"),
        (document("{ rule: [{}] }"), "spec.rule", "did you mean `rules`?"),
        (document("{ action: allow }"), "spec.action", "ALLOW, DENY, AUDIT or CUSTOM"),
        (when("key: 'request.header[a]', values: [b]"), "spec.rules[0].when[0].key", "unknown key"),
        (when("key: 'request.headers[a][b]', values: [b]"), "spec.rules[0].when[0].key", "unknown key"),
        (when("key: 'request.auth.claims[]', values: [b]"), "spec.rules[0].when[0].key", "unknown key"),
        // Empty means nothing, or everything: nobody can tell.
        (rule_with("from: []"), "spec.rules[0].from", "an empty list"),
        (rule_with("from:"), "spec.rules[0].from", "expected a list"),
        (rule_with("from: [{}]"), "spec.rules[0].from[0].source", "required"),
        (source(""), "spec.rules[0].from[0].source", "an empty `source`"),
        (operation(""), "spec.rules[0].to[0].operation", "an empty `operation`"),
        (source("principals: []"), "spec.rules[0].from[0].source.principals", "an empty list"),
        (source("principals: ['']"), "spec.rules[0].from[0].source.principals[0]", "an empty value"),
        (source("principals: [null]"), "spec.rules[0].from[0].source.principals[0]", "expected a value"),
        (source("principals: web"), "spec.rules[0].from[0].source.principals", "expected a list"),
        (source("principals: ['*a*']"), "spec.rules[0].from[0].source.principals[0]", "at the start or at the end"),
        (source("requestPrincipals: [alice]"), "spec.rules[0].from[0].source.requestPrincipals[0]", "ISSUER/SUBJECT"),
        (
            source("notRequestPrincipals: ['https://idp.example*']"),
            "spec.rules[0].from[0].source.notRequestPrincipals[0]",
            "split at its last",
        ),
        (document("{ rules: [] }"), "spec.rules", "an empty list"),
        (document("{ rules: [null] }"), "spec.rules[0]", "expected a value"),
        (document("{ rules: }"), "spec.rules", "expected a list"),
        (document("{ action: DENY }"), "spec", "denies nothing"),
        (document("{ selector: { matchLabels: {} } }"), "spec.selector", "is empty"),
        (document("{ selector: { matchLabels: { app: '*' } } }"), "spec.selector", "compared exactly"),
        (when("key: source.principal"), "spec.rules[0].when[0]", "`values`, `notValues`"),
        // A DENY with one of these would hold nothing.
        (
            source("principals: ['spiffe://shop.example/ns/shop/sa/web']"),
            "spec.rules[0].from[0].source.principals[0]",
            "without `spiffe://`",
        ),
        (source("principals: ['spiffe://*']"), "spec.rules[0].from[0].source.principals[0]", "without `spiffe://`"),
        (source("notPrincipals: [Shop/ns/a/sa/b]"), "spec.rules[0].from[0].source.notPrincipals[0]", "byte 9"),
        (source("principals: [shop.example]"), "spec.rules[0].from[0].source.principals[0]", "TRUST_DOMAIN/PATH"),
        (when("key: source.principal, notValues: [web]"), "spec.rules[0].when[0].notValues[0]", "TRUST_DOMAIN/PATH"),
        (operation("paths: [admin]"), "spec.rules[0].to[0].operation.paths[0]", "path_form"),
        (operation("paths: [/a//b]"), "spec.rules[0].to[0].operation.paths[0]", "path_empty_segment"),
        (operation("paths: ['/a?b=*']"), "spec.rules[0].to[0].operation.paths[0]", "path_character"),
        (operation("paths: ['/%61dmin/*']"), "spec.rules[0].to[0].operation.paths[0]", "path_needless_escape"),
        (operation("notPaths: ['*/../x']"), "spec.rules[0].to[0].operation.notPaths[0]", "path_dot_segment"),
        (operation("hosts: ['https://orders']"), "spec.rules[0].to[0].operation.hosts[0]", "HOST:PORT"),
        (operation("hosts: ['orders.']"), "spec.rules[0].to[0].operation.hosts[0]", "HOST:PORT"),
        (operation("methods: [get]"), "spec.rules[0].to[0].operation.methods[0]", "did you mean `GET`?"),
        (when("key: 'request.headers[:path]', values: [a]"), "spec.rules[0].when[0].key", "`paths`"),
        (when("key: 'request.headers[Host]', values: [a]"), "spec.rules[0].when[0].key", "`hosts`"),
        (when("key: 'request.headers[X-Mesh-Id]', values: [a]"), "spec.rules[0].when[0].key", "forge"),
        (when("key: 'request.headers[a b]', values: [a]"), "spec.rules[0].when[0].key", "no header"),
        (when("key: 'request.headers[authorization]', values: [a]"), "spec.rules[0].when[0].key", "bearer token"),
        // Values.
        (operation("ports: ['65536']"), "spec.rules[0].to[0].operation.ports[0]", "0 to 65535"),
        (operation("ports: ['80-90']"), "spec.rules[0].to[0].operation.ports[0]", "0 to 65535"),
        (operation("ports: [-1]"), "spec.rules[0].to[0].operation.ports[0]", "0 to 65535"),
        (operation("methods: [7]"), "spec.rules[0].to[0].operation.methods[0]", "a string"),
        // Documents.
        (document("{}").replace("AuthorizationPolicy", "PeerAuthentication"), "kind", "expected `AuthorizationPolicy`"),
        (document("{}").replace("AuthorizationPolicy", "List"), "kind", "expected `AuthorizationPolicy`"),
        (document("{}").replace("security.istio.io/v1", "security.istio.io/v2"), "apiVersion", "not supported"),
        (document("{}").replace("name: p, ", ""), "metadata.name", "required"),
        (document("{}").replace(", namespace: shop", ""), "metadata.namespace", "required"),
        (document("{}").replace("name: p", "name: a/b"), "metadata", "`/`"),
        (document("{}").replace("spec: {}", ""), "spec", "required"),
        (document("{}") + "specs: {}\n", "specs", "did you mean `spec`?"),
    ] {
        let (documents, errors) = parse(&text);
        let at = |error: &String| {
            let (place, said) = error.rsplit_once(&format!("{path}: ")).unwrap_or_default();
            place.starts_with("p.yaml:") && said.contains(message)
        };
        assert!(errors.iter().any(at), "{text}\n{errors:#?}\nexpected {path}: {message}");
        assert!(documents.is_empty(), "{text}");
    }
}

#[test]
fn a_bad_document_is_left_out_and_all_problems_are_said_at_once() {
    let bad = rule_with("from: [{ source: { principals: [''], ipBlocks: [x] } }], too: []");
    let (documents, errors) = parse(&format!("{}---\n{bad}", document("{}")));
    assert_eq!((documents.len(), errors.len()), (1, 3), "{errors:?}");
    assert!(errors.iter().all(|error| error.starts_with("p.yaml:9:")), "{errors:?}");
}

#[test]
fn one_name_is_given_once() {
    let (policies, _) = parse(&format!("{}---\n{}", document("{}"), document("{ rules: [{}] }")));
    let documents = Documents { policies, ..Documents::default() };
    let mut errors = Errors::default();
    refuse_duplicates(&documents, &mut errors);
    let [issue] = errors.issues() else { panic!("{errors:?}") };
    assert_eq!(issue.message, "`shop/p` is already defined at p.yaml:1");
}

/// Istio asks external authorizers before it knows who calls.
#[test]
fn custom_rules_of_compat_ask_for_no_identity() {
    let source = |field: &str| format!("from: [{{ source: {{ {field} }} }}]");
    let when = |key: &str| format!("when: [{{ key: '{key}', values: ['1'] }}]");
    for (part, identity) in [
        (source("principals: [td/a]"), true),
        (source("notPrincipals: ['*']"), true),
        (source("requestPrincipals: [i/s]"), true),
        (source("namespaces: [a]"), true),
        (source("notNamespaces: [a]"), true),
        (source("serviceAccounts: [a]"), true),
        (source("trustDomains: [a]"), true),
        (source("ipBlocks: [10.0.0.1]"), false),
        (source("notRemoteIpBlocks: [10.0.0.1]"), false),
        (when("source.principal").replace("'1'", "td/a"), true),
        (when("source.namespace"), true),
        (when("source.serviceAccount"), true),
        (when("source.trustDomain"), true),
        (when("request.auth.principal").replace("'1'", "i/s"), true),
        (when("request.auth.audiences"), true),
        (when("request.auth.presenter"), true),
        (when("request.auth.claims[a]"), true),
        (when("request.headers[a]"), false),
        (when("destination.port"), false),
        (when("connection.sni"), false),
    ] {
        for (action, mode, refused) in [
            ("CUSTOM, provider: { name: x }", Mode::Compat, identity),
            ("CUSTOM, provider: { name: x }", Mode::Strict, false),
            ("DENY", Mode::Compat, false),
        ] {
            let mut errors = Errors::default();
            let text = document(&format!("{{ action: {action}, rules: [{{ {part} }}] }}"));
            let documents = parse_documents_as(mode, Canonicalization::Reject, "p.yaml", &text, &mut errors);
            assert_eq!(documents.is_empty(), refused, "{text}: {:?}", errors.issues());
        }
    }
}

#[test]
fn what_metadata_and_targets_may_say() {
    let annotated = |annotation: &str| {
        document("{}").replace("namespace: shop", &format!("namespace: shop, annotations: {{ {annotation} }}"))
    };
    for (annotation, expected) in [
        ("istio.io/dry-run: '1'", Some(true)),
        ("istio.io/dry-run: 't'", Some(true)),
        ("istio.io/dry-run: 'TRUE'", Some(true)),
        ("istio.io/dry-run: 'True'", Some(true)),
        ("istio.io/dry-run: '0'", Some(false)),
        ("istio.io/dry-run: 'f'", Some(false)),
        ("istio.io/dry-run: 'False'", Some(false)),
        ("istio.io/dry-run: ''", None),
        ("istio.io/dry-run: 'tRUE'", None),
        ("istio.io/dry-runs: 'true'", None),
        ("sidecar.istio.io/inject: 'true'", None),
        ("notistio.io/dry-run: 'true'", Some(false)),
        ("istio.io.example/x: 'true'", Some(false)),
        ("other: istio.io", Some(false)),
    ] {
        let (documents, errors) = parse(&annotated(annotation));
        assert_eq!(documents.first().map(|document| document.dry_run), expected, "{annotation}: {errors:?}");
        assert_eq!(errors.is_empty(), expected.is_some());
    }
    for (spec, accepted) in [
        ("{ targetRef: { kind: Service, name: a } }", true),
        ("{ targetRefs: [{ kind: Service, group: '', name: a }, { kind: Service, group: core, name: b }] }", true),
        ("{ targetRef: { kind: Service, group: apps, name: a } }", false),
        ("{ targetRef: { kind: Pod, group: core, name: a } }", false),
        ("{ targetRef: { kind: Service, name: a }, targetRefs: [{ kind: Service, name: b }] }", false),
        ("{ selector: { matchLabels: { a: b } } }", true),
        ("{ selector: { matchLabels: { 'a*': b } } }", false),
        ("{ selector: { matchLabels: { a: '*b' } } }", false),
        ("{ selector: { matchLabels: { '': b } } }", false),
        ("{ selector: {} }", false),
    ] {
        let (documents, errors) = parse(&document(spec));
        assert_eq!((documents.len(), errors.is_empty()), (usize::from(accepted), accepted), "{spec}: {errors:?}");
    }
    for (name, accepted) in [("name: ''", false), ("name: a/b", false), ("name: a.b", true)] {
        assert_eq!(parse(&document("{}").replace("name: p", name)).0.len(), usize::from(accepted), "{name}");
        let namespace = name.replace("name", "namespace");
        let text = document("{}").replace("namespace: shop", &namespace);
        assert_eq!(parse(&text).0.len(), usize::from(accepted), "{namespace}");
    }
}

/// What some request may have is taken, however odd.
#[test]
fn values_that_something_matches_are_taken() {
    let operation = |field: &str| rule_with(&format!("to: [{{ operation: {{ {field} }} }}]"));
    let source = |field: &str| rule_with(&format!("from: [{{ source: {{ {field} }} }}]"));
    for (text, accepted) in [
        (operation("hosts: ['*.shop', 'orders*', '*:8443', 'ORDERS:443', '[::1]:1', '*']"), true),
        (operation("hosts: ['orders/*']"), false),
        (operation("hosts: ['*@orders']"), false),
        (operation("hosts: ['* orders']"), false),
        (operation("methods: [GET, PURGE, M-SEARCH, purge, 'G*', '*et', '*']"), true),
        (operation("methods: [Patch]"), false),
        (operation("paths: [/, '/*', '/a*', '*/b', '*', '/a/']"), true),
        (operation("paths: ['a*']"), false),
        (operation("ports: ['0', 65535]"), true),
        (source("trustDomains: [a-1_b.c, 'a*', '*.c', '*']"), true),
        (source("trustDomains: ['A*']"), false),
        (source("trustDomains: ['*.é']"), false),
        (source("principals: ['td/*', '*/sa/web', '*', td/gateway]"), true),
        (source("principals: ['*:a']"), false),
        (rule_with("when: [{ key: \"request.headers[!#$%&'*+-.^_`|~9]\", values: [a] }]"), true),
        (rule_with("when: [{ key: 'request.headers[:authority]', values: [a] }]"), false),
        (rule_with("when: [{ key: 'request.headers[:method]', values: [a] }]"), false),
        (rule_with("when: [{ key: 'request.headers[cookie]', values: [a] }]"), true),
    ] {
        let (documents, errors) = parse(&text);
        assert_eq!((documents.len(), errors.is_empty()), (usize::from(accepted), accepted), "{text}: {errors:?}");
    }
}
