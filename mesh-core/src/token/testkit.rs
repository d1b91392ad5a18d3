//! Issuers for tests: real keys, and tokens as good or as bad as a test wants them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{IssuerKeys, Jwks, TokenVerifier};
use crate::config::{Errors, IssuerConfig, Node, PlugConfig, yaml};
use crate::fetch::{Fetch, FetchError, FetchRequest, Fetched, Fetching};
use crate::plugin::Context;

pub(crate) const ISSUER: &str = "https://idp.example";

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// `now` plus some seconds, as a NumericDate.
pub(crate) fn at(seconds: i64) -> Value {
    json!(1_800_000_000 + seconds)
}

/// What a factory of key or token sources makes of settings: the source, or what was wrong with them.
pub(crate) fn configured<T>(
    yaml: &str,
    context: &Context,
    make: impl Fn(&Node, &Context, &mut Errors) -> Option<T>,
) -> Result<T, String> {
    let mut errors = Errors::default();
    let nodes = yaml::parse("mesh.yaml", yaml, &mut errors);
    let made = make(&nodes[0], context, &mut errors);
    let said: Vec<String> = errors.issues().iter().map(ToString::to_string).collect();
    if said.is_empty() { Ok(made.unwrap()) } else { Err(said.join("\n")) }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) enum TestKey {
    Es256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl TestKey {
    pub(crate) fn es256() -> Self {
        Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// The public JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
            Self::Rsa(key) => {
                let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
                json!({
                    "kty": "RSA",
                    "kid": kid,
                    "n": b64(n.big_endian_without_leading_zero()),
                    "e": b64(e.big_endian_without_leading_zero()),
                })
            }
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(key.public_key()) })
            }
        }
    }

    /// A compact JWS over exactly these texts.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.signature(header, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    fn signature(&self, header: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Es256(key) => key.sign(&rng, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                if header.contains("PS256") {
                    key.sign(&RSA_PSS_SHA256, &rng, message, &mut signature).unwrap();
                } else {
                    key.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).unwrap();
                }
                signature
            }
        }
    }
}

pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "exp": at(600), "iat": at(0) })
}

pub(crate) fn issuer(name: &str) -> IssuerConfig {
    let audiences = vec!["orders".to_owned(), "orders-v2".to_owned()];
    IssuerConfig::new(name, audiences, PlugConfig::new("file", &json!("keys.json")))
}

pub(crate) fn keys(jwks: &[Value]) -> IssuerKeys {
    let set = json!({ "keys": jwks }).to_string();
    IssuerKeys::new(Arc::new(Jwks::parse(set.as_bytes()).unwrap()))
}

pub(crate) fn verifier(config: IssuerConfig, jwks: &[Value]) -> TokenVerifier {
    TokenVerifier::default().with(config, keys(jwks))
}

/// A provider without a network: documents by URL, and what was asked for when.
#[derive(Debug, Default)]
pub(crate) struct Provider {
    documents: Mutex<BTreeMap<String, (u16, String, String)>>,
    asked: Mutex<Vec<(Instant, String)>>,
    /// How long an answer takes.
    delay: Duration,
}

impl Provider {
    pub(crate) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Answers `url` with 200 and this document from now on.
    pub(crate) fn serve(&self, url: &str, document: &Value) {
        self.answer(url, 200, "", document);
    }

    pub(crate) fn answer(&self, url: &str, status: u16, cache_control: &str, document: &Value) {
        let answer = (status, cache_control.to_owned(), document.to_string());
        self.documents.lock().unwrap().insert(url.to_owned(), answer);
    }

    /// Answers nobody any more.
    pub(crate) fn fail(&self) {
        self.documents.lock().unwrap().clear();
    }

    /// When each document was asked for.
    pub(crate) fn asked(&self) -> Vec<(Instant, String)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Fetch for Provider {
    fn get(&self, request: FetchRequest) -> Fetching {
        self.asked.lock().unwrap().push((Instant::now(), request.url.to_string()));
        let answer = self.documents.lock().unwrap().get(&*request.url).cloned();
        let delay = self.delay;
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let (status, cache_control, body) = answer.ok_or_else(|| FetchError("connection refused".to_owned()))?;
            Ok(Fetched::new(status, cache_control, body))
        })
    }
}
