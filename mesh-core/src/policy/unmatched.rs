//! Refuses values that no request can match.
//!
//! In an ALLOW rule such a value allows nobody, which is noticed. In a DENY rule it denies nobody, which is not.

use super::canonical::{self, Canonicalization};
use super::pattern::Pattern;
use crate::identity::SpiffeId;

/// Principals are what follows `spiffe://`.
pub(super) fn principal(pattern: &Pattern) -> Result<(), String> {
    let (Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text)) = pattern else { return Ok(()) };
    if text.contains(':') {
        return Err(format!("`{pattern}` matches nobody: write principals without `spiffe://`"));
    }
    if !matches!(pattern, Pattern::Exact(_)) {
        return Ok(());
    }
    match SpiffeId::parse(&format!("spiffe://{text}")) {
        Ok(id) if !id.path().is_empty() => Ok(()),
        Ok(_) => {
            Err(format!("`{text}` matches nobody: expected TRUST_DOMAIN/PATH, for example `{text}/ns/shop/sa/web`"))
        }
        Err(error) => Err(format!("`{text}` matches nobody: it is no SPIFFE ID without `spiffe://`: {error}")),
    }
}

/// Requests with any other path are refused before policy is asked.
pub(super) fn path(pattern: &Pattern, canonical: Canonicalization) -> Result<(), String> {
    // The shortest path that such a pattern could match.
    let example = match pattern {
        Pattern::Exact(text) => text.to_string(),
        Pattern::Prefix(text) => format!("{text}x"),
        Pattern::Suffix(text) => format!("/x{text}"),
        Pattern::Present => return Ok(()),
    };
    if canonical != Canonicalization::Reject {
        let fits = canonical.yields(&example);
        let why = || format!("`{pattern}` matches no request: with `canonical: {canonical}` no path looks like that");
        return if fits { Ok(()) } else { Err(why()) };
    }
    let read = Canonicalization::Reject.path(&example).map_err(|reason| {
        format!(
            "`{pattern}` matches no request ({reason}): paths start with `/` and have no query, no empty or dot \
             segments, no `;`, and escapes like `%C3%A9` only where they must be"
        )
    })?;
    if read.views().nth(1).is_some() {
        return Err(format!(
            "`{pattern}` names one of two spellings: write `%40` as `@`, and every character that needs no escape as itself; that is held against both"
        ));
    }
    Ok(())
}

/// Hosts are compared in their one form, but for the case.
pub(super) fn host(pattern: &Pattern) -> Result<(), String> {
    let fits = match pattern {
        Pattern::Exact(text) => canonical::host(text).is_some_and(|host| host.eq_ignore_ascii_case(text)),
        Pattern::Prefix(text) | Pattern::Suffix(text) => !text.contains(['/', '@', ' ']),
        Pattern::Present => true,
    };
    if fits { Ok(()) } else { Err(format!("`{pattern}` matches no request: expected HOST or HOST:PORT")) }
}

/// Methods are compared with their case. (RFC 9110 9.1)
pub(super) fn method(pattern: &Pattern) -> Result<(), String> {
    const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let Pattern::Exact(text) = pattern else { return Ok(()) };
    match METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(text) && **method != **text) {
        Some(method) => {
            Err(format!("`{text}` matches no request: methods are in upper case; did you mean `{method}`?"))
        }
        None => Ok(()),
    }
}

/// Headers that policy never sees. `name` is in lower case.
pub(super) fn header(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let why = match name {
        ":authority" | "host" => "HTTP/2 requests have none; write `hosts`",
        ":path" => "write `paths`",
        ":method" => "write `methods`",
        "authorization" => {
            "a bearer token is taken out before; write `requestPrincipals` or `request.auth.claims[NAME]`"
        }
        name if !name.bytes().all(token) => "no header can have this name",
        name if canonical::is_stripped(name) => "the mesh takes it from every request, because anybody can forge it",
        _ => return Ok(()),
    };
    Err(format!("`request.headers[{name}]` matches no request: {why}"))
}

/// Trust domains are in lower case.
pub(super) fn trust_domain(pattern: &Pattern) -> Result<(), String> {
    let (Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text)) = pattern else { return Ok(()) };
    let fits = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
    if fits { Ok(()) } else { Err(format!("`{pattern}` matches nobody: a trust domain is made of [a-z0-9._-]")) }
}
