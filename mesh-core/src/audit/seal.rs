//! Signatures on the head of the chain, by which somebody vouches for all records before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::canonical::canonical;
use super::chain::sha256_hex;
use crate::identity::{
    Identity, KeyError, PeerRole, SignatureScheme, Signer, TrustBundleSet, leaf_public_key, verify_svid,
};
use crate::snapshot::Snapshot;
use crate::token::parse_object;

/// What is signed: this, and the SHA-256 of the canonical record without `sig` and `hash`.
///
/// An SVID's key also signs TLS handshakes. These 56 bytes are nothing that TLS signs: its 1.3 form begins with 64
/// spaces, its 1.2 form is longer than 64 bytes. (RFC 8446 4.4.3, RFC 5246 7.4.3)
const TAG: &[u8; 24] = b"mesh.audit.checkpoint.v2";

const ALGORITHMS: [(SignatureScheme, &str, &dyn VerificationAlgorithm); 6] = [
    (SignatureScheme::ECDSA_P256_SHA256, "ecdsa_secp256r1_sha256", &signature::ECDSA_P256_SHA256_ASN1),
    (SignatureScheme::ECDSA_P384_SHA384, "ecdsa_secp384r1_sha384", &signature::ECDSA_P384_SHA384_ASN1),
    (SignatureScheme::ED25519, "ed25519", &signature::ED25519),
    (SignatureScheme::RSA_PSS_SHA256, "rsa_pss_rsae_sha256", &signature::RSA_PSS_2048_8192_SHA256),
    (SignatureScheme::RSA_PSS_SHA384, "rsa_pss_rsae_sha384", &signature::RSA_PSS_2048_8192_SHA384),
    (SignatureScheme::RSA_PSS_SHA512, "rsa_pss_rsae_sha512", &signature::RSA_PSS_2048_8192_SHA512),
];

/// DER SubjectPublicKeyInfo up to the key itself. (RFC 5480 2.1.1, RFC 8410 4)
const P256_SPKI: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

fn message(record: &Map<String, Value>) -> Option<Vec<u8>> {
    Some([TAG.as_slice(), digest(&SHA256, canonical(record)?.as_bytes()).as_ref()].concat())
}

/// Who signs: a key of its own, or else the SVID in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Sealer {
    pub(super) key: Option<Arc<dyn Signer>>,
    pub(super) identity: Option<Snapshot<Identity>>,
}

impl Sealer {
    /// Adds `alg`, `sig` and `key` or `cert`. `false`: there is nobody to sign.
    pub(super) fn seal(&self, record: &mut Map<String, Value>) -> Result<bool, KeyError> {
        let svid = self.identity.as_ref().and_then(|identity| identity.peek().svid().cloned());
        let signer = match (&self.key, &svid) {
            (Some(key), _) => key,
            (None, Some(svid)) => svid.key(),
            (None, None) => return Ok(false),
        };
        let known = |scheme: &SignatureScheme| ALGORITHMS.iter().find(|(known, _, _)| known == scheme);
        let Some((scheme, name, _)) = signer.schemes().iter().find_map(known) else {
            return Err(KeyError("the key has no signature scheme that audit records can carry".to_owned()));
        };
        record.insert("alg".to_owned(), (*name).into());
        match (&self.key, &svid) {
            (None, Some(svid)) => {
                let chain = svid.chain().iter().map(|der| STANDARD.encode(der)).map(Value::from);
                record.insert("cert".to_owned(), chain.collect());
            }
            _ => {
                record.insert("key".to_owned(), sha256_hex(signer.public_key()).into());
            }
        }
        let unspellable = || KeyError("the record has no canonical form".to_owned());
        let signed = signer.sign(*scheme, &message(record).ok_or_else(unspellable)?)?;
        record.insert("sig".to_owned(), STANDARD.encode(signed).into());
        Ok(true)
    }
}

/// Whose signatures count when a chain is verified.
#[derive(Debug, Clone, Default)]
pub struct AuditTrust {
    /// By the SHA-256 of their DER SubjectPublicKeyInfo.
    keys: BTreeMap<String, Vec<u8>>,
    bundles: TrustBundleSet,
}

impl AuditTrust {
    /// Also takes signatures of this key: DER SubjectPublicKeyInfo.
    pub fn add_key(&mut self, spki: Vec<u8>) {
        self.keys.insert(sha256_hex(&spki), spki);
    }

