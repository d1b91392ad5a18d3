//! The token of a request: any text, or what the signer of an accepted issuer may have put under his signature.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::config::{IssuerConfig, PlugConfig};
use mesh_core::identity::{PrivateKey, SignatureScheme, Signer as _};
use mesh_core::token::{IssuerKeys, Jwks, Presented, TokenError, TokenVerifier, VerifiedToken, bearer};
use serde_json::{Map, Value};

/// The keys of the two issuers. Of `ed` the private half is public; those of the others nobody has any more.
static JWKS: &[u8] = include_bytes!("../corpus/jwks.json");
static JWT_SVID: &[u8] = include_bytes!("../corpus/jwt-svid.json");
/// RFC 8037 A.1, as PKCS#8.
static ED: LazyLock<PrivateKey> = LazyLock::new(|| {
    const HEAD: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    // Constants of an RFC: 32 bytes in base64url, and a header that says so.
    let secret = base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("the key of the RFC");
    PrivateKey::from_pkcs8(&[HEAD, &secret].concat()).expect("the key of the RFC")
});

pub(crate) const ISSUER: &str = "https://idp.example";
pub(crate) const NOW: u64 = 1_800_000_000;
/// Of the connection that every token comes over.
pub(crate) const CERTIFICATE: [u8; 32] = [7; 32];
/// What stands before a header and claims, a line each, that are to be signed by `ed`.
const SIGNED: &str = "signed\n";

// Both files are part of the corpus, and no input.
static IDP: LazyLock<IssuerKeys> =
    LazyLock::new(|| IssuerKeys::new(Jwks::parse(JWKS).expect("the keys of the corpus").into()));
static TD: LazyLock<IssuerKeys> =
    LazyLock::new(|| IssuerKeys::new(Jwks::parse_jwt_svid(JWT_SVID).expect("the keys of the corpus").into()));

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| verifier("orders"));
/// The same keys for other services, and no keys for this one.
static ELSEWHERE: LazyLock<TokenVerifier> = LazyLock::new(|| verifier("payments"));
static KEYLESS: LazyLock<TokenVerifier> = LazyLock::new(|| with_keys("orders", IssuerKeys::none(), IssuerKeys::none()));

fn verifier(audience: &str) -> TokenVerifier {
    with_keys(audience, IDP.clone(), TD.clone())
}

fn with_keys(audience: &str, idp: IssuerKeys, td: IssuerKeys) -> TokenVerifier {
    let config = |name: &str, kind| {
        IssuerConfig::new(name, vec![audience.to_owned()], PlugConfig::new(kind, &Value::String("keys.json".into())))
    };
    TokenVerifier::default().with(config(ISSUER, "file"), idp).with(config("spiffe://td", "jwt_svid"), td)
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The verdict: `accepted`, or the reason of the refusal.
///
/// A text is a token, unless it is `signed`, a header and claims, each in a line: then it is what `ed` makes of them.
pub(crate) fn run(data: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(!matches!(bearer([data]), Ok(Some(_))), "a token that is no text");
        return "not_utf8";
    };
    let _ = bearer([data]);
    let token = match text.strip_prefix(SIGNED).map(|both| both.split_once('\n').unwrap_or((both, ""))) {
        Some((header, claims)) => sign(header.as_bytes(), claims.as_bytes()),
        None => text.to_owned(),
    };
    let verdict = judge(&VERIFIER, &token, now());
    assert_eq!(verdict, judge(&VERIFIER, &token, now()), "same token, same answer");
    assert_eq!(token.len() > 8192, verdict == Err(TokenError::TooLarge));
    match (verdict, parts(&token)) {
        (Ok(verified), Some(parts)) => accepted(&token, &parts, &verified),
        (Ok(_), None) => panic!("accepted, and no compact JWS"),
        (Err(error), parts) => refused(&error, parts.is_some()),
    }
}

fn judge(verifier: &TokenVerifier, token: &str, at: SystemTime) -> Result<Arc<VerifiedToken>, TokenError> {
    let presented = Presented { certificate: Some(&CERTIFICATE), ..Presented::default() };
    verifier.judge(token, presented, at).map_err(|refused| refused.error)
}

fn accepted(token: &str, parts: &[Vec<u8>; 3], verified: &Arc<VerifiedToken>) -> &'static str {
    let fresh = verifier("orders");
    assert_eq!(judge(&fresh, token, now()).as_ref(), Ok(verified), "who never saw it says the same");
    assert_eq!(bearer([format!("Bearer {token}").as_bytes()]), Ok(Some(token)));
    // Any reader of JSON reads the same in it: two objects, or it must not have been accepted.
    let [header, claims]: [Map<String, Value>; 2] =
        [0, 1].map(|part| serde_json::from_slice(&parts[part]).expect("an object"));
    assert_eq!(verified.claims, claims);
    believable(&header, &claims);
    // At no other time, for no other service, without keys or without its certificate.
    let over = verified.expires + Duration::from_secs(30);
    assert_eq!(judge(&VERIFIER, token, over), Err(TokenError::Expired));
    assert_eq!(
        judge(&ELSEWHERE, token, now()).is_ok(),
        verified.audiences.iter().any(|audience| audience == "payments")
    );
    assert_eq!(judge(&KEYLESS, token, now()), Err(TokenError::NoKeys));
    assert_eq!(VERIFIER.verify(token, now()).is_ok(), !claims.contains_key("cnf"));
    forged(token, parts);
    "accepted"
}

