//! An ES256 token and the key set that vouches for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;

pub(super) struct Token {
    pub(super) jwks: String,
    pub(super) jwt: String,
}

const KEY_ID: &str = "bench-1";

#[allow(clippy::disallowed_methods)] // a real token for real programs
fn now() -> Result<u64, String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|e| format!("the clock stands before 1970: {e}"))
}

pub(super) fn issue(issuer: &str, audience: &str) -> Result<Token, String> {
    let key = KeyPair::generate().map_err(|e| format!("cannot make a P-256 key: {e}"))?;
    let now = now()?;
    let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
    let claims = json!({
        "iss": issuer, "aud": audience, "sub": "bench-client", "scope": "bench:read",
        "iat": now, "nbf": now, "exp": now + 24 * 3600,
    });
    let jwt = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der()))
        .map_err(|e| format!("cannot sign the token: {e}"))?;
    // An uncompressed point: 0x04, X, Y, 32 bytes each. (SEC 1, 2.3.3)
    let point = key.der_bytes().strip_prefix(&[4]).ok_or("the public key is no uncompressed point")?;
    let (x, y) = point.split_at_checked(32).ok_or("the public key is too short")?;
    let jwk = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) });
    Ok(Token { jwks: format!("{:#}\n", json!({ "keys": [jwk] })), jwt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_set_verifies_the_token() {
        let token = issue("https://i", "a").unwrap();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&token.jwks).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(set.find(KEY_ID).unwrap()).unwrap();
        let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
        validation.set_audience(&["a"]);
        jsonwebtoken::decode::<serde_json::Value>(&token.jwt, &key, &validation).unwrap();
    }
}
