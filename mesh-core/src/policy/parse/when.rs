//! `when[]`: everything that `from` and `to` have no field for.

use super::source::{accounts, ip_block, namespace, principal, refuse_identity, request_principal, trust_domain};
use super::{Reading, clause, noted, pattern, port, text};
use crate::config::yaml::Value;
use crate::config::{Errors, Fields, Node};
use crate::policy::document::Condition;
use crate::policy::{Mode, Pattern, unmatched};

const VALUES: [&str; 2] = ["values", "notValues"];

pub(super) fn condition(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Condition> {
    let mut fields = Fields::of(node, errors)?;
    let key: String = fields.required("key")?;
    let at = &mut fields;
    let identity = key.starts_with("request.auth.")
        || matches!(&*key, "source.principal" | "source.namespace" | "source.serviceAccount" | "source.trustDomain");
    if identity {
        refuse_identity(at, reading);
    }
    let plain = |node: &Node, errors: &mut Errors| pattern(node, reading, errors);
    let condition = match key.as_str() {
        "source.principal" => {
            Condition::SourcePrincipal(clause(at, reading, VALUES, |node, errors| principal(node, reading, errors)))
        }
        "source.namespace" => {
            Condition::SourceNamespace(clause(at, reading, VALUES, |node, errors| namespace(node, reading, errors)))
        }
        "source.serviceAccount" => Condition::SourceServiceAccount(accounts(at, reading, VALUES)),
        "source.trustDomain" => Condition::SourceTrustDomain(clause(at, reading, VALUES, |node, errors| {
            trust_domain(node, reading, errors)
        })),
        "source.ip" => Condition::SourceIp(clause(at, reading, VALUES, ip_block)),
        "remote.ip" => Condition::RemoteIp(clause(at, reading, VALUES, ip_block)),
        "destination.ip" => Condition::DestinationIp(clause(at, reading, VALUES, ip_block)),
        "destination.port" => Condition::DestinationPort(clause(at, reading, VALUES, port)),
        "connection.sni" => Condition::Sni(clause(at, reading, VALUES, plain)),
        "request.auth.principal" => Condition::RequestPrincipal(clause(at, reading, VALUES, |node, errors| {
            request_principal(node, reading, errors)
        })),
        "request.auth.audiences" => claim(vec!["aud".to_owned()], at, reading),
        "request.auth.presenter" => claim(vec!["azp".to_owned()], at, reading),
        "route" => Condition::Route(clause(at, reading, VALUES, route)),
        key => by_name(key, at, reading)?,
    };
    let empty = |node: &Node| matches!(&node.value, Value::List(items) if items.is_empty());
    if VALUES.into_iter().all(|name| fields.node(name).is_none_or(empty)) {
        fields.error("expected `values`, `notValues` or both");
    }
    fields.finish();
    Some(condition)
}

fn claim(path: Vec<String>, fields: &mut Fields<'_>, reading: &Reading<'_>) -> Condition {
    Condition::Claim { path, values: clause(fields, reading, VALUES, |node, errors| pattern(node, reading, errors)) }
}

/// Keys with a name in brackets.
fn by_name(key: &str, fields: &mut Fields<'_>, reading: &Reading<'_>) -> Option<Condition> {
    let place = fields.place("key");
    if key.starts_with("experimental.") {
        let message = format!("the key `{key}` is about Envoy's own filters, which this mesh does not have");
        fields.errors().push(&place, message);
        return None;
    }
    let (claims, header) = (key.strip_prefix("request.auth.claims"), key.strip_prefix("request.headers"));
    if let Some(path) = claims.and_then(brackets) {
        return Some(claim(path, fields, reading));
    }
    if let Some([name]) = header.and_then(brackets).as_deref() {
        let name = name.to_ascii_lowercase();
        if let Err(doubt) = unmatched::header(&name) {
            reading.doubt(&place, doubt, fields.errors());
        }
        let values = clause(fields, reading, VALUES, |node, errors| pattern(node, reading, errors));
        return Some(Condition::Header { name, values });
    }
    // What Istio's validation looks at: a bracket, and a last one with something between.
    let inner = claims.or(header).filter(|_| key.find('[').is_some_and(|at| key.ends_with(']') && at + 2 < key.len()));
    if let Some(rest) = inner.filter(|_| reading.mode == Mode::Compat) {
        let message = format!("`{key}` is no key that anybody understands; Istio drops it");
        reading.doubt(&place, message, fields.errors());
        let values = clause(fields, reading, VALUES, |node, errors| pattern(node, reading, errors));
        let name = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        return Some(match (name, claims) {
            (None, _) => Condition::Untranslatable { key: key.to_owned() },
            (Some(name), Some(_)) => Condition::Claim { path: vec![name.to_owned()], values },
            (Some(name), None) => Condition::Header { name: name.to_ascii_lowercase(), values },
        });
    }
    let message = format!(
        "unknown key `{key}`: expected source.principal, source.namespace, source.serviceAccount, source.trustDomain, \
         source.ip, remote.ip, destination.ip, destination.port, connection.sni, request.auth.principal, \
         request.auth.audiences, request.auth.presenter, request.auth.claims[NAME], request.headers[NAME] or route"
    );
    fields.errors().push(&place, message);
    None
}

/// `[a][b]` as `a`, `b`.
fn brackets(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

/// A route may hold stars itself (`/files/{*path}`): one at an end is a wildcard, any other is a letter.
fn route(node: &Node, errors: &mut Errors) -> Option<Pattern> {
    noted(Pattern::parse_as(Mode::Compat, text(node, errors)?), node, errors)
}
