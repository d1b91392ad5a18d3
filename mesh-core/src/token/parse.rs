//! The strict parser that stands before any cryptography. (security.md 2, rows 3-9)

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::TokenError;
use super::algorithm::Algorithm;
use super::json::parse_object;

/// What a peer may make us decode and keep. (CVE-2025-30204)
const MAX_TOKEN: usize = 8 * 1024;
/// A key's name is compared, never interpreted. (RFC 8725 3.10)
const MAX_KID: usize = 128;

/// Headers that would let a token choose its key, change what is signed, or hide what it says.
const FORBIDDEN: [&str; 16] =
    ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "epk", "apu", "apv", "p2c", "p2s", "iv", "tag", "url"];

/// The parts of a token, none of which may be believed yet.
pub(super) struct Unverified<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) issuer: Option<String>,
    /// Whether its header has more than `alg`, `kid` and `typ`.
    more_headers: bool,
    pub(super) claims: Map<String, Value>,
    /// `HEADER.CLAIMS` as it came: what the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let (head, claims, signature) = parts(token)?;
        let header = header(head)?;
        let algorithm = string(&header, "alg", TokenError::Malformed("`alg` is not a string"))?
            .and_then(|name| Algorithm::parse(&name))
            .ok_or(TokenError::ForbiddenAlgorithm)?;
        let key_id = string(&header, "kid", TokenError::Malformed("`kid` is not a string"))?;
        if key_id.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
            return Err(TokenError::Malformed("`kid` is empty or longer than 128 bytes"));
        }
        let token_type = string(&header, "typ", TokenError::Malformed("`typ` is not a string"))?;
        // A content type says that a token is wrapped in a token. (RFC 7519 5.2)
        if header.contains_key("cty") {
            return Err(TokenError::ForbiddenHeader("cty"));
        }
        let signed = token.as_bytes().get(..head.len() + 1 + claims.len()).unwrap_or_default();
        let (signature, claims) = (decode(signature)?, object(claims)?);
        // RFC 7519 has a single string; lists of issuers have been accepted elsewhere. (RFC 8725 3.8)
        let invalid = TokenError::InvalidClaim("iss");
        let issuer = string(&claims, "iss", invalid)?;
        let more_headers = header.keys().any(|name| !["alg", "kid", "typ"].contains(&name.as_str()));
        Ok(Self { algorithm, key_id, token_type, issuer, more_headers, claims, signed, signature })
    }

    /// A JWT-SVID has no other headers, and names its key. (JWT-SVID 2.1 to 2.3; go-spiffe requires the key too)
    pub(super) fn check_jwt_svid_header(&self) -> Result<(), TokenError> {
        match (&self.key_id, self.more_headers) {
            (Some(_), false) => Ok(()),
            (None, _) => Err(TokenError::UnknownKey),
            (_, true) => Err(TokenError::Malformed("a JWT-SVID has no headers but `alg`, `kid` and `typ`")),
        }
    }
}

/// The three parts of a compact JWS.
pub(super) fn parts(jws: &str) -> Result<(&str, &str, &str), TokenError> {
    let mut parts = jws.splitn(4, '.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Ok((header, payload, signature)),
        _ => Err(TokenError::Malformed("expected three parts")),
    }
}

/// A header that says nothing about how to read the rest.
pub(super) fn header(part: &str) -> Result<Map<String, Value>, TokenError> {
    let header = object(part)?;
    match FORBIDDEN.into_iter().find(|name| header.contains_key(*name)) {
        Some(name) => Err(TokenError::ForbiddenHeader(name)),
        None => Ok(header),
    }
}

/// A member that must be a string if it is there.
pub(super) fn string(
    members: &Map<String, Value>,
    name: &str,
    otherwise: TokenError,
) -> Result<Option<String>, TokenError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(otherwise),
    }
}

/// No padding, no whitespace, no bits beyond the last byte: one spelling for each token. (RFC 8725bis 3.14)
pub(super) fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    if part.is_empty() {
        return Err(TokenError::Malformed("a part is empty"));
    }
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part is not base64url"))
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    parse_object(&decode(part)?).map_err(TokenError::Malformed)
}

/// The bearer token in all `Authorization` headers of a request: none, one, or a refusal.
///
/// Another scheme is no token. Two headers are refused whatever they hold, and so is a joined pair, because proxies
/// join them with a comma and then disagree about which counts. (RFC 6750 2.1; the scheme's case does not matter, RFC
/// 9110 11.1)
pub fn bearer<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a str>, TokenError> {
    let mut headers = headers.into_iter();
    let Some(header) = headers.next() else { return Ok(None) };
    if headers.next().is_some() {
        return Err(TokenError::Ambiguous);
    }
    let Some(rest) = after_scheme(header) else {
        // `Basic x, Bearer y`: two credentials, of which nobody can choose.
        let hidden = header.split(|byte| *byte == b',').skip(1).any(|part| after_scheme(part.trim_ascii()).is_some());
        return if hidden { Err(TokenError::Ambiguous) } else { Ok(None) };
    };
    match rest.strip_prefix(b" ").and_then(|token| std::str::from_utf8(token).ok()) {
        Some(token) if is_b64token(token) => Ok(Some(token)),
        _ if rest.contains(&b',') => Err(TokenError::Ambiguous),
        _ => Err(TokenError::Malformed("expected one bearer token after `Bearer `")),
    }
}

