//! An ES256 token that was not seen before, and one that was.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use mesh_core::config::{IssuerConfig, PlugConfig};
use mesh_core::token::{IssuerKeys, Jwks, TokenVerifier};
use serde_json::json;

const ISSUER: &str = "https://idp.bench.example";
const NOW: u64 = 1_800_000_000;

fn token_and_keys() -> (String, Arc<Jwks>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key().as_ref();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
    let keys = Jwks::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let header = json!({ "alg": "ES256", "kid": "k", "typ": "JWT" }).to_string();
    let claims = json!({ "iss": ISSUER, "aud": "bench", "sub": "client", "iat": NOW, "exp": NOW + 3600 }).to_string();
    let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    (format!("{signed}.{}", b64(signature.as_ref())), Arc::new(keys))
}

pub(crate) fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    let made = LazyCell::new(|| {
        let (token, keys) = token_and_keys();
        let keys = IssuerKeys::new(keys);
        let config = IssuerConfig::new(ISSUER, vec!["bench".to_owned()], PlugConfig::new("file", &json!("keys.json")));
        let verifier = TokenVerifier::default().with(config, keys.clone());
        (token, keys, verifier)
    });
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(NOW + 1);
    group.bench_function("es256_cold", |b| {
        let (token, keys, verifier) = &*made;
        // With each generation of the keys what was verified before is forgotten.
        b.iter(|| {
            keys.set.publish(keys.set.load().value().clone());
            verifier.verify(black_box(token), now).unwrap()
        });
    });
    group.bench_function("es256_again", |b| {
        let (token, _, verifier) = &*made;
        b.iter(|| verifier.verify(black_box(token), now).unwrap());
    });
}