/// What every accepted token says, by the sentences of the specifications.
fn believable(header: &Map<String, Value>, claims: &Map<String, Value>) {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // Of an accepted token; whoever accepts one without these, or with others in their places, is what is looked for.
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().expect("a number"));
    let names: Vec<&str> = header.keys().map(String::as_str).collect();
    for name in ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "p2c", "cty"] {
        assert!(!names.contains(&name), "{name}");
    }
    let algorithm = header["alg"].as_str().expect("a name");
    let fits: &[&str] = match (text("iss"), header.get("kid").map(|kid| kid.as_str().expect("a name"))) {
        (Some(ISSUER), Some("ed")) => &["EdDSA"],
        (Some(ISSUER), Some("ec")) => &["ES256"],
        (Some(ISSUER), Some("rsa")) => &["RS256", "PS256"],
        (Some(ISSUER), Some("bound")) => &["PS256"],
        (Some(ISSUER), None) => &["EdDSA", "ES256", "RS256"],
        (Some(ISSUER), Some(other)) => panic!("the key {other}"),
        (_, kid) => {
            assert_eq!(kid, Some("svid"));
            assert!(text("sub").is_some_and(|sub| sub.starts_with("spiffe://td/")));
            assert!(names.iter().all(|name| ["alg", "kid", "typ"].contains(name)));
            &["ES256"]
        }
    };
    assert!(fits.contains(&algorithm), "{algorithm}");
    let meant = |value: &Value| value == "orders";
    assert!(meant(&claims["aud"]) || claims["aud"].as_array().is_some_and(|list| list.iter().any(meant)));
    let (now, leeway) = (NOW as f64, 30.0);
    let (expires, issued) = (number("exp").expect("an expiry"), number("iat"));
    assert!(expires + leeway > now && [number("nbf"), issued].into_iter().flatten().all(|time| time <= now + leeway));
    assert!(expires - issued.unwrap_or(now) <= 86_400.0);
    assert!(claims.values().all(|claim| depth(claim) < 32));
}

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or_default()
}

/// Nothing beside the one token passes: no other signature, no other text under it, no other spelling.
fn forged(token: &str, [header, claims, signature]: &[Vec<u8>; 3]) {
    let refuse = |what: &str, forged: String| {
        assert!(forged == token || judge(&VERIFIER, &forged, now()).is_err(), "{what}: {forged}");
    };
    let with = |signature: &[u8]| [base64url_of(header), base64url_of(claims), base64url_of(signature)].join(".");
    assert_eq!(with(signature), token, "one spelling");
    // The places follow the token, so that a fuzzer tries all of them.
    let sum = token.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    for place in [0, signature.len() - 1, sum % signature.len()] {
        let mut other = signature.clone();
        other[place] ^= 1 << (sum % 8);
        refuse("one bit", with(&other));
    }
    refuse("cut", with(&signature[1..]));
    refuse("cut at its end", with(&signature[..signature.len() - 1]));
    refuse("longer", with(&[&signature[..], &[0]].concat()));
    refuse("nothing but zeros", with(&vec![0; signature.len()]));
    refuse("none", with(&[]));
    let mut text = token.as_bytes().to_vec();
    let place = sum % text.len();
    text[place] = if text[place] == b'A' { b'B' } else { b'A' };
    // A letter took the place of one of ASCII: whatever is accepted is of these alone.
    refuse("one letter", String::from_utf8(text).expect("letters"));
    for (what, spelling) in [
        ("padded", format!("{token}=")),
        ("padded twice", format!("{token}==")),
        ("a space", format!("{token} ")),
        ("a line end", format!("{token}\n")),
        ("a part", format!("{token}.")),
        ("a part in front", format!(".{token}")),
        ("padded within", token.replacen('.', "=.", 1)),
    ] {
        refuse(what, spelling);
    }
}

/// An error is short, and is not about spelling where there is nothing wrong with that.
fn refused(error: &TokenError, spelled: bool) -> &'static str {
    let said = error.to_string();
    assert!(said.len() < 128 && !said.contains(char::is_control), "{said:?}");
    let early = match error {
        TokenError::Malformed("expected three parts" | "a part is empty" | "a part is not base64url") => {
            assert!(!spelled, "{error}");
            true
        }
        TokenError::TooLarge
        | TokenError::Malformed(_)
        | TokenError::ForbiddenHeader(_)
        | TokenError::ForbiddenAlgorithm => true,
        _ => false,
    };
    assert!(early || spelled, "{error}: judged, and no compact JWS");
    error.reason()
}

/// The three parts of a compact JWS by its grammar: RFC 7515 7.1, RFC 4648 5 and 3.5.
fn parts(token: &str) -> Option<[Vec<u8>; 3]> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return None };
    Some([base64url(header)?, base64url(claims)?, base64url(signature)?])
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// At least one byte, without padding, and no bits that say nothing.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 6 && !bytes.is_empty()).then_some(bytes)
}

fn base64url_of(bytes: &[u8]) -> String {
    let letter = |bits: u32| char::from(ALPHABET[bits as usize & 63]);
    let of = |group: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        [18, 12, 6, 0].into_iter().take(group.len() + 1).map(move |shift| letter(bits >> shift)).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

/// The token that the issuer's key `ed` makes of these texts, whatever they say.
pub(crate) fn sign(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", base64url_of(header), base64url_of(claims));
    // ED is a key of this scheme, and signing with it cannot fail.
    let signature = ED.sign(SignatureScheme::ED25519, signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", base64url_of(&signature))
}
