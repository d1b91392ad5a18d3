//! A set of public keys. (RFC 7517)

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Map, Value};

use super::TokenError;
use super::algorithm::{Algorithm, KeyType};
use super::json::parse_object;
use super::roca;

/// Why a key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwksError(pub String);

/// A validated key set: public, asymmetric, unique `kid`s.
///
/// Keys of kinds that are not used here (another curve, `use: enc`) may be in the set and are left out of it, as RFC
/// 7517 5 asks; a key that should not be in any public set refuses the whole of it.
#[derive(Debug)]
pub struct Jwks {
    by_id: HashMap<String, Key>,
    without_id: Vec<Key>,
}

/// A public key that may check signatures.
pub(super) struct Key {
    key_type: KeyType,
    /// `alg` of the key, where it is written: it is good for nothing else.
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("key_type", &self.key_type).field("only", &self.only).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.key_type == algorithm.key_type() && self.only.is_none_or(|only| only == algorithm)
    }

    pub(super) fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &Vec<u8>) -> bool {
        // The verifiers themselves: the crate's process-wide default panics where two of its features meet.
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm.jws(), &self.key);
        verifier.is_ok_and(|verifier| verifier.verify(signed, signature).is_ok())
    }
}

impl Jwks {
    /// The most that is read: 1 MiB.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Parses and checks a whole set; one bad key refuses the set.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        Self::parse_for(json, Purpose::Jwt)
    }

    /// The keys of a SPIFFE bundle that sign JWT-SVIDs.
    ///
    /// Those with `use: jwt-svid`, each of which must have a `kid`. (SPIFFE Trust Domain and Bundle 4.2)
    pub fn parse_jwt_svid(json: &[u8]) -> Result<Self, JwksError> {
        Self::parse_for(json, Purpose::JwtSvid)
    }

    fn parse_for(json: &[u8], purpose: Purpose) -> Result<Self, JwksError> {
        if json.len() > Self::MAX_BYTES {
            return Err(JwksError("the key set is larger than 1 MiB".to_owned()));
        }
        let mut members = parse_object(json).map_err(|error| JwksError(format!("not a JWK set: {error}")))?;
        let Some(Value::Array(keys)) = members.remove("keys") else {
            return Err(JwksError("not a JWK set: expected a list in `keys`".to_owned()));
        };
        let mut set = Self { by_id: HashMap::new(), without_id: Vec::new() };
        let mut ids = std::collections::HashSet::new();
        for (at, jwk) in keys.iter().enumerate() {
            let refuse = |why: String| JwksError(format!("keys[{at}]: {why}; the whole set is refused"));
            let jwk = jwk.as_object().ok_or_else(|| refuse("expected an object".to_owned()))?;
            let id = member(jwk, "kid").map_err(refuse)?;
            if let Some(id) = id.filter(|id| !ids.insert((*id).to_owned())) {
                return Err(refuse(format!("the `kid` {id:?} is used twice")));
            }
            match (key(jwk, purpose).map_err(refuse)?, id) {
                (Some(_), None) if purpose == Purpose::JwtSvid => {
                    return Err(refuse("a key for JWT-SVIDs has no `kid`".to_owned()));
                }
                (Some(key), Some(id)) => {
                    set.by_id.insert(id.to_owned(), key);
                }
                (Some(key), None) => set.without_id.push(key),
                (None, _) => {}
            }
        }
        if set.by_id.is_empty() && set.without_id.is_empty() {
            return Err(JwksError(
                "the set holds no key for signatures (RSA from 2048 bits, P-256, P-384 or Ed25519)".to_owned(),
            ));
        }
        Ok(set)
    }

    /// The key that a token means. Without a `kid` there must be no choice.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, TokenError> {
        match id {
            Some(id) => {
                let key = self.by_id.get(id).ok_or(TokenError::UnknownKey)?;
                if key.fits(algorithm) { Ok(key) } else { Err(TokenError::KeyMismatch) }
            }
            None => {
                let mut fitting = self.by_id.values().chain(&self.without_id).filter(|key| key.fits(algorithm));
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => Ok(key),
                    _ => Err(TokenError::UnknownKey),
                }
            }
        }
    }
}

/// A member that must be a string if it is there.
fn member<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

/// Members of private and symmetric keys. (RFC 7518 6)
pub(super) const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What the keys of a set sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Jwt,
    JwtSvid,
}

