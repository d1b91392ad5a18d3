//! A private key in this process's own memory.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use zeroize::Zeroize;

use super::{KeyError, SignatureScheme, Signer};

/// ECDSA P-256 or P-384, Ed25519, or RSA of 2,048 to 8,192 bits.
///
/// The bytes that it was read from are wiped, aws-lc wipes its own copy when the key is dropped, and `Debug` shows the
/// kind alone.
pub struct PrivateKey {
    pair: Pair,
    schemes: &'static [SignatureScheme],
    public_key: Vec<u8>,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

const P256: &[SignatureScheme] = &[SignatureScheme::ECDSA_P256_SHA256];
const P384: &[SignatureScheme] = &[SignatureScheme::ECDSA_P384_SHA384];
const ED25519: &[SignatureScheme] = &[SignatureScheme::ED25519];
/// PSS for TLS 1.3; PKCS#1 is only ever negotiated by TLS 1.2. (RFC 8446 4.2.3)
const RSA: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

impl PrivateKey {
    /// Reads the one private key in a PEM file.
    ///
    /// PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// A file with two keys is refused: which of them is meant would be a guess.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let mut keys = PrivateKeyDer::pem_slice_iter(pem);
        let mut der = match keys.next() {
            Some(Ok(der)) => der,
            Some(Err(error)) => return Err(pem_error(&error)),
            None if pem.windows(ENCRYPTED.len()).any(|w| w == ENCRYPTED) => {
                return Err(KeyError("the private key is encrypted; expected an unencrypted one (PKCS#8)".into()));
            }
            None => return Err(KeyError("no private key in the PEM text; expected `BEGIN PRIVATE KEY`".into())),
        };
        let key = Self::from_der(&der);
        der.zeroize();
        if let Some(second) = keys.next() {
            if let Ok(mut second) = second {
                second.zeroize();
            }
            return Err(KeyError("more than one private key in the PEM text; expected exactly one".into()));
        }
        key
    }

    /// Reads a PKCS#8 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).ok();
        Self::from_ecdsa(ecdsa)
            .or_else(|| Ed25519KeyPair::from_pkcs8(der).ok().map(Self::from_ed25519))
            .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Self::from_rsa))
            .unwrap_or_else(|| Err(unsupported()))
    }

    /// A fresh ECDSA P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        let made = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        let pair = made.map_err(|_| KeyError("the random number generator failed".into()))?;
        Self::new(Pair::Ecdsa(pair), P256)
    }

    fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        match der {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(der) => {
                Self::from_ecdsa(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der.secret_sec1_der()).ok())
                    .unwrap_or_else(|| Err(unsupported()))
            }
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).map_or_else(|_| Err(unsupported()), Self::from_rsa)
            }
            _ => Err(unsupported()),
        }
    }

    fn from_ecdsa(
        read: impl Fn(&'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>,
    ) -> Option<Result<Self, KeyError>> {
        let curves =
            [(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, P256), (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, P384)];
        curves.into_iter().find_map(|(curve, schemes)| Some(Self::new(Pair::Ecdsa(read(curve)?), schemes)))
    }

    fn from_ed25519(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        Self::new(Pair::Ed25519(pair), ED25519)
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        Self::new(Pair::Rsa(pair), RSA)
    }

    fn new(pair: Pair, schemes: &'static [SignatureScheme]) -> Result<Self, KeyError> {
        let spki: Result<PublicKeyX509Der<'_>, _> = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
        };
        let public_key = spki.map_err(|_| KeyError("the public key cannot be encoded".into()))?.as_ref().to_vec();
        Ok(Self { pair, schemes, public_key })
    }

    fn sign_rsa(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| failed())?;
        Ok(signature)
    }
}

impl Signer for PrivateKey {
    fn schemes(&self) -> &[SignatureScheme] {
        self.schemes
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if !self.schemes.contains(&scheme) {
            return Err(KeyError(format!("{self:?} cannot sign with scheme {:#06x}", scheme.0)));
        }
        match &self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(&SystemRandom::new(), message).map(|s| s.as_ref().to_vec()).map_err(|_| failed())
            }
            Pair::Ed25519(pair) => pair.try_sign(message).map(|s| s.as_ref().to_vec()).map_err(|_| failed()),
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match scheme {
                    SignatureScheme::RSA_PSS_SHA256 => &signature::RSA_PSS_SHA256,
                    SignatureScheme::RSA_PSS_SHA384 => &signature::RSA_PSS_SHA384,
                    SignatureScheme::RSA_PSS_SHA512 => &signature::RSA_PSS_SHA512,
                    SignatureScheme::RSA_PKCS1_SHA256 => &signature::RSA_PKCS1_SHA256,
                    SignatureScheme::RSA_PKCS1_SHA384 => &signature::RSA_PKCS1_SHA384,
                    _ => &signature::RSA_PKCS1_SHA512,
                };
                Self::sign_rsa(pair, encoding, message)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (&self.pair, self.schemes) {
            (Pair::Ecdsa(_), P256) => "ECDSA P-256",
            (Pair::Ecdsa(_), _) => "ECDSA P-384",
            (Pair::Ed25519(_), _) => "Ed25519",
            (Pair::Rsa(_), _) => "RSA",
        };
        write!(f, "PrivateKey({kind})")
    }
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

