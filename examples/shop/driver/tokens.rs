//! The shop's token issuer: one ES256 key, its key set in a file, tokens on demand.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_core::clock::{SystemClock, WallClock as _};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;

use crate::Error;
use crate::role::write_whole;

const ISSUER: &str = "https://idp.shop.example";
const KEY_ID: &str = "shop-1";
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct Issuer {
    key: EncodingKey,
}

impl Issuer {
    /// Makes a key and writes its key set to `file`.
    pub(crate) fn make(file: &Path) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        // An uncompressed point: 0x04, X, Y, 32 bytes each. (SEC 1, 2.3.3)
        let point = key.der_bytes().strip_prefix(&[4]).ok_or("the public key is no uncompressed point")?;
        let (x, y) = point.split_at_checked(32).ok_or("the public key is too short")?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y });
        write_whole(file, &json!({ "keys": [jwk] }).to_string())?;
        Ok(Self { key: EncodingKey::from_ec_der(&key.serialize_der()) })
    }

    /// A token that is good for five minutes.
    pub(crate) fn token(&self, audience: &str) -> Result<String, Error> {
        self.sign(audience, now()?, now()? + 5 * MINUTE)
    }

    /// A token whose time was over a minute ago, beyond any leeway.
    pub(crate) fn expired(&self, audience: &str) -> Result<String, Error> {
        self.sign(audience, now()? - 10 * MINUTE, now()? - 2 * MINUTE)
    }

    fn sign(&self, audience: &str, issued: Duration, expires: Duration) -> Result<String, Error> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({
            "iss": ISSUER, "sub": "ann", "aud": audience, "iat": issued.as_secs(), "exp": expires.as_secs(),
        });
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

fn now() -> Result<Duration, Error> {
    Ok(SystemClock.now().duration_since(UNIX_EPOCH)?)
}