/// A key, or `None` if it is a good one that is not for signatures of such tokens.
pub(super) fn key(jwk: &Map<String, Value>, purpose: Purpose) -> Result<Option<Key>, String> {
    if let Some(name) = PRIVATE.into_iter().find(|name| jwk.contains_key(*name)) {
        return Err(format!("`{name}` is private: a published set holds public keys only; replace this key now"));
    }
    let text = |name: &str| member(jwk, name)?.ok_or_else(|| format!("`{name}` is missing"));
    let bytes = |name: &str| {
        URL_SAFE_NO_PAD.decode(text(name)?).map_err(|_| format!("`{name}` is not base64url without padding"))
    };
    let (key_type, key) = match (text("kty")?, member(jwk, "crv")?) {
        ("oct", _) => return Err("it is symmetric: whoever checks tokens with it can also make them".to_owned()),
        ("RSA", _) => (KeyType::Rsa, rsa(&bytes("n")?, &bytes("e")?)?),
        ("EC", Some("P-256")) => (KeyType::P256, ec(&bytes("x")?, &bytes("y")?, 32)?),
        ("EC", Some("P-384")) => (KeyType::P384, ec(&bytes("x")?, &bytes("y")?, 48)?),
        ("OKP", Some("Ed25519")) => (KeyType::Ed25519, ed25519(&bytes("x")?)?),
        ("EC" | "OKP", None) => return Err("`crv` is missing".to_owned()),
        _ => return Ok(None),
    };
    let for_signatures = may_verify(jwk, purpose)?;
    let only = match member(jwk, "alg")? {
        None => None,
        Some(name) => match Algorithm::parse(name) {
            Some(algorithm) if algorithm.key_type() != key_type => {
                return Err(format!("its `alg` {name} is for another type of key"));
            }
            Some(algorithm) => Some(algorithm),
            // For something else: RSA-OAEP, say.
            None => return Ok(None),
        },
    };
    Ok(for_signatures.then_some(Key { key_type, only, key }))
}

