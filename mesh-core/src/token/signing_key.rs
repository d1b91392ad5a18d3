//! A private key that signs tokens.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::json::parse_object;
use crate::identity::{PrivateKey, SignatureScheme, Signer as _};

/// A key that signs tokens, and its name.
pub(super) struct SigningKey {
    pair: PrivateKey,
    algorithm: Algorithm,
    scheme: SignatureScheme,
    id: String,
}

impl SigningKey {
    pub(super) fn parse(text: &[u8], id: Option<&str>) -> Result<Self, String> {
        let (pair, named) = match text.trim_ascii_start().first() {
            Some(b'{') => from_jwk(text)?,
            _ => (PrivateKey::from_pem(text).map_err(|error| format!("is no private key: {error}"))?, None),
        };
        let (algorithm, scheme) = [
            (Algorithm::Es256, SignatureScheme::ECDSA_P256_SHA256),
            (Algorithm::Es384, SignatureScheme::ECDSA_P384_SHA384),
            (Algorithm::EdDsa, SignatureScheme::ED25519),
            (Algorithm::Rs256, SignatureScheme::RSA_PKCS1_SHA256),
        ]
        .into_iter()
        .find(|(_, scheme)| pair.schemes().contains(scheme))
        .ok_or("is of a type that signs no tokens")?;
        let id = id.map(str::to_owned).or(named);
        let id = match id {
            Some(id) => id,
            None => thumbprint(pair.public_key())?,
        };
        Ok(Self { pair, algorithm, scheme, id })
    }

    /// The name of its algorithm.
    pub(super) fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Its `kid`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A signature as JWS has it.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.pair.sign(self.scheme, message).map_err(|error| format!("does not sign: {error}"))?;
        match self.algorithm {
            Algorithm::Es256 => fixed(&signature, 32).ok_or_else(|| "made a signature of another form".to_owned()),
            Algorithm::Es384 => fixed(&signature, 48).ok_or_else(|| "made a signature of another form".to_owned()),
            _ => Ok(signature),
        }
    }
}

/// The two numbers of an ECDSA signature at full length, as JWS has them, from DER. (RFC 7518 3.4)
fn fixed(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let integer = |rest: &mut &[u8]| -> Option<Vec<u8>> {
        let [0x02, length, tail @ ..] = *rest else { return None };
        let (number, after) = tail.split_at_checked(usize::from(*length))?;
        *rest = after;
        let first = number.iter().position(|byte| *byte != 0)?;
        let number = number.get(first..)?;
        let padding = size.checked_sub(number.len())?;
        Some([&vec![0; padding][..], number].concat())
    };
    let [0x30, length, rest @ ..] = der else { return None };
    let mut rest = (usize::from(*length) == rest.len()).then_some(rest)?;
    let both = [integer(&mut rest)?, integer(&mut rest)?].concat();
    rest.is_empty().then_some(both)
}

/// A private JWK of an elliptic curve, and its `kid`. (RFC 7518 6.2.2, RFC 8037 2)
fn from_jwk(text: &[u8]) -> Result<(PrivateKey, Option<String>), String> {
    let mut members = parse_object(text).map_err(|why| format!("is no JWK: {why}"))?;
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Some(Zeroizing::new(text)),
        _ => None,
    };
    let (curve, secret, id) = (text("crv"), text("d"), text("kid"));
    let secret = secret.ok_or("is a JWK without `d`: expected a private one")?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&*secret).map_err(|_| "has a `d` that is not base64url")?);
    // PKCS#8 around the secret: RFC 5958, 5915, 8410.
    let (head, size): (&[u8], usize) = match curve.as_deref().map(String::as_str) {
        Some("P-256") => (&P256, 32),
        Some("P-384") => (&P384, 48),
        Some("Ed25519") => (&ED25519, 32),
        _ => return Err("is a JWK of a type that is not read: expected P-256, P-384 or Ed25519, or PEM".to_owned()),
    };
    if secret.len() != size {
        return Err(format!("has a `d` of {} bytes: expected {size}", secret.len()));
    }
    let der = Zeroizing::new([head, &secret[..]].concat());
    let key = PrivateKey::from_pkcs8(&der).map_err(|error| format!("is no private key: {error}"))?;
    Ok((key, id.map(|id| (*id).clone())))
}

