//! `security.istio.io/v1` AuthorizationPolicy as written. Source: istio.io/api security/v1.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Errors, Node, Place};

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Lets the request in.
    Allow,
    /// Keeps it out, whatever ALLOW says.
    Deny,
}

/// One document, validated, not yet compiled.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorizationPolicy {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `spec.selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: BTreeMap<String, String>,
    /// `spec.action`, default ALLOW.
    pub action: Action,
    /// `spec.rules`.
    pub rules: Vec<Node>,
    /// Where it stands.
    pub place: Place,
}

/// Reads the `AuthorizationPolicy` documents of one file. Any other `kind` is an error.
pub fn parse_documents(file: &str, text: &str, errors: &mut Errors) -> Vec<AuthorizationPolicy> {
    let _ = (file, text, errors);
    unimplemented!()
}
