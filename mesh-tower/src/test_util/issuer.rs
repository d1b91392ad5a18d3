//! Tokens for tests, signed by a key that lives as long as the test.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::config::{IssuerConfig, PlugConfig};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::TestError;
use crate::BoxError;

/// An issuer of JWTs (ES256) whose keys a [`super::TestService`] can accept.
///
/// Its key set is a file that is removed with the last clone.
#[derive(Debug, Clone)]
pub struct TestIssuer {
    issuer: String,
    key: Arc<EcdsaKeyPair>,
    jwks: Arc<NamedTempFile>,
}

impl TestIssuer {
    /// An issuer with a key of its own.
    pub fn new(issuer: impl Into<String>) -> Result<Self, TestError> {
        Ok(Self::generate(issuer.into())?)
    }

    fn generate(issuer: String) -> Result<Self, BoxError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        // Uncompressed point: 0x04, x, y. (SEC 1, 2.3.3)
        let (x, y) =
            key.public_key().as_ref().get(1..).and_then(|xy| xy.split_at_checked(32)).ok_or("no P-256 point")?;
        let jwks = json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "test",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]});
        let file = NamedTempFile::new()?;
        std::fs::write(file.path(), jwks.to_string())?;
        Ok(Self { issuer, key: Arc::new(key), jwks: Arc::new(file) })
    }

    /// A token for `audience`, valid for five minutes.
    pub fn token(&self, subject: &str, audience: &str) -> Result<String, TestError> {
        let now = now();
        self.sign(&json!({ "sub": subject, "aud": audience, "iat": now, "exp": now + 300 }))
    }

    /// A token that was valid until an hour ago.
    pub fn expired_token(&self, subject: &str, audience: &str) -> Result<String, TestError> {
        let now = now();
        self.sign(&json!({ "sub": subject, "aud": audience, "iat": now - 7200, "exp": now - 3600 }))
    }

    /// A token with exactly these claims, and `iss` unless they have one.
    pub fn sign(&self, claims: &Value) -> Result<String, TestError> {
        Ok(self.compact(claims)?)
    }

    fn compact(&self, claims: &Value) -> Result<String, BoxError> {
        let mut all = Map::from_iter([("iss".to_owned(), json!(self.issuer))]);
        all.extend(claims.as_object().ok_or("claims are a JSON object")?.clone());
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "test" });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(&header), encode(&Value::Object(all)));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The file with its key set.
    pub fn keys(&self) -> &Path {
        self.jwks.path()
    }

    /// What a service must be told to accept these tokens for `audience`.
    pub(super) fn config(&self, audience: &str) -> IssuerConfig {
        let jwks = PlugConfig::new("file", &json!(self.jwks.path()));
        IssuerConfig::new(self.issuer.clone(), vec![audience.to_owned()], jwks)
    }
}

fn now() -> u64 {
    SystemClock.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
