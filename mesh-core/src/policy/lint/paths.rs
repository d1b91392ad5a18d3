//! Paths, and what only some readers of a policy know.

use super::super::pattern::Pattern;
use super::super::{Action, AuthorizationPolicy, Condition, PathPattern};
use super::operation::is_grpc;
use super::{LintCode, Report};

pub(super) fn check(document: &AuthorizationPolicy, report: &mut Report) {
    for (at, rule) in document.rules.iter().enumerate() {
        for (n, operation) in rule.to.iter().enumerate() {
            let field = format!("to[{n}].operation.paths");
            let paths = operation.paths.any_of.as_deref().unwrap_or_default();
            for path in paths {
                match (document.action, path) {
                    (Action::Deny, PathPattern::Text(text)) => {
                        if let Some(other) = other_form(text).filter(|other| !matches(paths, other)) {
                            let text =
                                format!("`{text}` is denied and `{other}` is not: many handlers take them for one");
                            report.rule(LintCode::DenyOneSlashForm, document, at, &field, text);
                        }
                    }
                    (Action::Allow, PathPattern::Text(Pattern::Prefix(prefix))) if !prefix.ends_with('/') => {
                        let text = format!("`{prefix}*` holds `{prefix}x` too");
                        report.rule(LintCode::PrefixWithoutSlash, document, at, &field, text);
                    }
                    _ => {}
                }
            }
            let templates = paths.iter().chain(operation.paths.none_of.iter().flatten());
            if let Some(template) = templates.into_iter().find(|path| matches!(path, PathPattern::Template(_))) {
                let text = format!("`{template}` is a template, which Istio has since 1.22");
                report.rule(LintCode::PathTemplate, document, at, &field, text);
            }
        }
        if rule.when.iter().any(|condition| matches!(condition, Condition::Route(_))) {
            report.rule(LintCode::RouteKey, document, at, "when", "Istio has no key `route` and refuses the policy");
        }
    }
}

/// The path that differs by the slash at its end.
fn other_form(pattern: &Pattern) -> Option<String> {
    match pattern {
        Pattern::Exact(text) if is_grpc(text) || **text == *"/" => None,
        Pattern::Exact(text) => Some(text.strip_suffix('/').map_or_else(|| format!("{text}/"), str::to_owned)),
        Pattern::Prefix(text) => text.strip_suffix('/').filter(|text| !text.is_empty()).map(str::to_owned),
        Pattern::Suffix(_) | Pattern::Present => None,
    }
}

fn matches(paths: &[PathPattern], value: &str) -> bool {
    paths.iter().any(|path| match path {
        PathPattern::Text(text) => text.matches(value.as_bytes()),
        PathPattern::Template(template) => template.matches(value),
    })
}