/// Whether `use` and `key_ops` let a key check signatures.
pub(super) fn may_verify(jwk: &Map<String, Value>, purpose: Purpose) -> Result<bool, String> {
    let usage = member(jwk, "use")?;
    let for_signatures = match purpose {
        Purpose::Jwt => usage.is_none_or(|usage| usage == "sig"),
        Purpose::JwtSvid => usage == Some("jwt-svid"),
    };
    let operation = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => return Err("`key_ops` is not a list".to_owned()),
    };
    Ok(for_signatures && operation)
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<DecodingKey, String> {
    let bits = match modulus.iter().position(|byte| *byte != 0) {
        Some(first) => {
            let significant = modulus.get(first..).unwrap_or_default();
            significant.len() * 8 - significant.first().map_or(0, |byte| byte.leading_zeros() as usize)
        }
        None => 0,
    };
    if !(2048..=8192).contains(&bits) {
        return Err(format!("an RSA key has {bits} bits: expected 2048 to 8192"));
    }
    let small = exponent.len() <= 4 && !exponent.is_empty();
    let value = exponent.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    if !small || value < 3 || value.is_multiple_of(2) || modulus.last().is_some_and(|byte| byte.is_multiple_of(2)) {
        return Err("an RSA key has an exponent or modulus that makes no sense".to_owned());
    }
    if roca::is_weak(modulus) {
        return Err("an RSA key comes from a generator whose keys can be factored (ROCA, CVE-2017-15361)".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// Coordinates at full length, of a point on the curve. (RFC 7518 6.2.1.2)
fn ec(x: &[u8], y: &[u8], size: usize) -> Result<DecodingKey, String> {
    if x.len() != size || y.len() != size {
        return Err(format!("`x` and `y` must be {size} bytes each"));
    }
    let point = [&[4_u8], x, y].concat();
    let parsed = if size == 32 {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
    } else {
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point)
    };
    parsed.map_err(|_| "`x` and `y` are no point on the curve".to_owned())?;
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519(x: &[u8]) -> Result<DecodingKey, String> {
    ParsedPublicKey::new(&ED25519, x).map_err(|_| "`x` is no Ed25519 key".to_owned())?;
    Ok(DecodingKey::from_ed_der(x))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testkit::{TestKey, b64};
    use super::*;

    #[test]
    fn rsa_keys_are_of_a_sound_size_and_form() {
        // The highest bit, then ones: odd, and no power of 65537.
        let modulus = |bits: usize| {
            let mut bytes = vec![0xff; bits.div_ceil(8)];
            bytes[0] >>= bytes.len() * 8 - bits;
            bytes
        };
        let said = |modulus: &[u8], exponent: &[u8]| rsa(modulus, exponent).err().unwrap_or_default();
        for (bits, expected) in [
            (2047, "an RSA key has 2047 bits"),
            (2048, ""),
            (2049, ""),
            (8191, ""),
            (8192, ""),
            (8193, "an RSA key has 8193 bits"),
        ] {
            let error = said(&modulus(bits), &[1, 0, 1]);
            assert!(error.starts_with(expected) && error.is_empty() == expected.is_empty(), "{bits}: {error}");
            // Zeros in front are no bits.
            assert_eq!(said(&[&[0, 0], &*modulus(bits)].concat(), &[1, 0, 1]), error);
        }
        assert!(said(&[], &[3]).contains("has 0 bits") && said(&[0; 300], &[3]).contains("has 0 bits"));
        let mut even = modulus(2048);
        *even.last_mut().unwrap() = 0xfe;
        assert!(said(&even, &[3]).contains("makes no sense"));
        for (exponent, sound) in [
            (&[][..], false),
            (&[0], false),
            (&[1], false),
            (&[2], false),
            (&[3], true),
            (&[4], false),
            (&[0, 0, 0, 3], true),
            (&[1, 0, 0, 1], true),
            (&[1, 0, 0, 0], false),
            (&[0, 0, 0, 0, 3], false),
        ] {
            assert_eq!(rsa(&modulus(2048), exponent).is_ok(), sound, "{exponent:?}");
        }
    }

    #[test]
    fn a_key_is_found_by_name_or_by_being_the_only_one() {
        let (first, second, other) =
            (TestKey::es256().jwk("a"), TestKey::es256().jwk("b"), TestKey::ed25519().jwk("c"));
        let unnamed = |jwk: &Value| {
            let mut jwk = jwk.clone();
            jwk.as_object_mut().unwrap().remove("kid");
            jwk
        };
        let bound = |alg: &str| {
            let mut jwk = first.clone();
            jwk["alg"] = json!(alg);
            jwk
        };
        let (unknown, mismatch) = (Err(TokenError::UnknownKey), Err(TokenError::KeyMismatch));
        for (keys, id, algorithm, expected) in [
            (vec![first.clone()], Some("a"), Algorithm::Es256, Ok(())),
            (vec![first.clone()], Some("b"), Algorithm::Es256, unknown),
            (vec![first.clone()], Some("a"), Algorithm::EdDsa, mismatch),
            (vec![first.clone()], None, Algorithm::Es256, Ok(())),
            (vec![first.clone()], None, Algorithm::EdDsa, unknown),
            (vec![first.clone(), other.clone()], None, Algorithm::Es256, Ok(())),
            (vec![first.clone(), second.clone()], None, Algorithm::Es256, unknown),
            (vec![first.clone(), unnamed(&second)], None, Algorithm::Es256, unknown),
            (vec![unnamed(&first)], None, Algorithm::Es256, Ok(())),
            (vec![unnamed(&first)], Some("a"), Algorithm::Es256, unknown),
            (vec![bound("ES256")], None, Algorithm::Es256, Ok(())),
        ] {
            let text = json!({ "keys": keys }).to_string();
            let set = Jwks::parse(text.as_bytes()).unwrap();
            assert_eq!(set.find(id, algorithm).map(drop), expected, "{id:?} {algorithm:?} in {text}");
        }
    }

    #[test]
    fn a_set_is_read_to_the_last_member() {
        let ec = TestKey::es256().jwk("a");
        let with = |name: &str, value: Value| {
            let mut jwk = ec.clone();
            jwk[name] = value;
            json!({ "keys": [jwk] }).to_string()
        };
        let nothing = "no key for signatures";
        for (text, expected) in [
            ("[]".to_owned(), "not a JWK set"),
            ("{}".to_owned(), "expected a list in `keys`"),
            (json!({ "keys": {} }).to_string(), "expected a list in `keys`"),
            (json!({ "keys": [7] }).to_string(), "keys[0]: expected an object"),
            (json!({ "keys": [] }).to_string(), nothing),
            (json!({ "keys": [ec, ec] }).to_string(), "keys[1]: the `kid` \"a\" is used twice"),
            (with("kid", json!(7)), "`kid` is not a string"),
            (with("kty", json!(7)), "`kty` is not a string"),
            (with("kty", json!("oct")), "symmetric"),
            (with("crv", json!("P-521")), nothing),
            (with("crv", json!("P-384")), "must be 48 bytes each"),
            (with("x", json!(b64([7; 31]))), "must be 32 bytes each"),
            (with("y", json!(b64([7; 33]))), "must be 32 bytes each"),
            (with("y", json!(b64([7; 32]))), "no point on the curve"),
            (with("y", json!("=")), "`y` is not base64url"),
            (with("d", json!("AA")), "`d` is private"),
            (with("use", json!("sig")), ""),
            (with("use", json!("enc")), nothing),
            (with("use", json!("jwt-svid")), nothing),
            (with("key_ops", json!(["sign", "verify"])), ""),
            (with("key_ops", json!(["sign"])), nothing),
            (with("key_ops", json!("verify")), "`key_ops` is not a list"),
            (with("alg", json!("ES256")), ""),
            (with("alg", json!("ES384")), "for another type of key"),
            (with("alg", json!("ECDH-ES")), nothing),
        ] {
            let said = Jwks::parse(text.as_bytes()).map(drop).map_err(|error| error.0);
            let error = said.clone().err().unwrap_or_default();
            assert!(error.contains(expected) && said.is_ok() == expected.is_empty(), "{text}: {said:?}");
        }
        let padded = |length: usize| {
            let text = with("use", json!("sig"));
            Jwks::parse(format!("{text}{}", " ".repeat(length - text.len())).as_bytes())
        };
        assert!(padded(Jwks::MAX_BYTES).is_ok());
        assert!(padded(Jwks::MAX_BYTES + 1).unwrap_err().0.contains("larger than 1 MiB"));
        let unnamed =
            json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "jwt-svid", "x": ec["x"], "y": ec["y"] }] });
        assert!(Jwks::parse_jwt_svid(unnamed.to_string().as_bytes()).unwrap_err().0.contains("has no `kid`"));
        assert!(Jwks::parse_jwt_svid(with("use", json!("jwt-svid")).as_bytes()).is_ok());
    }
}
