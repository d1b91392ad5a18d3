//! From YAML to typed documents: each field is used or refused, at its line.
//!
//! A field that is skipped makes a rule wider than its author thinks. So what Istio knows and this mesh does not yet is
//! an error that says so, and so are empty lists and empty values.

use std::collections::BTreeMap;

use super::document::{Action, AuthorizationPolicy, Clause, Condition, Operation, RequestPrincipal, Rule, Source};
use super::pattern::Pattern;
use super::unmatched;
use crate::config::yaml::{self, Value};
use crate::config::{ConfigError, Errors, Fields, Node};

/// Reads the `AuthorizationPolicy` documents of one file. Any other `kind` is an error.
///
/// A document with a problem is noted in `errors` and left out: use none of them unless `errors` stayed empty.
pub fn parse_documents(file: &str, text: &str, errors: &mut Errors) -> Vec<AuthorizationPolicy> {
    let nodes = yaml::parse(file, text, errors);
    let mut documents = Vec::new();
    // `---` at the end of a file makes an empty document.
    for node in nodes.iter().filter(|node| node.value != Value::Null) {
        let before = errors.issues().len();
        let document = document(node, errors);
        documents.extend(document.filter(|_| errors.issues().len() == before));
    }
    documents
}

impl AuthorizationPolicy {
    /// Reads the documents of a YAML text, for [`MeshBuilder::policies`](crate::MeshBuilder::policies).
    ///
    /// ```
    /// use mesh_core::policy::AuthorizationPolicy;
    ///
    /// let policies = AuthorizationPolicy::from_yaml(
    ///     "apiVersion: security.istio.io/v1
    /// kind: AuthorizationPolicy
    /// metadata: { name: orders, namespace: shop }
    /// spec: { rules: [ { from: [ { source: { namespaces: [ web ] } } ] } ] }",
    /// )?;
    /// let builder = mesh_core::Mesh::builder().policies(policies);
    /// # let _ = builder;
    /// # Ok::<(), mesh_core::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Every problem of every document, with its line.
    pub fn from_yaml(text: &str) -> Result<Vec<Self>, ConfigError> {
        let mut errors = Errors::default();
        let documents = parse_documents("<code>", text, &mut errors);
        errors.finish(Some(documents))
    }
}

/// Refuses two documents of one name, across files: one of them would be forgotten or doubled.
pub fn refuse_duplicates(documents: &[AuthorizationPolicy], errors: &mut Errors) {
    let mut seen: BTreeMap<&str, &AuthorizationPolicy> = BTreeMap::new();
    for document in documents {
        if let Some(first) = seen.insert(&document.name, document) {
            errors.push(
                &document.place,
                format!("`{}` is already defined at {}:{}", document.name, first.place.file, first.place.line),
            );
        }
    }
}

const NOT_YET: &str = "is part of Istio but not supported yet; it is refused rather than ignored";

fn document(node: &Node, errors: &mut Errors) -> Option<AuthorizationPolicy> {
    let mut fields = Fields::of(node, errors)?;
    let version: String = fields.required("apiVersion")?;
    let kind: String = fields.required("kind")?;
    if kind != "AuthorizationPolicy" {
        let place = fields.place("kind");
        fields.errors().push(&place, format!("kind `{kind}` is not supported: expected `AuthorizationPolicy`"));
        return None;
    }
    if !matches!(version.as_str(), "security.istio.io/v1" | "security.istio.io/v1beta1") {
        let place = fields.place("apiVersion");
        fields.errors().push(
            &place,
            format!("`{version}` is not supported: expected `security.istio.io/v1` or `security.istio.io/v1beta1`"),
        );
    }
    let metadata: Option<Node> = fields.required("metadata");
    let spec: Option<Node> = fields.required("spec");
    // What Kubernetes writes back; it says nothing about the verdict.
    let _ = fields.node("status");
    fields.finish();
    let (namespace, name) = metadata.and_then(|node| self::metadata(&node, errors))?;
    let (selector, action, rules) = self::spec(&spec?, errors)?;
    Some(AuthorizationPolicy {
        name: format!("{namespace}/{name}").into(),
        namespace: namespace.into(),
        selector,
        action,
        rules,
        place: node.place.clone(),
    })
}

