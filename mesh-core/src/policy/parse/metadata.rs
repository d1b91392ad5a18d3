//! Which policy it is, and for whom it holds.

use std::collections::BTreeMap;

use super::{Reading, items, text};
use crate::config::{Errors, Fields, Node, Place};

pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Where the annotation stands that makes it a dry run.
    pub(super) dry_run: Option<Place>,
}

pub(super) fn metadata(node: &Node, errors: &mut Errors) -> Option<Metadata> {
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
    let mut dry_run = None;
    let annotations = annotations.and_then(|node| node.entries(fields.errors()));
    for entry in annotations.unwrap_or_default() {
        let domain = entry.key.split('/').next().unwrap_or_default();
        if entry.key == "istio.io/dry-run" {
            dry_run = self::dry_run(&entry.value, fields.errors()).then(|| entry.place.clone());
        } else if domain == "istio.io" || domain.ends_with(".istio.io") {
            let message =
                format!("the annotation `{}` is not known here; it is refused rather than ignored", entry.key);
            fields.errors().push(&entry.place, message);
        }
    }
    fields.finish();
    Some(Metadata { namespace: namespace?, name: name?, dry_run })
}

/// The same of a document that nobody can try.
pub(super) fn without_trial(node: &Node, errors: &mut Errors) -> Option<Metadata> {
    let metadata = metadata(node, errors)?;
    if let Some(place) = &metadata.dry_run {
        errors.push(place, "a dry run is understood for AuthorizationPolicy");
    }
    Some(metadata)
}

/// As Go's `ParseBool`, which Istio asks.
fn dry_run(node: &Node, errors: &mut Errors) -> bool {
    match text(node, errors) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") | None => false,
        Some(_) => node.expected("\"true\" or \"false\"", errors).unwrap_or_default(),
    }
}

/// Whom a policy selects within its namespace.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) selector: BTreeMap<String, String>,
    pub(super) target_services: Vec<String>,
}

/// `selector`, `targetRef` or `targetRefs`: one of them. What targets something else than a service is an error: left
/// out, it would hold for the whole namespace.
pub(super) fn scope(fields: &mut Fields<'_>, reading: &Reading<'_>) -> Option<Scope> {
    let written = ["selector", "targetRef", "targetRefs"].map(|name| fields.node(name));
    let [labels, one, many] = written;
    if written.into_iter().flatten().count() > 1 {
        fields.error("`selector`, `targetRef` and `targetRefs` exclude each other");
    }
    let selector = match labels {
        None => Some(BTreeMap::new()),
        Some(node) => selector(node, reading, fields.errors()),
    };
    let mut target_services: Vec<String> = one.and_then(|node| target(node, fields.errors())).into_iter().collect();
    if let Some(node) = many {
        target_services.extend(items(node, fields.errors(), target));
    }
    Some(Scope { selector: selector?, target_services })
}

pub(super) fn selector(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<BTreeMap<String, String>> {
    let mut fields = Fields::of(node, errors)?;
    let labels: Option<BTreeMap<String, String>> = fields.optional("matchLabels");
    for (key, value) in labels.iter().flatten() {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            fields.error(format!(
                "`{key}: {value}`: labels are compared exactly; a key cannot be empty, `*` means nothing here"
            ));
        }
    }
    if labels.as_ref().is_none_or(BTreeMap::is_empty) {
        let message = "`matchLabels` is empty; leave `selector` out to select every workload of the namespace";
        reading.doubt(&node.place, message, fields.errors());
    }
    fields.finish();
    Some(labels.unwrap_or_default())
}

/// The name of the service that is meant: the workload of this name in the policy's namespace.
fn target(node: &Node, errors: &mut Errors) -> Option<String> {
    let mut fields = Fields::of(node, errors)?;
    let group = fields.or("group", String::new());
    let kind: Option<String> = fields.required("kind");
    let name: Option<String> = fields.required("name");
    if let Some(node) = fields.node("namespace") {
        fields.errors().push(&node.place, "a target is in the policy's own namespace");
    }
    if name.as_deref().is_some_and(str::is_empty) {
        fields.error("the target's name cannot be empty");
    }
    if let Some(kind) = kind.as_deref().filter(|kind| *kind != "Service" || !matches!(&*group, "" | "core")) {
        let group = if group.is_empty() { "core" } else { &group };
        let message = format!("a policy for `{group}/{kind}` is not for workloads like this one: expected `Service`");
        fields.error(message);
    }
    fields.finish();
    name
}
