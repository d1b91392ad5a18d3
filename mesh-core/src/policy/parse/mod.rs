//! From YAML to typed documents: each field is used or refused, at its line.
//!
//! A field that is skipped makes a rule wider than its author thinks. So whatever is not understood is an error, and so
//! are empty lists and empty values.
//!
//! | part | file |
//! |---|---|
//! | name, namespace, annotations, selector, targets | `metadata` |
//! | all of `PeerAuthentication` | `peer_authentication` |
//! | all of `RequestAuthentication` | `request_authentication` |
//! | `from[].source` | `source` |
//! | `to[].operation` | `operation` |
//! | `when[]` | `when` |
//! | lists, texts, patterns, and what a mode takes of them | `values` |

mod metadata;
mod operation;
mod peer_authentication;
mod request_authentication;
mod source;
mod values;
mod when;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use metadata::{Metadata, Scope};
use values::{Reading, clause, items, list, matchable, no_items, noted, pattern, port, read_as, text};

use super::Mode;
use super::canonical::Canonicalization;
use super::document::{Action, AuthorizationPolicy, Rule};
use super::peer_authentication::PeerAuthentication;
use super::request_authentication::RequestAuthentication;
use crate::config::yaml::{self, Value};
use crate::config::{ConfigError, Errors, Fields, Node, Place};

/// Reads the `AuthorizationPolicy` documents of one file, strictly. Any other `kind` is an error.
///
/// A document with a problem is noted in `errors` and left out: use none of them unless `errors` stayed empty.
pub fn parse_documents(file: &str, text: &str, errors: &mut Errors) -> Vec<AuthorizationPolicy> {
    parse_documents_as(Mode::Strict, Canonicalization::Reject, file, text, errors)
}

/// [`parse_documents`] as `mode` reads them, where the paths of requests are `canonical`.
pub fn parse_documents_as(
    mode: Mode,
    canonical: Canonicalization,
    file: &str,
    text: &str,
    errors: &mut Errors,
) -> Vec<AuthorizationPolicy> {
    let Documents { policies, peers, requests } = parse_file(mode, canonical, file, text, errors);
    let peers = peers.iter().map(|peer| (PEER_AUTHENTICATION, &peer.place));
    let requests = requests.iter().map(|request| (REQUEST_AUTHENTICATION, &request.place));
    for (kind, place) in peers.chain(requests) {
        let message = format!("kind `{kind}` is not supported here: expected `AuthorizationPolicy`");
        errors.push(&place.field("kind"), message);
    }
    policies
}

/// What one file holds.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Documents {
    /// `AuthorizationPolicy`.
    pub policies: Vec<AuthorizationPolicy>,
    /// `PeerAuthentication`.
    pub peers: Vec<PeerAuthentication>,
    /// `RequestAuthentication`.
    pub requests: Vec<RequestAuthentication>,
}

impl Documents {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.peers.is_empty() && self.requests.is_empty()
    }

    /// Takes over what another file holds.
    pub fn append(&mut self, mut other: Self) {
        self.policies.append(&mut other.policies);
        self.peers.append(&mut other.peers);
        self.requests.append(&mut other.requests);
    }
}

/// Reads the documents of one file, each by its `kind`.
///
/// A document with a problem is noted in `errors` and left out: use none of them unless `errors` stayed empty.
pub fn parse_file(mode: Mode, canonical: Canonicalization, file: &str, text: &str, errors: &mut Errors) -> Documents {
    let nodes = yaml::parse(file, text, errors);
    let mut documents = Documents::default();
    // `---` at the end of a file makes an empty document.
    for node in nodes.iter().filter(|node| node.value != Value::Null) {
        let before = errors.issues().len();
        let document = document(node, mode, canonical, errors);
        match document.filter(|_| errors.issues().len() == before) {
            Some(Document::Policy(policy)) => documents.policies.push(*policy),
            Some(Document::Peer(peer)) => documents.peers.push(*peer),
            Some(Document::Request(request)) => documents.requests.push(*request),
            None => {}
        }
    }
    documents
}

enum Document {
    Policy(Box<AuthorizationPolicy>),
    Peer(Box<PeerAuthentication>),
    Request(Box<RequestAuthentication>),
}

const PEER_AUTHENTICATION: &str = "PeerAuthentication";
const REQUEST_AUTHENTICATION: &str = "RequestAuthentication";

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

/// Refuses two documents of one kind and name, across files.
///
/// One of them would be forgotten or doubled.
pub fn refuse_duplicates(documents: &Documents, errors: &mut Errors) {
    let policies = documents.policies.iter().map(|it| ("AuthorizationPolicy", &it.name, &it.place));
    let peers = documents.peers.iter().map(|it| (PEER_AUTHENTICATION, &it.name, &it.place));
    let requests = documents.requests.iter().map(|it| (REQUEST_AUTHENTICATION, &it.name, &it.place));
    let mut seen: BTreeMap<(&str, &str), &Place> = BTreeMap::new();
    for (kind, name, place) in policies.chain(peers).chain(requests) {
        if let Some(first) = seen.insert((kind, &**name), place) {
            errors.push(place, format!("`{name}` is already defined at {}:{}", first.file, first.line));
        }
    }
}

