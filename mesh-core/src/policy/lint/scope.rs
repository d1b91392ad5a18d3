//! Whom a policy holds for, and what is left without one.

use super::super::{Action, AuthorizationPolicy, Rule};
use super::{LintCode, LintOptions, Report};

pub(super) fn check(documents: &[AuthorizationPolicy], options: &LintOptions<'_>, report: &mut Report) {
    for document in documents {
        if document.dry_run {
            report.policy(
                LintCode::DryRun,
                document,
                "it is under trial: what it decides is recorded and nothing else",
            );
        }
        for (at, rule) in document.rules.iter().enumerate() {
            if document.action == Action::Allow && !document.dry_run && *rule == Rule::default() {
                let text = "a rule without fields allows every request of everybody";
                report.rule(LintCode::AllowsEverything, document, at, "", text);
            }
        }
        let selects = |workload| document.selects(workload, options.root_namespace);
        if !options.workloads.is_empty() && !options.workloads.iter().any(selects) {
            report.policy(LintCode::SelectsNothing, document, "it selects none of the known workloads");
        }
    }
    deny_only(documents, options, report);
}

fn deny_only(documents: &[AuthorizationPolicy], options: &LintOptions<'_>, report: &mut Report) {
    let enforced =
        |action: Action| documents.iter().filter(move |document| document.action == action && !document.dry_run);
    if options.workloads.is_empty() {
        for document in enforced(Action::Deny) {
            if !enforced(Action::Allow).any(|allow| holds_wherever(allow, document, options.root_namespace)) {
                let text = "no ALLOW policy holds wherever it does: there, everything else is allowed to everybody";
                report.policy(LintCode::DenyOnly, document, text);
            }
        }
    }
    for workload in options.workloads {
        let of = |action| enforced(action).find(|document| document.selects(workload, options.root_namespace));
        if let Some(document) = of(Action::Deny).filter(|_| of(Action::Allow).is_none()) {
            let (namespace, name) = (&workload.namespace, &workload.name);
            let text = format!("no ALLOW policy selects {namespace}/{name}: everything else is allowed to everybody");
            report.policy(LintCode::DenyOnly, document, text);
        }
    }
}

/// Whether `wide` selects every workload that `narrow` does.
pub(super) fn holds_wherever(wide: &AuthorizationPolicy, narrow: &AuthorizationPolicy, root_namespace: &str) -> bool {
    let same_namespace = wide.namespace == narrow.namespace;
    if !wide.target_services.is_empty() {
        return same_namespace
            && !narrow.target_services.is_empty()
            && narrow.target_services.iter().all(|target| wide.target_services.contains(target));
    }
    (same_namespace || *wide.namespace == *root_namespace)
        && wide.selector.iter().all(|(key, value)| narrow.selector.get(key) == Some(value))
}
