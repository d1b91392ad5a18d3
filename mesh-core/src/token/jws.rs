//! Signatures over any payload, by one key of any type: for people and tools who ask whether a JWS holds.
//!
//! Nothing that decides about a request comes here: a [`TokenVerifier`](super::TokenVerifier) knows no symmetric keys.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::json::parse_object;
use super::jwks::{self, Purpose};
use super::parse::{self, decode};
use super::{JwksError, TokenError};

/// The longest JWS that is read, its detached payload aside.
const MAX_JWS: usize = 1 << 20;

/// One key of any type that signs.
///
/// RSA from 2048 bits, P-256, P-384, P-521, Ed25519, or a secret of at least the length of its hash. Of a private key
/// the public half is taken.
pub struct JwsKey(Kind);

enum Kind {
    Public(jwks::Key),
    P521 { key: ParsedPublicKey, only: Option<String> },
    Secret { secret: Zeroizing<Vec<u8>>, only: Option<String> },
}

impl fmt::Debug for JwsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwsKey").finish_non_exhaustive()
    }
}

impl JwsKey {
    /// Reads a JWK.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let refuse = |why: &str| JwksError(why.to_owned());
        if json.len() > MAX_JWS {
            return Err(refuse("the key is larger than 1 MiB"));
        }
        let mut jwk = parse_object(json).map_err(|error| JwksError(format!("not a JWK: {error}")))?;
        let text = |jwk: &Map<String, Value>, name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
        let bytes = |jwk: &Map<String, Value>, name: &str| {
            let text = text(jwk, name).ok_or_else(|| JwksError(format!("`{name}` is missing")))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| JwksError(format!("`{name}` is not base64url without padding")))
        };
        let only = text(&jwk, "alg");
        let kind = (text(&jwk, "kty"), text(&jwk, "crv"));
        let own = match (kind.0.as_deref(), kind.1.as_deref()) {
            (Some("oct"), _) => Kind::Secret { secret: Zeroizing::new(bytes(&jwk, "k")?), only },
            (Some("EC"), Some("P-521")) => {
                let (x, y) = (bytes(&jwk, "x")?, bytes(&jwk, "y")?);
                if (x.len(), y.len()) != (66, 66) {
                    return Err(refuse("`x` and `y` must be 66 bytes each"));
                }
                let point = [&[4][..], &x, &y].concat();
                let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
                Kind::P521 { key: key.map_err(|_| refuse("`x` and `y` are no point on the curve"))?, only }
            }
            _ => {
                let private = jwks::PRIVATE.iter().filter(|name| jwk.remove(**name).is_some()).count() > 0;
                if private {
                    // What a private key is for says nothing about its public half.
                    jwk.remove("key_ops");
                }
                let key = jwks::key(&jwk, Purpose::Jwt).map_err(JwksError)?;
                return key.map(|key| Self(Kind::Public(key))).ok_or_else(|| refuse("this key is not for signatures"));
            }
        };
        if jwk.contains_key("d") {
            jwk.remove("key_ops");
        }
        let may = jwks::may_verify(&jwk, Purpose::Jwt).map_err(JwksError)?;
        if may { Ok(Self(own)) } else { Err(refuse("this key is not for signatures")) }
    }

    /// Whether the compact JWS holds under this key.
    ///
    /// With a detached payload its own must be empty. (RFC 7515 appendix F)
    ///
    /// The header's rules are those of a token's: one reading, no extensions, no keys of its own. `kid` is a hint, and the
    /// key is given: it is not compared.
    pub fn verify(&self, jws: &str, detached: Option<&[u8]>) -> Result<(), TokenError> {
        if jws.len() > MAX_JWS {
            return Err(TokenError::TooLarge);
        }
        let (header, payload, signature) = parse::parts(jws)?;
        let members = parse::header(header)?;
        let name = parse::string(&members, "alg", TokenError::Malformed("`alg` is not a string"))?;
        let name = name.ok_or(TokenError::ForbiddenAlgorithm)?;
        let payload = match detached {
            None if payload.is_empty() => String::new(),
            None => decode(payload).map(|_| payload.to_owned())?,
            Some(detached) if payload.is_empty() => URL_SAFE_NO_PAD.encode(detached),
            Some(_) => return Err(TokenError::Malformed("it has a payload of its own beside the detached one")),
        };
        let (signed, signature) = (format!("{header}.{payload}"), decode(signature)?);
        self.check(&name, signed.as_bytes(), &signature)
    }

    fn check(&self, name: &str, signed: &[u8], signature: &Vec<u8>) -> Result<(), TokenError> {
        let secret = match name {
            "HS256" => Some((hmac::HMAC_SHA256, 32)),
            "HS384" => Some((hmac::HMAC_SHA384, 48)),
            "HS512" => Some((hmac::HMAC_SHA512, 64)),
            _ => None,
        };
        let algorithm = Algorithm::parse(name);
        if secret.is_none() && algorithm.is_none() && name != "ES512" {
            return Err(TokenError::ForbiddenAlgorithm);
        }
        let is_for = |only: &Option<String>| only.as_ref().is_none_or(|only| only == name);
        let holds = match (&self.0, secret, algorithm) {
            (Kind::Secret { secret: key, only }, Some((hash, least)), _) if is_for(only) && key.len() >= least => {
                hmac::verify(&hmac::Key::new(hash, key), signed, signature).is_ok()
            }
            (Kind::P521 { key, only }, None, None) if is_for(only) => key.verify_sig(signed, signature).is_ok(),
            (Kind::Public(key), _, Some(algorithm)) if key.fits(algorithm) => key.verify(algorithm, signed, signature),
            _ => return Err(TokenError::KeyMismatch),
        };
        if holds { Ok(()) } else { Err(TokenError::BadSignature) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testkit::{TestKey, b64};
    use super::*;

    /// RFC 7515 A.1.
    const HS256_KEY: &str =
        r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
    const HS256_JWS: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    /// RFC 7515 A.4.
    const ES512_KEY: &str = r#"{"kty":"EC","crv":"P-521",
        "x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        "d":"AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"}"#;
    const ES512_JWS: &str = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";

    fn verify(key: &str, jws: &str, detached: Option<&[u8]>) -> Result<(), TokenError> {
        JwsKey::parse(key.as_bytes()).unwrap().verify(jws, detached)
    }

    #[test]
    fn signatures_of_the_standards_examples_hold_under_their_keys_alone() {
        assert_eq!(verify(HS256_KEY, HS256_JWS, None), Ok(()));
        assert_eq!(verify(ES512_KEY, ES512_JWS, None), Ok(()));
        let detached = ES512_JWS.replace(".UGF5bG9hZA.", "..");
        assert_eq!(verify(ES512_KEY, &detached, Some(b"Payload")), Ok(()));
        for (jws, payload, expected) in [
            (&*detached, Some(&b"payload"[..]), TokenError::BadSignature),
            (&detached, None, TokenError::BadSignature),
            (ES512_JWS, Some(b"Payload"), TokenError::Malformed("it has a payload of its own beside the detached one")),
            (HS256_JWS, None, TokenError::KeyMismatch),
        ] {
            assert_eq!(verify(ES512_KEY, jws, payload), Err(expected), "{jws}");
        }
        assert_eq!(verify(HS256_KEY, ES512_JWS, None), Err(TokenError::KeyMismatch));
        assert_eq!(verify(HS256_KEY, &HS256_JWS.replace("dBjf", "dBjg"), None), Err(TokenError::BadSignature));
    }

    #[test]
    fn what_a_header_may_not_say_it_may_not_say_here_either() {
        let key = TestKey::es256();
        let jwk = key.jwk("k").to_string();
        let judge = |header: Value| verify(&jwk, &key.sign(&header.to_string(), "any payload"), None);
        assert_eq!(judge(json!({ "alg": "ES256", "kid": "another" })), Ok(()));
        for (header, expected) in [
            (json!({ "alg": "none" }), TokenError::ForbiddenAlgorithm),
            (json!({ "alg": "es256" }), TokenError::ForbiddenAlgorithm),
            (json!({}), TokenError::ForbiddenAlgorithm),
            (json!({ "alg": "RS256" }), TokenError::KeyMismatch),
            (json!({ "alg": "HS256" }), TokenError::KeyMismatch),
            (json!({ "alg": "ES256", "crit": ["b64"], "b64": false }), TokenError::ForbiddenHeader("crit")),
            (json!({ "alg": "ES256", "jwk": key.jwk("k") }), TokenError::ForbiddenHeader("jwk")),
        ] {
            assert_eq!(judge(header.clone()), Err(expected), "{header}");
        }
    }

    #[test]
    fn a_secret_is_for_hashes_up_to_its_length() {
        for (name, algorithm, least) in
            [("HS256", hmac::HMAC_SHA256, 32), ("HS384", hmac::HMAC_SHA384, 48), ("HS512", hmac::HMAC_SHA512, 64)]
        {
            for (length, expected) in [(least - 1, Err(TokenError::KeyMismatch)), (least, Ok(())), (least + 1, Ok(()))]
            {
                let secret = vec![7_u8; length];
                let signed = format!("{}.{}", b64(json!({ "alg": name }).to_string()), b64("any payload"));
                let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), signed.as_bytes());
                let jwk = json!({ "kty": "oct", "k": b64(&secret) });
                assert_eq!(
                    verify(&jwk.to_string(), &format!("{signed}.{}", b64(tag)), None),
                    expected,
                    "{name} {length}"
                );
                let bound = json!({ "kty": "oct", "k": b64(&secret), "alg": "HS1" });
                let judged = verify(&bound.to_string(), &format!("{signed}.{}", b64(tag)), None);
                assert_eq!(judged, Err(TokenError::KeyMismatch), "a key for something else");
            }
        }
    }

    #[test]
    fn of_a_private_key_the_public_half_verifies() {
        let key = TestKey::es256();
        let (mut private, mut public) = (key.jwk("k"), key.jwk("k"));
        private["d"] = json!(b64([1; 32]));
        for jwk in [&mut private, &mut public] {
            jwk["key_ops"] = json!(["sign"]);
        }
        let jws = key.sign(&json!({ "alg": "ES256" }).to_string(), "any payload");
        assert_eq!(verify(&private.to_string(), &jws, None), Ok(()));
        assert!(JwsKey::parse(public.to_string().as_bytes()).is_err(), "a public key that only signs");
    }

    #[test]
    fn keys_that_sign_nothing_are_refused() {
        let ec = TestKey::es256().jwk("k");
        let with = |name: &str, value: Value| {
            let mut jwk = ec.clone();
            jwk[name] = value;
            jwk.to_string()
        };
        for jwk in [
            "{}".to_owned(),
            r#"{"kty":"oct"}"#.to_owned(),
            r#"{"kty":"oct","k":"AAAA","use":"enc"}"#.to_owned(),
            with("use", json!("enc")),
            with("x", json!(b64([7; 32]))),
            r#"{"kty":"oct","kty":"oct","k":"AAAA"}"#.to_owned(),
        ] {
            assert!(JwsKey::parse(jwk.as_bytes()).is_err(), "{jwk}");
        }
        // As long as may be, and a byte more.
        let padded = |spaces: usize| JwsKey::parse(format!("{HS256_KEY}{}", " ".repeat(spaces)).as_bytes()).err();
        let room = MAX_JWS - HS256_KEY.len();
        assert_eq!(padded(room), None);
        assert!(padded(room + 1).unwrap().0.contains("larger than 1 MiB"));
        for (length, expected) in
            [(MAX_JWS, TokenError::Malformed("expected three parts")), (MAX_JWS + 1, TokenError::TooLarge)]
        {
            assert_eq!(verify(HS256_KEY, &"a".repeat(length), None), Err(expected));
        }
        let short = r#"{"kty":"oct","k":"AAAA"}"#;
        assert_eq!(verify(short, HS256_JWS, None), Err(TokenError::KeyMismatch), "a secret shorter than its hash");
    }
}