/// Namespace and name.
fn metadata(node: &Node, errors: &mut Errors) -> Option<(String, String)> {
    let mut fields = Fields::of(node, errors)?;
    let name: Option<String> = fields.required("name");
    let namespace: Option<String> = fields.required("namespace");
    let annotations = fields.node("annotations");
    // Bookkeeping that Kubernetes keeps with every object; it says nothing about the verdict.
    for name in ["labels", "creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"] {
        let _ = fields.node(name);
    }
    for (field, value) in [("name", &name), ("namespace", &namespace)] {
        if value.as_deref().is_some_and(|value| value.is_empty() || value.contains('/')) {
            fields.error(format!("`{field}` cannot be empty or hold a `/`"));
        }
    }
    let annotations = annotations.and_then(|node| node.entries(fields.errors()));
    for entry in annotations.unwrap_or_default() {
        let domain = entry.key.split('/').next().unwrap_or_default();
        if domain == "istio.io" || domain.ends_with(".istio.io") {
            fields.errors().push(&entry.place, format!("the annotation `{}` {NOT_YET}", entry.key));
        }
    }
    fields.finish();
    Some((namespace?, name?))
}

fn spec(node: &Node, errors: &mut Errors) -> Option<(BTreeMap<String, String>, Action, Vec<Rule>)> {
    let mut fields = Fields::of(node, errors)?;
    let selector = fields.node("selector").and_then(|node| selector(node, fields.errors()));
    let action = match fields.node("action") {
        None => Some(Action::Allow),
        Some(node) => action(node, fields.errors()),
    };
    let rules = match fields.node("rules") {
        None => Vec::new(),
        Some(node) => items(node, fields.errors(), rule),
    };
    not_yet(&mut fields, &["targetRef", "targetRefs", "provider"]);
    if action == Some(Action::Deny) && fields.node("rules").is_none() {
        fields.error("a DENY policy without `rules` denies nothing; to deny everything write `rules: [{}]`");
    }
    fields.finish();
    Some((selector.unwrap_or_default(), action?, rules))
}

fn action(node: &Node, errors: &mut Errors) -> Option<Action> {
    match node.as_str() {
        Some("ALLOW") => Some(Action::Allow),
        Some("DENY") => Some(Action::Deny),
        Some(later @ ("AUDIT" | "CUSTOM")) => {
            errors.push(&node.place, format!("the action `{later}` {NOT_YET}"));
            None
        }
        _ => node.expected("ALLOW or DENY", errors),
    }
}

fn selector(node: &Node, errors: &mut Errors) -> Option<BTreeMap<String, String>> {
    let mut fields = Fields::of(node, errors)?;
    let labels: Option<BTreeMap<String, String>> = fields.required("matchLabels");
    for (key, value) in labels.iter().flatten() {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            fields.error(format!(
                "`{key}: {value}`: labels are compared exactly; a key cannot be empty, `*` means nothing here"
            ));
        }
    }
    if labels.as_ref().is_some_and(BTreeMap::is_empty) {
        fields.error("`matchLabels` is empty; leave `selector` out to select every workload of the namespace");
    }
    fields.finish();
    labels
}

fn rule(node: &Node, errors: &mut Errors) -> Option<Rule> {
    let mut fields = Fields::of(node, errors)?;
    let mut part = Rule::default();
    if let Some(node) = fields.node("from") {
        part.from = items(node, fields.errors(), |item, errors| {
            let mut fields = Fields::of(item, errors)?;
            let source = fields.required::<Node>("source").and_then(|node| source(&node, fields.errors()));
            fields.finish();
            source
        });
    }
    if let Some(node) = fields.node("to") {
        part.to = items(node, fields.errors(), |item, errors| {
            let mut fields = Fields::of(item, errors)?;
            let operation = fields.required::<Node>("operation").and_then(|node| operation(&node, fields.errors()));
            fields.finish();
            operation
        });
    }
    if let Some(node) = fields.node("when") {
        part.when = items(node, fields.errors(), condition);
    }
    fields.finish();
    Some(part)
}

fn source(node: &Node, errors: &mut Errors) -> Option<Source> {
    let mut fields = Fields::of(node, errors)?;
    let source = Source {
        principals: clause(&mut fields, ["principals", "notPrincipals"], principal),
        request_principals: clause(&mut fields, ["requestPrincipals", "notRequestPrincipals"], request_principal),
        namespaces: clause(&mut fields, ["namespaces", "notNamespaces"], pattern),
    };
    let later = not_yet(
        &mut fields,
        &[
            "serviceAccounts",
            "notServiceAccounts",
            "trustDomains",
            "notTrustDomains",
            "ipBlocks",
            "notIpBlocks",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
        ],
    );
    if !later && source == Source::default() {
        fields.error("an empty `source` is refused; leave `from` out to accept every caller");
    }
    fields.finish();
    Some(source)
}

