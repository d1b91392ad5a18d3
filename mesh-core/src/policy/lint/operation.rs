//! Hosts and methods.

use super::super::pattern::Pattern;
use super::super::{Action, AuthorizationPolicy, Clause, Operation, PathPattern};
use super::{LintCode, Report};

pub(super) fn check(document: &AuthorizationPolicy, report: &mut Report) {
    for (at, rule) in document.rules.iter().enumerate() {
        for (n, operation) in rule.to.iter().enumerate() {
            let Operation { hosts, methods, paths, .. } = operation;
            for (name, list) in [("hosts", &hosts.any_of), ("notHosts", &hosts.none_of)] {
                let list = list.as_deref().unwrap_or_default();
                for host in list.iter().filter(|host| lacks_port(host, list)) {
                    let other = if matches!(host, Pattern::Prefix(_)) { "without" } else { "with" };
                    let text = format!("`{host}` does not hold the same host {other} a port");
                    report.rule(LintCode::HostWithoutPort, document, at, &format!("to[{n}].operation.{name}"), text);
                }
            }
            if head_passes(document.action, methods) {
                let name = if document.action == Action::Allow { "notMethods" } else { "methods" };
                let text = "it keeps GET out, and HEAD, which the same handler answers, in strict mode alone: Istio and compat \
                            mode do not";
                report.rule(LintCode::HeadOfGet, document, at, &format!("to[{n}].operation.{name}"), text);
            }
            let grpc = paths.any_of.iter().flatten().find(|path| match path {
                PathPattern::Text(Pattern::Exact(text)) => is_grpc(text),
                PathPattern::Text(Pattern::Prefix(text)) => text.ends_with('/') && is_grpc(&format!("{text}x")),
                _ => false,
            });
            let post = methods.any_of.as_ref().is_none_or(|all| all.iter().any(|method| method.matches(b"POST")));
            if let Some(path) = grpc.filter(|_| !post) {
                let text = format!("`{path}` looks like a gRPC method, which is always called with POST");
                report.rule(LintCode::GrpcMethod, document, at, &format!("to[{n}].operation.methods"), text);
            }
        }
    }
}

/// Whether GET is kept out and nothing is said of HEAD.
fn head_passes(action: Action, methods: &Clause<Pattern>) -> bool {
    let holds = |list: &Option<Vec<Pattern>>, method: &[u8]| list.iter().flatten().any(|one| one.matches(method));
    let Clause { any_of, none_of } = methods;
    match action {
        Action::Allow => {
            holds(none_of, b"GET") && !holds(none_of, b"HEAD") && (any_of.is_none() || holds(any_of, b"HEAD"))
        }
        Action::Deny | Action::Custom => {
            holds(any_of, b"GET") && !holds(any_of, b"HEAD") && !holds(none_of, b"GET") && !holds(none_of, b"HEAD")
        }
        Action::Audit => false,
    }
}

/// Whether nothing in the list holds the same host in its other form: with a port, or without.
fn lacks_port(host: &Pattern, list: &[Pattern]) -> bool {
    let plain = |text: &str| !text.rsplit(']').next().unwrap_or_default().contains(':');
    let example = match host {
        Pattern::Exact(text) if plain(text) => format!("{text}:1"),
        Pattern::Suffix(text) if plain(text) => format!("x{text}:1"),
        Pattern::Prefix(text) => match text.strip_suffix(':') {
            Some(host) if !host.is_empty() && plain(host) => host.to_owned(),
            _ => return false,
        },
        _ => return false,
    };
    !list.iter().any(|other| other.matches_ignoring_case(example.as_bytes()))
}

/// `/package.Service/Method`.
pub(super) fn is_grpc(path: &str) -> bool {
    let identifier = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, method)| {
        service.contains('.') && service.split('.').all(identifier) && identifier(method)
    })
}
