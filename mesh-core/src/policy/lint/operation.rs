//! Hosts and methods.

use super::super::pattern::Pattern;
use super::super::{AuthorizationPolicy, Operation, PathPattern};
use super::{LintCode, Report};

pub(super) fn check(document: &AuthorizationPolicy, report: &mut Report) {
    for (at, rule) in document.rules.iter().enumerate() {
        for (n, operation) in rule.to.iter().enumerate() {
            let Operation { hosts, methods, paths, .. } = operation;
            for (name, list) in [("hosts", &hosts.any_of), ("notHosts", &hosts.none_of)] {
                let list = list.as_deref().unwrap_or_default();
                for host in list.iter().filter(|host| lacks_port(host, list)) {
                    let text = format!("`{host}` does not hold the same host with a port");
                    report.rule(LintCode::HostWithoutPort, document, at, &format!("to[{n}].operation.{name}"), text);
                }
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

/// Whether nothing in the list holds the same host with a port.
fn lacks_port(host: &Pattern, list: &[Pattern]) -> bool {
    let plain = |text: &str| !text.rsplit(']').next().unwrap_or_default().contains(':');
    let example = match host {
        Pattern::Exact(text) if plain(text) => format!("{text}:1"),
        Pattern::Suffix(text) if plain(text) => format!("x{text}:1"),
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