    /// Also takes signatures of this key.
    ///
    /// A JWK of P-256 or Ed25519. (RFC 7517, RFC 8037 2)
    pub fn add_jwk(&mut self, jwk: &[u8]) -> Result<(), String> {
        let jwk = parse_object(jwk)?;
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        let bytes = |name: &str| match URL_SAFE_NO_PAD.decode(text(name)) {
            Ok(bytes) if bytes.len() == 32 => Ok(bytes),
            _ => Err(format!("`{name}` is not 32 bytes in base64url")),
        };
        let spki = match (text("kty"), text("crv")) {
            ("EC", "P-256") => [P256_SPKI, &bytes("x")?, &bytes("y")?].concat(),
            ("OKP", "Ed25519") => [ED25519_SPKI, &bytes("x")?].concat(),
            _ => return Err("expected a JWK of kty EC, crv P-256, or of kty OKP, crv Ed25519".to_owned()),
        };
        self.add_key(spki);
        Ok(())
    }

    /// Also takes signatures of SVIDs that these bundles vouched for when they signed.
    pub fn set_bundles(&mut self, bundles: TrustBundleSet) {
        self.bundles = bundles;
    }

    /// Whether anybody is trusted at all.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.bundles.iter().next().is_none()
    }

    /// Whether somebody who is trusted signed `record`, which is without `hash`; or a stable word of what is wrong.
    ///
    /// A signature by an SVID that nobody was asked about is only checked against itself, and is `false`.
    pub(super) fn judge(&self, record: &Map<String, Value>) -> Result<bool, &'static str> {
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let (Some(alg), Some(sig)) = (text("alg"), text("sig")) else { return Err("unsigned") };
        let (key, trusted) = match (text("key"), record.get("cert")) {
            (Some(fingerprint), None) => match self.keys.get(fingerprint) {
                Some(key) => (key.clone(), true),
                None if self.is_empty() => return Ok(false),
                None => return Err("unknown_key"),
            },
            (None, Some(cert)) => self.certified(cert, text("service"), text("time"))?,
            _ => return Err("unsigned"),
        };
        let Some((_, _, algorithm)) = ALGORITHMS.iter().find(|(_, name, _)| *name == alg) else {
            return Err("bad_signature");
        };
        let mut unsigned = record.clone();
        unsigned.remove("sig");
        let (Some(message), Ok(sig)) = (message(&unsigned), STANDARD.decode(sig)) else { return Err("bad_signature") };
        UnparsedPublicKey::new(*algorithm, key).verify(&message, &sig).map_err(|_| "bad_signature")?;
        Ok(trusted)
    }

    /// The key of the SVID that signed, and whether a bundle vouches for it at the time of the record.
    fn certified(
        &self,
        chain: &Value,
        service: Option<&str>,
        time: Option<&str>,
    ) -> Result<(Vec<u8>, bool), &'static str> {
        let decode = |der: &Value| STANDARD.decode(der.as_str()?).ok();
        let chain: Option<Vec<Vec<u8>>> = chain.as_array().and_then(|chain| chain.iter().map(decode).collect());
        let chain = chain.filter(|chain| !chain.is_empty()).ok_or("bad_certificate")?;
        let key = chain.first().and_then(|leaf| leaf_public_key(leaf).ok()).ok_or("bad_certificate")?;
        if self.is_empty() {
            return Ok((key, false));
        }
        let time = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok()).ok_or("bad_certificate")?;
        let svid = verify_svid(&chain, &self.bundles, PeerRole::Server, SystemTime::from(time))
            .map_err(|_| "untrusted_certificate")?;
        if service != Some(svid.id.as_str()) {
            return Err("other_identity");
        }
        Ok((key, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PrivateKey;

    #[test]
    fn a_jwk_is_the_same_key_as_its_der() {
        for (algorithm, from) in [(&rcgen::PKCS_ECDSA_P256_SHA256, 27), (&rcgen::PKCS_ED25519, 12)] {
            let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
            let key = PrivateKey::from_pem(pem.as_bytes()).unwrap();
            let raw = &key.public_key()[from..];
            let part = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
            let jwk = match raw.len() {
                64 => serde_json::json!({ "kty": "EC", "crv": "P-256", "x": part(&raw[..32]), "y": part(&raw[32..]) }),
                _ => serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": part(raw) }),
            };
            let (mut by_der, mut by_jwk) = (AuditTrust::default(), AuditTrust::default());
            by_der.add_key(key.public_key().to_vec());
            by_jwk.add_jwk(jwk.to_string().as_bytes()).unwrap();
            assert_eq!(by_der.keys, by_jwk.keys);
        }
        for jwk in [r#"{"kty":"EC","crv":"P-384"}"#, r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#, "[]"] {
            assert!(AuditTrust::default().add_jwk(jwk.as_bytes()).is_err(), "{jwk}");
        }
    }
}