fn unsupported() -> KeyError {
    KeyError("the private key is damaged or of an unsupported kind; expected ECDSA P-256 or P-384, Ed25519, or RSA of 2,048 to 8,192 bits".into())
}

fn failed() -> KeyError {
    KeyError("signing failed".into())
}

/// The parser's own messages quote lines of the text, which may be key material.
fn pem_error(error: &PemError) -> KeyError {
    let what = match error {
        PemError::MissingSectionEnd { .. } => "it has no END line",
        PemError::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        PemError::Base64Decode(_) => "its base64 is malformed",
        _ => "it is malformed",
    };
    KeyError(format!("the PEM text of the private key cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
    use rcgen::KeyPair as Generated;

    use super::*;

    /// Made with `openssl ecparam -genkey` and `openssl genrsa -traditional`, for these tests alone.
    const SEC1: &str = include_str!("testdata/sec1.pem");
    const PKCS1: &str = include_str!("testdata/pkcs1.pem");

    fn verifier(scheme: SignatureScheme) -> &'static dyn VerificationAlgorithm {
        match scheme {
            SignatureScheme::ECDSA_P256_SHA256 => &signature::ECDSA_P256_SHA256_ASN1,
            SignatureScheme::ECDSA_P384_SHA384 => &signature::ECDSA_P384_SHA384_ASN1,
            SignatureScheme::ED25519 => &signature::ED25519,
            SignatureScheme::RSA_PSS_SHA256 => &signature::RSA_PSS_2048_8192_SHA256,
            SignatureScheme::RSA_PSS_SHA384 => &signature::RSA_PSS_2048_8192_SHA384,
            SignatureScheme::RSA_PSS_SHA512 => &signature::RSA_PSS_2048_8192_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_signs_what_its_public_key_verifies() {
        let pkcs8 = |algorithm| Generated::generate_for(algorithm).unwrap().serialize_pem();
        let table = [
            (pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256), "PrivateKey(ECDSA P-256)", P256),
            (pkcs8(&rcgen::PKCS_ECDSA_P384_SHA384), "PrivateKey(ECDSA P-384)", P384),
            (pkcs8(&rcgen::PKCS_ED25519), "PrivateKey(Ed25519)", ED25519),
            (SEC1.to_owned(), "PrivateKey(ECDSA P-256)", P256),
            (PKCS1.to_owned(), "PrivateKey(RSA)", RSA),
        ];
        for (pem, debug, schemes) in table {
            let key = PrivateKey::from_pem(pem.as_bytes()).unwrap();
            assert_eq!(format!("{key:?}"), debug);
            assert_eq!(key.schemes(), schemes);
            for &scheme in schemes {
                let signed = key.sign(scheme, b"message").unwrap();
                let public = UnparsedPublicKey::new(verifier(scheme), key.public_key());
                public.verify(b"message", &signed).unwrap();
                assert!(key.sign(SignatureScheme(0x0201), b"message").is_err(), "sha1 must be refused");
            }
        }
    }

    #[test]
    fn bad_keys_are_refused_without_showing_them() {
        let good = Generated::generate().unwrap().serialize_pem();
        let weak = include_str!("testdata/rsa1024.pem");
        let p521 = include_str!("testdata/p521.pem");
        let table = [
            (String::new(), "no private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(), "no private key"),
            (format!("{good}{good}"), "more than one"),
            (good.replace("-----END PRIVATE KEY-----", ""), "no END line"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".into(), "encrypted"),
            ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n".into(), "damaged"),
            ("-----BEGIN PRIVATE KEY-----\n!secret!\n-----END PRIVATE KEY-----\n".into(), "base64"),
            (weak.into(), "unsupported"),
            (p521.into(), "unsupported"),
        ];
        for (pem, expected) in table {
            let error = PrivateKey::from_pem(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} for {pem}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
