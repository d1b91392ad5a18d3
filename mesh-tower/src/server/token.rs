//! Where a request carries its token, and what its claims become for the handler.

use http::header::{AUTHORIZATION, COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use mesh_core::config::IssuerConfig;
use mesh_core::token::{Location, Locations, TokenError, VerifiedToken, bearer, cookie_pair};
use serde_json::Value;

/// The one token of a request; two are refused, wherever they are, because nobody can say which counts.
pub(super) fn find<'r, B>(
    locations: &Locations,
    request: &'r Request<B>,
) -> Result<Option<(Location, &'r str)>, TokenError> {
    let values = |name: &str| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    let mut found = bearer(values(AUTHORIZATION.as_str()))?.map(|token| (Location::Bearer, token));
    let mut also = |token: Option<(Location, &'r str)>| match (found, token) {
        (Some(_), Some(_)) => Err(TokenError::Ambiguous),
        (None, Some(token)) => {
            found = Some(token);
            Ok(())
        }
        (_, None) => Ok(()),
    };
    for (index, name) in locations.headers().enumerate() {
        also(locations.in_header(index, values(name))?.map(|token| (Location::Header(index), token)))?;
    }
    if locations.params().len() > 0
        && let Some(query) = request.uri().query()
    {
        also(locations.in_query(query)?)?;
    }
    if locations.cookies().len() > 0 {
        also(locations.in_cookies(values(COOKIE.as_str()))?)?;
    }
    Ok(found)
}

/// Takes the token from the request, so that no handler passes it on.
pub(super) fn take<B>(locations: &Locations, location: Location, request: &mut Request<B>) {
    match location {
        Location::Bearer => drop(request.headers_mut().remove(AUTHORIZATION)),
        Location::Header(index) => {
            if let Some(name) = locations.headers().nth(index) {
                request.headers_mut().remove(name);
            }
        }
        Location::Param(index) => {
            let Some(name) = locations.params().nth(index) else { return };
            if let Some(uri) = without(request.uri(), name) {
                *request.uri_mut() = uri;
            }
        }
        Location::Cookie(index) => {
            if let Some(name) = locations.cookies().nth(index) {
                remove_cookie(name, request.headers_mut());
            }
        }
    }
}

/// The same URI without one parameter of its query.
fn without(uri: &Uri, param: &str) -> Option<Uri> {
    let named = |pair: &&str| pair.split_once('=').map_or(*pair, |(name, _)| name) != param;
    let kept: Vec<&str> = uri.query()?.split('&').filter(named).collect();
    let path = if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Leaves every other cookie as it came.
fn remove_cookie(name: &str, headers: &mut HeaderMap) {
    let other = |pair: &&[u8]| cookie_pair(pair).0 != name.as_bytes();
    let without = |value: &HeaderValue| {
        let kept: Vec<&[u8]> = value.as_bytes().split(|byte| *byte == b';').filter(other).collect();
        HeaderValue::from_bytes(kept.join(&b';').trim_ascii()).ok().filter(|value| !value.is_empty())
    };
    let kept: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(without).collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// Removes what a caller wrote into headers that claims are written to, in every spelling that a framework may take for
/// the same. (CVE-2023-27493)
pub(super) fn remove_outputs(locations: &Locations, headers: &mut HeaderMap) {
    if !locations.has_outputs() {
        return;
    }
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| locations.is_output(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Writes the claims that the issuer's configuration names. A text that no header can carry refuses the token: leaving it
/// out would make it another.
pub(super) fn write_claims(
    issuer: &IssuerConfig,
    token: &VerifiedToken,
    headers: &mut HeaderMap,
) -> Result<(), TokenError> {
    for to in &issuer.output_claim_to_headers {
        let Some(value) = claim(token, &to.claim) else { continue };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => continue,
        };
        let invalid = TokenError::InvalidClaim("output_claim_to_headers");
        // Neither CR nor LF nor NUL nor another control character passes here.
        let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| invalid)?;
        let name = HeaderName::try_from(to.header.as_str()).map_err(|_| invalid)?;
        headers.insert(name, value);
    }
    Ok(())
}

/// Writes the claims as they stand in the token, where the issuer's configuration says so. They are base64url, because the
/// token was accepted.
pub(super) fn write_payload(issuer: &IssuerConfig, payload: &str, headers: &mut HeaderMap) -> Result<(), TokenError> {
    let Some(name) = &issuer.output_payload_to_header else { return Ok(()) };
    let invalid = TokenError::InvalidClaim("output_payload_to_header");
    let value = HeaderValue::try_from(payload).map_err(|_| invalid)?;
    headers.insert(HeaderName::try_from(name.as_str()).map_err(|_| invalid)?, value);
    Ok(())
}

/// A claim by its name, or by the path to it.
fn claim<'t>(token: &'t VerifiedToken, name: &str) -> Option<&'t Value> {
    if let Some(value) = token.claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(token.claims.get(first)?, |value, member| value.get(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_taken_and_the_others_stay() {
        for (sent, expected) in [
            (vec!["jwt=t"], vec![]),
            (vec!["a=1; jwt=t; b=2"], vec!["a=1; b=2"]),
            (vec!["jwt=t; b=\"2\""], vec!["b=\"2\""]),
            (vec!["a=1", "jwt = \"t\"", "jwts=x; JWT=y"], vec!["a=1", "jwts=x; JWT=y"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in &sent {
                headers.append(COOKIE, value.parse().unwrap());
            }
            remove_cookie("jwt", &mut headers);
            let kept: Vec<_> = headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(kept, expected, "{sent:?}");
        }
    }

    #[test]
    fn a_parameter_is_taken_from_a_uri_and_nothing_else_is() {
        for (uri, expected) in [
            ("/a?access_token=t", "/a"),
            ("/a?x=1&access_token=t&y=%20", "/a?x=1&y=%20"),
            ("https://o/a?access_token=t&x", "https://o/a?x"),
            ("/a?access_tokens=t&access_token", "/a?access_tokens=t"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(without(&uri, "access_token").unwrap().to_string(), expected, "{uri}");
        }
    }
}
