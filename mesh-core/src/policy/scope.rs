//! Which workloads a document holds for; the same for documents of requests, whatever their kind.

use std::collections::BTreeMap;

use crate::config::Workload;

/// `metadata.namespace` with `spec.selector` or `spec.targetRefs`.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) namespace: &'a str,
    pub(super) selector: &'a BTreeMap<String, String>,
    pub(super) target_services: &'a [String],
}

impl Scope<'_> {
    /// Whether it holds for `workload`: its namespace (or the root's) and every label of the selector, or its name and
    /// its own namespace where services are targeted.
    pub(super) fn selects(&self, workload: &Workload, root_namespace: &str) -> bool {
        let own = *self.namespace == *workload.namespace;
        if !self.target_services.is_empty() {
            return own && self.target_services.contains(&workload.name);
        }
        (own || *self.namespace == *root_namespace)
            && self.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
    }

    /// Whether some workload may be selected by both.
    pub(super) fn meets(&self, other: &Self, root_namespace: &str) -> bool {
        let anywhere = |scope: &Self| *scope.namespace == *root_namespace && scope.target_services.is_empty();
        let either = |one: &Self, other: &Self| {
            one.target_services.is_empty()
                || other.target_services.is_empty()
                || one.target_services.iter().any(|name| other.target_services.contains(name))
        };
        (*self.namespace == *other.namespace || anywhere(self) || anywhere(other))
            && either(self, other)
            && self.selector.iter().all(|(key, value)| other.selector.get(key).is_none_or(|its| its == value))
    }
}