fn document(node: &Node, mode: Mode, canonical: Canonicalization, errors: &mut Errors) -> Option<Document> {
    let mut fields = Fields::of(node, errors)?;
    let version: String = fields.required("apiVersion")?;
    let kind: String = fields.required("kind")?;
    if !matches!(&*kind, "AuthorizationPolicy" | PEER_AUTHENTICATION | REQUEST_AUTHENTICATION) {
        let place = fields.place("kind");
        let expected = "expected `AuthorizationPolicy`, `PeerAuthentication` or `RequestAuthentication`";
        fields.errors().push(&place, format!("kind `{kind}` is not supported: {expected}"));
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
    if kind == PEER_AUTHENTICATION {
        let document = peer_authentication::document(node, &metadata?, &spec?, mode, errors);
        return document.map(Box::new).map(Document::Peer);
    }
    if kind == REQUEST_AUTHENTICATION {
        let document = request_authentication::document(node, &metadata?, &spec?, mode, errors);
        return document.map(Box::new).map(Document::Request);
    }
    let Metadata { namespace, name, dry_run } = metadata.and_then(|node| metadata::metadata(&node, errors))?;
    let spec = spec?;
    let action = action(&spec, errors)?;
    if let Some(place) = dry_run.as_ref().filter(|_| !matches!(action, Action::Allow | Action::Deny)) {
        errors.push(place, format!("a dry run is understood for ALLOW and DENY, not for {action}"));
    }
    let reading = Reading { mode, canonical, namespace: &namespace, action, doubts: RefCell::default() };
    let Spec { scope, provider, rules, rule_places } = self::spec(&spec, &reading, errors)?;
    let doubts = reading.doubts.into_inner();
    Some(Document::Policy(Box::new(AuthorizationPolicy {
        name: format!("{namespace}/{name}").into(),
        namespace: namespace.as_str().into(),
        selector: scope.selector,
        target_services: scope.target_services,
        action,
        provider,
        dry_run: dry_run.is_some(),
        rules,
        rule_places,
        doubts,
        role: None,
        place: node.place.clone(),
    })))
}

/// `spec.action`, read first: what the other fields may hold depends on it.
fn action(spec: &Node, errors: &mut Errors) -> Option<Action> {
    let mut fields = Fields::of(spec, errors)?;
    match fields.node("action") {
        None => Some(Action::Allow),
        Some(node) => match node.as_str() {
            Some("ALLOW") => Some(Action::Allow),
            Some("DENY") => Some(Action::Deny),
            Some("AUDIT") => Some(Action::Audit),
            Some("CUSTOM") => Some(Action::Custom),
            _ => node.expected("ALLOW, DENY, AUDIT or CUSTOM", fields.errors()),
        },
    }
}

struct Spec {
    scope: Scope,
    provider: Option<Arc<str>>,
    rules: Vec<Rule>,
    /// Where each stands.
    rule_places: Vec<Place>,
}

fn spec(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Spec> {
    let mut fields = Fields::of(node, errors)?;
    let scope = metadata::scope(&mut fields, reading);
    let _ = fields.node("action");
    let written = fields.node("rules");
    let none_allowed = matches!(reading.action, Action::Allow | Action::Audit);
    let rules = match written {
        None => Vec::new(),
        Some(node) if none_allowed && no_items(node, reading, fields.errors()) => Vec::new(),
        Some(node) => items(node, fields.errors(), |item, errors| rule(item, reading, errors)),
    };
    let rule_places = match written.map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().map(|item| item.place.clone()).collect(),
        _ => Vec::new(),
    };
    let provider = fields.node("provider").map(|node| (node, provider(node, fields.errors())));
    match (reading.action, &provider) {
        (Action::Custom, None) => fields.error("CUSTOM needs `provider: { name: NAME }`: whom it asks"),
        (Action::Custom, Some(_)) => {}
        (action, Some((node, _))) => {
            fields.errors().push(&node.place, format!("`provider` belongs to CUSTOM, not to {action}"));
        }
        (_, None) => {}
    }
    if written.is_none() && matches!(reading.action, Action::Deny | Action::Custom) {
        let (action, does) =
            if reading.action == Action::Deny { ("DENY", "denies nothing") } else { ("CUSTOM", "asks nobody") };
        fields.error(format!("a {action} policy without `rules` {does}; for every request write `rules: [{{}}]`"));
    }
    fields.finish();
    Some(Spec { scope: scope?, provider: provider.and_then(|(_, name)| name), rules, rule_places })
}

fn provider(node: &Node, errors: &mut Errors) -> Option<Arc<str>> {
    let mut fields = Fields::of(node, errors)?;
    let name: Option<String> = fields.required("name");
    if name.as_deref().is_some_and(str::is_empty) {
        fields.error("the provider's name cannot be empty");
    }
    fields.finish();
    name.map(Into::into)
}

fn rule(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Rule> {
    let mut fields = Fields::of(node, errors)?;
    let mut part = Rule::default();
    if let Some(node) = fields.node("from") {
        part.from = items(node, fields.errors(), |item, errors| {
            let mut fields = Fields::of(item, errors)?;
            let node = fields.required::<Node>("source");
            let source = node.and_then(|node| source::source(&node, reading, fields.errors()));
            fields.finish();
            source
        });
    }
    if let Some(node) = fields.node("to") {
        part.to = items(node, fields.errors(), |item, errors| {
            let mut fields = Fields::of(item, errors)?;
            let node = fields.required::<Node>("operation");
            let operation = node.and_then(|node| operation::operation(&node, reading, fields.errors()));
            fields.finish();
            operation
        });
    }
    if let Some(node) = fields.node("when")
        && !no_items(node, reading, fields.errors())
    {
        part.when = items(node, fields.errors(), |item, errors| when::condition(item, reading, errors));
    }
    fields.finish();
    Some(part)
}