/// What follows the word `Bearer`, if this is a credential of that scheme.
fn after_scheme(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = credential.split_at_checked("Bearer".len())?;
    let ends = rest.first().is_none_or(|byte| b" \t,".contains(byte));
    (ends && scheme.eq_ignore_ascii_case(b"bearer")).then_some(rest)
}

/// What a bearer token may consist of. (RFC 6750 2.1)
pub(super) fn is_b64token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testkit::b64;
    use super::*;

    fn parsed(header: &Value) -> Result<Option<String>, TokenError> {
        let token = format!("{}.{}.{}", b64(header.to_string()), b64("{}"), b64("signature"));
        Unverified::parse(&token).map(|token| token.key_id)
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let parts = TokenError::Malformed("expected three parts");
        for (length, expected) in [(MAX_TOKEN, parts), (MAX_TOKEN + 1, TokenError::TooLarge)] {
            assert_eq!(Unverified::parse(&"a".repeat(length)).map(drop), Err(expected));
        }
        let named = |length: usize| parsed(&json!({ "alg": "ES256", "kid": "k".repeat(length) }));
        assert_eq!(named(MAX_KID), Ok(Some("k".repeat(MAX_KID))));
        assert!(named(MAX_KID + 1).is_err() && named(0).is_err());
        assert_eq!(parsed(&json!({ "alg": "ES256" })), Ok(None));
        assert_eq!(parsed(&json!({ "alg": "ES256", "cty": "JWT" })), Err(TokenError::ForbiddenHeader("cty")));
    }

    #[test]
    fn what_is_signed_is_what_came() {
        let token = format!("{}.{}.{}", b64(r#"{"alg":"ES256"}"#), b64(r#"{"iss":"i"}"#), b64("signature"));
        let parsed = Unverified::parse(&token).unwrap();
        assert_eq!(parsed.signed, token.rsplit_once('.').unwrap().0.as_bytes());
        assert_eq!((&*parsed.signature, parsed.issuer.as_deref()), (&b"signature"[..], Some("i")));
    }

    #[test]
    fn a_jwt_svid_names_its_key_and_has_no_other_headers() {
        for (header, expected) in [
            (json!({ "alg": "ES256", "kid": "k" }), Ok(())),
            (json!({ "alg": "ES256", "kid": "k", "typ": "JWT" }), Ok(())),
            (json!({ "alg": "ES256" }), Err(TokenError::UnknownKey)),
            (
                json!({ "alg": "ES256", "kid": "k", "x": 1 }),
                Err(TokenError::Malformed("a JWT-SVID has no headers but `alg`, `kid` and `typ`")),
            ),
        ] {
            let token = format!("{}.{}.{}", b64(header.to_string()), b64("{}"), b64("signature"));
            assert_eq!(Unverified::parse(&token).unwrap().check_jwt_svid_header(), expected, "{header}");
        }
    }

    #[test]
    fn one_bearer_token_or_none_or_a_refusal() {
        let form = TokenError::Malformed("expected one bearer token after `Bearer `");
        for (headers, expected) in [
            (&[][..], Ok(None)),
            (&["Bearer a.b-c_d~e+f/g="], Ok(Some("a.b-c_d~e+f/g="))),
            (&["bEARER a"], Ok(Some("a"))),
            (&["Basic a"], Ok(None)),
            (&["Bearers a"], Ok(None)),
            (&["Bear"], Ok(None)),
            (&[""], Ok(None)),
            (&["Bearer"], Err(form)),
            (&["Bearer "], Err(form)),
            (&["Bearer  a"], Err(form)),
            (&["Bearer\ta"], Err(form)),
            (&["Bearer a b"], Err(form)),
            (&["Bearer,a"], Err(TokenError::Ambiguous)),
            (&["Bearer a,b"], Err(TokenError::Ambiguous)),
            (&["Basic a, Bearer b"], Err(TokenError::Ambiguous)),
            (&["Basic a,Bearer"], Err(TokenError::Ambiguous)),
            (&["Basic a, b"], Ok(None)),
            (&["Bearer a", "Bearer a"], Err(TokenError::Ambiguous)),
            (&["Basic a", "Basic a"], Err(TokenError::Ambiguous)),
        ] {
            assert_eq!(bearer(headers.iter().map(|header| header.as_bytes())), expected, "{headers:?}");
        }
        assert_eq!(bearer([&b"Bearer \xff"[..]]), Err(form));
    }
}
