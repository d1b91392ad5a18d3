//! What stands in the lists of roles and bindings: each value means something, or the message says why not.

use super::super::canonical::Canonicalization;
use super::super::document::PathPattern;
use super::super::pattern::Pattern;
use super::super::{RequestPrincipal, unmatched};
use crate::identity::SpiffeId;

/// A method, whole. (RFC 9110 9.1)
pub(crate) fn method(text: &str) -> Result<Pattern, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(format!(
            "{text:?} is no method: methods are upper-case words such as GET; without `methods` all are meant"
        ));
    }
    Ok(Pattern::Exact(text.into()))
}

/// A path that some request can have.
pub(crate) fn path(text: &str, canonical: Canonicalization) -> Result<PathPattern, String> {
    if let Some(template) = PathPattern::template(text) {
        return template;
    }
    let pattern = Pattern::parse(text).map_err(|error| error.to_string())?;
    unmatched::path(&pattern, canonical)?;
    Ok(PathPattern::Text(pattern))
}

/// `PACKAGE.SERVICE/METHOD` or `PACKAGE.SERVICE/*`, as the path that it is. (gRPC, PROTOCOL-HTTP2)
pub(crate) fn grpc(text: &str) -> Result<PathPattern, String> {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let pattern = match text.split_once('/') {
        Some((service, "*")) if service.split('.').all(word) => Pattern::Prefix(format!("/{service}/").into()),
        Some((service, method)) if service.split('.').all(word) && word(method) => {
            Pattern::Exact(format!("/{text}").into())
        }
        _ => {
            let expected = "expected `shop.Payments/Charge`, or `shop.Payments/*` for all of a service";
            return Err(format!("{text:?} is no gRPC method: {expected}"));
        }
    };
    Ok(PathPattern::Text(pattern))
}

/// A SPIFFE ID, or what all IDs below a path begin with, as policies write principals.
pub(crate) fn identity(text: &str) -> Result<Pattern, String> {
    let below = text.strip_suffix('*').filter(|start| start.ends_with('/'));
    let example = below.map_or_else(|| text.to_owned(), |start| format!("{start}x"));
    let id = SpiffeId::parse(&example).map_err(|error| format!("{text:?}: {error}"))?;
    if id.path().is_empty() {
        return Err(format!(
            "{text} names a trust domain, not a workload: add its path, or `/*` for all of the domain"
        ));
    }
    let principal = |text: &str| text.strip_prefix("spiffe://").unwrap_or(text).into();
    Ok(below.map_or_else(|| Pattern::Exact(principal(text)), |start| Pattern::Prefix(principal(start))))
}

/// `ISSUER/SUBJECT`, as policies write it.
pub(crate) fn request_principal(text: &str) -> Result<RequestPrincipal, String> {
    RequestPrincipal::parse(text)
}

/// A group, whole.
pub(crate) fn group(text: &str) -> Result<Pattern, String> {
    if text.is_empty() || text.contains('*') || text.contains(char::is_control) {
        return Err(format!("{text:?} is no group: expected a whole name; `*` stands for nothing here"));
    }
    Ok(Pattern::Exact(text.into()))
}

/// A scope, whole. (RFC 6749 3.3)
pub(crate) fn scope(text: &str) -> Result<Pattern, String> {
    let visible = |byte: u8| (b'!'..=b'~').contains(&byte) && !b"\"\\*".contains(&byte);
    if text.is_empty() || !text.bytes().all(visible) {
        return Err(format!("{text:?} is no scope: expected one whole word; `*` stands for nothing here"));
    }
    Ok(Pattern::Exact(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_methods_are_words_of_protobuf() {
        for (text, expected) in [
            ("shop.Payments/Charge", Some("/shop.Payments/Charge")),
            ("shop.Payments/*", Some("/shop.Payments/*")),
            ("_a1._B/_c2", Some("/_a1._B/_c2")),
            ("Payments/Charge", Some("/Payments/Charge")),
            ("1a.B/C", None),
            ("a.B/1c", None),
            ("a..B/C", None),
            ("a.B/", None),
            ("/C", None),
            ("a.B", None),
            ("a-b.C/D", None),
            ("a.B/C-d", None),
            ("a.B/C/d", None),
            ("a.*/C", None),
            ("/a.B/C", None),
        ] {
            assert_eq!(grpc(text).ok().map(|path| path.to_string()).as_deref(), expected, "{text}");
        }
    }
}