fn operation(node: &Node, errors: &mut Errors) -> Option<Operation> {
    let mut fields = Fields::of(node, errors)?;
    let operation = Operation {
        hosts: clause(&mut fields, ["hosts", "notHosts"], host),
        ports: clause(&mut fields, ["ports", "notPorts"], port),
        methods: clause(&mut fields, ["methods", "notMethods"], method),
        paths: clause(&mut fields, ["paths", "notPaths"], path),
    };
    if operation == Operation::default() {
        fields.error("an empty `operation` is refused; leave `to` out to accept every operation");
    }
    fields.finish();
    Some(operation)
}

fn condition(node: &Node, errors: &mut Errors) -> Option<Condition> {
    const LATER: &[&str] = &[
        "source.ip",
        "remote.ip",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "connection.sni",
    ];
    const VALUES: [&str; 2] = ["values", "notValues"];
    let mut fields = Fields::of(node, errors)?;
    let key: String = fields.required("key")?;
    let place = fields.place("key");
    let condition = match key.as_str() {
        "source.principal" => Condition::SourcePrincipal(clause(&mut fields, VALUES, principal)),
        "source.namespace" => Condition::SourceNamespace(clause(&mut fields, VALUES, pattern)),
        "destination.port" => Condition::DestinationPort(clause(&mut fields, VALUES, port)),
        "request.auth.principal" => Condition::RequestPrincipal(clause(&mut fields, VALUES, request_principal)),
        key => match (key.strip_prefix("request.auth.claims"), key.strip_prefix("request.headers")) {
            (Some(rest), _) if brackets(rest).is_some() => {
                let path = brackets(rest).unwrap_or_default();
                Condition::Claim { path, values: clause(&mut fields, VALUES, pattern) }
            }
            (_, Some(rest)) if brackets(rest).is_some_and(|names| names.len() == 1) => {
                let name = brackets(rest).unwrap_or_default().concat().to_ascii_lowercase();
                if let Err(error) = unmatched::header(&name) {
                    fields.errors().push(&place, error);
                }
                Condition::Header { name, values: clause(&mut fields, VALUES, pattern) }
            }
            _ if LATER.contains(&key) || key.starts_with("experimental.") => {
                fields.errors().push(&place, format!("the key `{key}` {NOT_YET}"));
                return None;
            }
            _ => {
                fields.errors().push(
                    &place,
                    format!(
                        "unknown key `{key}`: expected source.principal, source.namespace, destination.port, \
                         request.auth.principal, request.auth.claims[NAME] or request.headers[NAME]"
                    ),
                );
                return None;
            }
        },
    };
    if VALUES.into_iter().all(|name| fields.node(name).is_none()) {
        fields.error("expected `values`, `notValues` or both");
    }
    fields.finish();
    Some(condition)
}

/// `[a][b]` as `a`, `b`.
fn brackets(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

/// The items of a list that must hold something; an item that is nothing is no item.
fn items<T>(node: &Node, errors: &mut Errors, read: impl Fn(&Node, &mut Errors) -> Option<T>) -> Vec<T> {
    let Value::List(items) = &node.value else {
        return node.expected("a list", errors).unwrap_or_default();
    };
    if items.is_empty() {
        errors.push(&node.place, "an empty list is refused: leave the field out, or say what it holds");
    }
    items
        .iter()
        .filter_map(|item| match item.value {
            Value::Null => item.expected("a value", errors),
            _ => read(item, errors),
        })
        .collect()
}

fn clause<T>(
    fields: &mut Fields<'_>,
    [positive, negative]: [&'static str; 2],
    read: impl Fn(&Node, &mut Errors) -> Option<T>,
) -> Clause<T> {
    let mut list = |name| fields.node(name).map(|node| items(node, fields.errors(), &read));
    Clause { any_of: list(positive), none_of: list(negative) }
}

/// Refuses fields of Istio that come later; says whether one was there.
fn not_yet(fields: &mut Fields<'_>, names: &[&'static str]) -> bool {
    let mut found = false;
    for name in names {
        if let Some(node) = fields.node(name) {
            found = true;
            fields.errors().push(&node.place, format!("`{name}` {NOT_YET}"));
        }
    }
    found
}

/// The text of a list's item, which must be a string as in Istio's schema.
fn text<'a>(node: &'a Node, errors: &mut Errors) -> Option<&'a str> {
    node.as_str().or_else(|| node.expected("a string (put it in quotes)", errors))
}