/// `PrivateKeyInfo` up to the secret number.
const P256: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];
const P384: [u8; 32] = [
    0x30, 0x4e, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x04, 0x37, 0x30, 0x35, 0x02, 0x01, 0x01, 0x04, 0x30,
];
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The name of a key that has none: the hash of its public half. (RFC 7638)
fn thumbprint(public_key: &[u8]) -> Result<String, String> {
    let (_, info) = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| "has no public half")?;
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // In the order of their names, as the hash wants them.
    let members = match info.parsed() {
        Ok(PublicKey::EC(point)) => {
            let (curve, size) = if point.key_size() == 256 { ("P-256", 32) } else { ("P-384", 48) };
            let (x, y) =
                point.data().get(1..).and_then(|both| both.split_at_checked(size)).ok_or("has no public half")?;
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, b64(x), b64(y))
        }
        Ok(PublicKey::RSA(key)) => {
            let plain = |number: &[u8]| b64(number.strip_prefix(&[0]).unwrap_or(number));
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, plain(key.exponent), plain(key.modulus))
        }
        _ => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(&info.subject_public_key.data)),
    };
    Ok(b64(digest(&SHA256, members.as_bytes()).as_ref()))
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair as _;

    use super::super::testkit::{TestKey, b64};
    use super::*;

    /// RFC 8037 appendix A.1 and A.3.
    pub(crate) const RFC8037: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 7515 appendix A.3.
    pub(crate) const RFC7515: &str = r#"{"kty":"EC","crv":"P-256","kid":"named","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

    #[test]
    fn every_kind_of_key_signs_under_its_thumbprint() {
        // RFC 8037 A.3; RFC 7638 has only RSA.
        assert_eq!(
            SigningKey::parse(RFC8037.as_bytes(), None).unwrap().id,
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(SigningKey::parse(RFC7515.as_bytes(), None).unwrap().id, "named");
        assert_eq!(SigningKey::parse(RFC7515.as_bytes(), Some("mine")).unwrap().id, "mine");
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
            let key = SigningKey::parse(pem.as_bytes(), None).unwrap();
            assert_eq!(key.id.len(), 43);
            let lengths: std::collections::BTreeSet<_> = (0..50).map(|_| key.sign(b"m").unwrap().len()).collect();
            assert_eq!(lengths.len(), 1, "a signature of fixed length");
        }
    }

    /// RFC 7638 3: the hash of the members that every such key has, in the order of their names.
    #[test]
    fn a_thumbprint_is_that_of_the_public_jwk() {
        let of = |jwk: &Value, names: &[&str]| {
            let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":{}", jwk[name])).collect();
            URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes()))
        };
        let jwk: Value = serde_json::from_str(RFC7515).unwrap();
        let unnamed = RFC7515.replace(r#""kid":"named","#, "");
        let key = SigningKey::parse(unnamed.as_bytes(), None).unwrap();
        assert_eq!(key.id(), of(&jwk, &["crv", "kty", "x", "y"]));

        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(48);
        let jwk = serde_json::json!({ "crv": "P-384", "kty": "EC", "x": b64(x), "y": b64(y) });
        let key = SigningKey::parse(pair.serialize_pem().as_bytes(), None).unwrap();
        assert_eq!((key.algorithm(), key.id()), ("ES384", &*of(&jwk, &["crv", "kty", "x", "y"])));

        let rsa = TestKey::rsa();
        let TestKey::Rsa(pair) = &rsa else { panic!("an RSA key") };
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        assert_eq!(thumbprint(der.as_ref()).unwrap(), of(&rsa.jwk("k"), &["e", "kty", "n"]));
        assert_eq!(thumbprint(b"junk"), Err("has no public half".to_owned()));
    }

    #[test]
    fn bad_keys_are_refused_without_showing_them() {
        let swap = |from: &str, to: &str| RFC7515.replacen(from, to, 1);
        for (text, why) in [
            (String::new(), "no private key"),
            (swap("\"d\":", "\"dd\":"), "without `d`"),
            (swap("jpsQ", "jps"), "`d`"),
            (swap("P-256", "P-521"), "not read"),
            (swap("P-256", "P-384"), "expected 48"),
            (TestKey::es256().jwk("k").to_string(), "without `d`"),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), "without `d`"),
        ] {
            let error = SigningKey::parse(text.as_bytes(), None).err().unwrap();
            assert!(error.contains(why) && !error.contains("jps") && !error.contains("c2V"), "{error}");
        }
    }

    #[test]
    fn der_signatures_become_two_numbers_of_full_length() {
        let short = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0x80];
        let both = fixed(&short, 2).unwrap();
        assert_eq!(both, [0, 5, 0, 0x80]);
        for bad in [&short[..8], &[0x30, 0x00], &[0x30, 0x03, 0x02, 0x01, 0x05], &[0x31, 0x00], &[]] {
            assert_eq!(fixed(bad, 2), None);
        }
        assert_eq!(
            fixed(&[0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x01], 2),
            None,
            "zero is no number of a signature"
        );
        assert_eq!(fixed(&[0x30, 0x08, 0x02, 0x03, 1, 2, 3, 0x02, 0x01, 1], 2), None);
    }
}
