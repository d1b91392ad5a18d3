//! Paths, and what only some readers of a policy know.

use super::super::pattern::Pattern;
use super::super::{Action, AuthorizationPolicy, Clause, Condition, PathPattern};
use super::operation::is_grpc;
use super::{LintCode, Report};

pub(super) fn check(document: &AuthorizationPolicy, report: &mut Report) {
    for (at, rule) in document.rules.iter().enumerate() {
        for (n, operation) in rule.to.iter().enumerate() {
            let paths = operation.paths.any_of.as_deref().unwrap_or_default();
            one_form(document, at, &format!("to[{n}].operation"), &operation.paths, report);
            let field = format!("to[{n}].operation.paths");
            for path in paths {
                match path {
                    PathPattern::Text(Pattern::Prefix(prefix))
                        if document.action == Action::Allow && !prefix.ends_with('/') =>
                    {
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

/// Paths that are kept out in one form and may come in the other.
fn one_form(document: &AuthorizationPolicy, at: usize, field: &str, paths: &Clause<PathPattern>, report: &mut Report) {
    let [any_of, none_of] = [&paths.any_of, &paths.none_of].map(|list| list.as_deref().unwrap_or_default());
    let (name, list, done, undone) = match document.action {
        Action::Deny => ("paths", any_of, "denied", "is not"),
        Action::Custom => ("paths", any_of, "asked about", "is not"),
        Action::Allow => ("notPaths", none_of, "left out", "is allowed"),
        Action::Audit => return,
    };
    for path in list {
        let Some((other, example)) = other_form(path) else { continue };
        let named = matches(list, &example)
            || match document.action {
                // It is not allowed by the positive list either.
                Action::Allow => paths.any_of.is_some() && !matches(any_of, &example),
                // Somebody thought of it.
                _ => matches(none_of, &example),
            };
        if !named {
            let text = format!("`{path}` is {done} and `{other}` {undone}: many handlers take them for one");
            report.rule(LintCode::DenyOneSlashForm, document, at, &format!("{field}.{name}"), text);
        }
    }
}

/// The path that differs by the slash at its end, and an example of it.
fn other_form(path: &PathPattern) -> Option<(String, String)> {
    let turned = |text: &str| match text.strip_suffix('/') {
        Some("") => None,
        Some(text) => Some(text.to_owned()),
        None => Some(format!("{text}/")),
    };
    match path {
        PathPattern::Text(Pattern::Exact(text)) if is_grpc(text) => None,
        PathPattern::Text(Pattern::Exact(text)) => turned(text).map(|other| (other.clone(), other)),
        PathPattern::Text(Pattern::Prefix(text)) => {
            let other = text.strip_suffix('/').filter(|text| !text.is_empty())?;
            Some((other.to_owned(), other.to_owned()))
        }
        // `*.json` is no place that something could be below.
        PathPattern::Text(Pattern::Suffix(text)) if text.starts_with('/') => {
            turned(text).map(|other| (format!("*{other}"), format!("/x{other}")))
        }
        PathPattern::Text(Pattern::Suffix(_) | Pattern::Present) => None,
        PathPattern::Template(template) => {
            let text = template.to_string();
            // What `{**}` holds at the end, it holds with a slash and without; but for the slash in front of it.
            let other = match text.strip_suffix("/{**}") {
                Some(front) => Some(front.to_owned()).filter(|front| !front.is_empty()),
                None => turned(&text),
            }?;
            let example = other.replace("{**}", "x").replace("{*}", "x");
            Some((other, example))
        }
    }
}

fn matches(paths: &[PathPattern], value: &str) -> bool {
    paths.iter().any(|path| match path {
        PathPattern::Text(text) => text.matches(value.as_bytes()),
        PathPattern::Template(template) => template.matches(value),
    })
}
