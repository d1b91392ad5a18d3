//! Whose tokens are taken, where from, and whether anybody must bring one.

use super::super::{Action, AuthorizationPolicy, Condition, RequestAuthentication, Rule, Source};
use super::identity::wants_token;
use super::{LintCode, LintOptions, Report};

pub(super) fn check(policies: &[AuthorizationPolicy], options: &LintOptions<'_>, report: &mut Report) {
    for document in options.requests {
        if is_optional(document, policies, options) {
            let text = "no policy beside it demands a token: a request without one passes, with a bad one it does not";
            report.request(LintCode::TokensOptional, document, &document.place, text);
        }
        let selects = |workload| document.selects(workload, options.root_namespace);
        if !options.workloads.is_empty() && !options.workloads.iter().any(selects) {
            let text = "it selects none of the known workloads";
            report.request(LintCode::SelectsNothing, document, &document.place, text);
        }
        for rule in &document.rules {
            let (issuer, place) = (&rule.issuer, &rule.place);
            if issuer.dangerous_any_audience {
                let text = format!("tokens of {:?} are taken whatever service they are meant for", issuer.issuer);
                report.request(LintCode::AnyAudience, document, &place.field("audiences"), text);
            }
            if !issuer.from_params.is_empty() {
                let text = "a token in a URL is in the logs of whoever stands in between";
                report.request(LintCode::TokenPlace, document, &place.field("fromParams"), text);
            }
            if !issuer.from_cookies.is_empty() {
                let text = "a browser sends a cookie unasked, for whoever makes it send a request";
                report.request(LintCode::TokenPlace, document, &place.field("fromCookies"), text);
            }
        }
        for doubt in &document.doubts {
            report.request(LintCode::Doubt, document, &doubt.place, &doubt.message);
        }
    }
}

/// Whether some known workload, or where none is known every one, takes requests without a token whatever they are.
fn is_optional(document: &RequestAuthentication, policies: &[AuthorizationPolicy], options: &LintOptions<'_>) -> bool {
    let root = options.root_namespace;
    let demanding = || policies.iter().filter(|policy| !policy.dry_run && demands(policy));
    if options.workloads.is_empty() {
        return !demanding().any(|policy| policy.scope().meets(&document.scope(), root));
    }
    let mut selected = options.workloads.iter().filter(|workload| document.selects(workload, root));
    selected.any(|workload| !demanding().any(|policy| policy.selects(workload, root)))
}

/// Whether some rule of a policy makes a difference to those who bring no token.
fn demands(policy: &AuthorizationPolicy) -> bool {
    policy.rules.iter().any(|rule| match policy.action {
        Action::Allow if rule.from.is_empty() => wants_token(rule, None),
        Action::Allow => rule.from.iter().all(|source| wants_token(rule, Some(source))),
        Action::Deny => denies_without(rule),
        Action::Custom | Action::Audit => false,
    })
}

fn denies_without(rule: &Rule) -> bool {
    let source = |source: &Source| source.request_principals.none_of.is_some();
    rule.from.iter().any(source)
        || rule.when.iter().any(|condition| match condition {
            Condition::RequestPrincipal(clause) => clause.none_of.is_some(),
            Condition::Claim { values, .. } | Condition::Scope(values) => values.none_of.is_some(),
            _ => false,
        })
}