fn noted<T>(result: Result<T, impl ToString>, node: &Node, errors: &mut Errors) -> Option<T> {
    result.map_err(|error| errors.push(&node.place, error.to_string())).ok()
}

fn pattern(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    noted(Pattern::parse(text(node, errors)?), node, errors)
}

fn request_principal(node: &Node, errors: &mut Errors) -> Option<RequestPrincipal> {
    noted(RequestPrincipal::parse(text(node, errors)?), node, errors)
}

fn path(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    if node.as_str().is_some_and(|path| path.contains("{*}") || path.contains("{**}")) {
        errors.push(&node.place, format!("a path template (`{{*}}`, `{{**}}`) {NOT_YET}"));
        return None;
    }
    matchable(node, errors, unmatched::path)
}

fn principal(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    matchable(node, errors, unmatched::principal)
}

fn host(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    matchable(node, errors, unmatched::host)
}

fn method(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    matchable(node, errors, unmatched::method)
}

/// A pattern that some request can match.
fn matchable(node: &Node, errors: &mut Errors, check: fn(&Pattern) -> Result<(), String>) -> Option<Pattern> {
    let pattern = pattern(node, errors)?;
    noted(check(&pattern), node, errors).map(|()| pattern)
}

fn port(node: &Node, errors: &mut Errors) -> Option<u16> {
    let port = match &node.value {
        // Istio's schema wants strings; a bare number can mean only one thing.
        Value::Int(number) => u16::try_from(*number).ok(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    port.or_else(|| node.expected("a port from 0 to 65535", errors))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(rule.to[0].paths.any_of, Some(vec![Pattern::Prefix("/a/".into())]));
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
            // Part of Istio, later.
            (source("serviceAccounts: [a]"), "spec.rules[0].from[0].source.serviceAccounts", "not supported yet"),
            (source("ipBlocks: [10.0.0.0/8]"), "spec.rules[0].from[0].source.ipBlocks", "not supported yet"),
            (source("notRemoteIpBlocks: [::1]"), "spec.rules[0].from[0].source.notRemoteIpBlocks", "not supported yet"),
            (source("trustDomains: [a]"), "spec.rules[0].from[0].source.trustDomains", "not supported yet"),
            (operation("paths: ['/a/{*}']"), "spec.rules[0].to[0].operation.paths[0]", "not supported yet"),
            (operation("notPaths: ['/a/{**}']"), "spec.rules[0].to[0].operation.notPaths[0]", "not supported yet"),
            (when("key: source.ip, values: [::1]"), "spec.rules[0].when[0].key", "not supported yet"),
            (when("key: connection.sni, values: [a]"), "spec.rules[0].when[0].key", "not supported yet"),
            (document("{ action: AUDIT }"), "spec.action", "not supported yet"),
            (document("{ action: CUSTOM, provider: { name: x } }"), "spec.action", "not supported yet"),
            (document("{ targetRefs: [{ kind: Gateway }] }"), "spec.targetRefs", "not supported yet"),
            (
                document("{}").replace("namespace: shop", "namespace: shop, annotations: { istio.io/dry-run: 'true' }"),
                "metadata.annotations.istio.io/dry-run",
                "not supported yet",
            ),
            // Never part of it.
            (source("principal: [a]"), "spec.rules[0].from[0].source.principal", "did you mean `principals`?"),
            (operation("method: [GET]"), "spec.rules[0].to[0].operation.method", "did you mean `methods`?"),
            (rule_with("form: []"), "spec.rules[0].form", "did you mean `from`?"),
            (document("{ rule: [{}] }"), "spec.rule", "did you mean `rules`?"),
            (document("{ action: allow }"), "spec.action", "ALLOW or DENY"),
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
            (
                source("requestPrincipals: [alice]"),
                "spec.rules[0].from[0].source.requestPrincipals[0]",
                "ISSUER/SUBJECT",
            ),
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
            (
                when("key: source.principal, notValues: [web]"),
                "spec.rules[0].when[0].notValues[0]",
                "TRUST_DOMAIN/PATH",
            ),
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
            (
                document("{}").replace("AuthorizationPolicy", "PeerAuthentication"),
                "kind",
                "expected `AuthorizationPolicy`",
            ),
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
        let (documents, _) = parse(&format!("{}---\n{}", document("{}"), document("{ rules: [{}] }")));
        let mut errors = Errors::default();
        refuse_duplicates(&documents, &mut errors);
        let [issue] = errors.issues() else { panic!("{errors:?}") };
        assert_eq!(issue.message, "`shop/p` is already defined at p.yaml:1");
    }
}
