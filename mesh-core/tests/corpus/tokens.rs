//! The tokens of the corpus: attacks on JWT verifiers by name, with the verdict that each must get. (RFC 8725, 8725bis)

use std::fs;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::corpus;
use super::jwt::{CERTIFICATE, ISSUER, NOW, sign};

/// The keys that only the corpus has tokens of.
struct Keys {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    svid: EcdsaKeyPair,
}

impl Keys {
    fn ec(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", b64(signature))
    }

    fn rsa(&self, encoding: &'static dyn RsaEncoding, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", b64(signature))
    }

    /// Writes their public halves.
    fn publish(&self) {
        let ec = |key: &EcdsaKeyPair, kid: &str| {
            let point = key.public_key().as_ref();
            json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..]) })
        };
        let public = self.rsa.public_key();
        let [n, e] = [public.modulus(), public.exponent()].map(|number| b64(number.big_endian_without_leading_zero()));
        let mut svid = ec(&self.svid, "svid");
        svid["use"] = json!("jwt-svid");
        let jwks = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            ec(&self.ec, "ec"),
            { "kty": "RSA", "kid": "rsa", "n": &n, "e": &e },
            { "kty": "RSA", "kid": "bound", "alg": "PS256", "n": n, "e": e },
        ] });
        fs::write(corpus("jwks.json"), format!("{jwks}\n")).unwrap();
        fs::write(corpus("jwt-svid.json"), format!("{}\n", json!({ "keys": [svid] }))).unwrap();
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds from the corpus' now.
fn at(seconds: i64) -> Value {
    json!(NOW.cast_signed() + seconds)
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "exp": at(600), "iat": at(0) })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
    object
}

/// Writes keys and tokens anew.
pub(super) fn write() {
    let keys = Keys {
        ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        svid: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    };
    keys.publish();
    fs::remove_dir_all(corpus("jwt")).unwrap_or_default();
    fs::create_dir_all(corpus("jwt")).unwrap();
    let all = [headers(), spellings(), other_keys(&keys), claim_sets(), jwt_svids(&keys)].concat();
    let count = all.len();
    let names: std::collections::BTreeSet<_> = all
        .into_iter()
        .map(|(name, text)| {
            fs::write(corpus("jwt").join(&name), text).unwrap();
            name
        })
        .collect();
    assert_eq!(names.len(), count, "two inputs of one name");
}

type Inputs = Vec<(String, String)>;

/// A header and claims that the target signs.
fn signed(header: &str, claims: &str) -> String {
    format!("signed\n{header}\n{claims}")
}

fn ed() -> Value {
    json!({ "alg": "EdDSA", "kid": "ed" })
}

fn headers() -> Inputs {
    let mut inputs = Inputs::new();
    let mut add = |name: &str, header: Value| {
        inputs.push((name.to_owned(), signed(&header.to_string(), &claims().to_string())));
    };
    add("accepted.plain", ed());
    add("accepted.typ-at-jwt", with(ed(), "typ", json!("application/at+jwt")));
    add("accepted.without-kid", json!({ "alg": "EdDSA" }));
    for alg in ["none", "noNE", "HS256", "es256", "ES256K"] {
        add(&format!("token_forbidden_algorithm.{alg}"), with(ed(), "alg", json!(alg)));
    }
    add("token_forbidden_algorithm.no-alg", json!({ "kid": "ed" }));
    add("token_malformed.alg-is-a-list", with(ed(), "alg", json!(["EdDSA"])));
    add("token_algorithm_not_accepted.before-the-key", json!({ "alg": "RS512", "kid": "nobody" }));
    add("token_key_mismatch.EdDSA-key-for-ES256", json!({ "alg": "ES256", "kid": "ed" }));
    add("token_key_mismatch.a-key-bound-to-PS256", json!({ "alg": "RS256", "kid": "bound" }));
    add("token_bad_signature.under-the-name-of-another-key", json!({ "alg": "RS256", "kid": "rsa" }));
    add("token_unknown_key.two-keys-fit", json!({ "alg": "PS256" }));
    add("token_unknown_key.a-path", with(ed(), "kid", json!("../../etc/passwd")));
    add("token_unknown_key.a-query", with(ed(), "kid", json!("' OR 1=1 --")));
    add("token_malformed.a-long-kid", with(ed(), "kid", json!("k".repeat(129))));
    add("token_unknown_key.the-longest-kid", with(ed(), "kid", json!("k".repeat(128))));
    add("token_malformed.an-empty-kid", with(ed(), "kid", json!("")));
    add("token_malformed.kid-is-a-number", with(ed(), "kid", json!(7)));
    for (name, value) in [
        ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("p2c", json!(1_000_000)),
        ("cty", json!("JWT")),
    ] {
        add(&format!("token_forbidden_header.{name}"), with(ed(), name, value));
    }
    for typ in ["dpop+jwt", "wit+jwt", "logout+jwt"] {
        add(&format!("token_wrong_type.{typ}"), with(ed(), "typ", json!(typ)));
    }
    let twice = r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#;
    inputs.push(("token_malformed.alg-twice".to_owned(), signed(twice, &claims().to_string())));
    let deep = format!(r#"{{"alg":"EdDSA","kid":"ed","a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    inputs.push(("token_malformed.a-deep-header".to_owned(), signed(&deep, &claims().to_string())));
    inputs
}

/// Texts that are no compact JWS, made of one that is.
fn spellings() -> Inputs {
    let good = sign(ed().to_string().as_bytes(), claims().to_string().as_bytes());
    let parts: Vec<&str> = good.split('.').collect();
    // 64 bytes are 85 letters and two bits: the last letter has four bits that say nothing.
    let (head, last) = good.split_at(good.len() - 1);
    let slack = char::from(last.as_bytes()[0] + 1);
    let json = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] });
    let inputs = [
        ("accepted.as-text", good.clone()),
        ("token_malformed.nothing", String::new()),
        ("token_malformed.two-parts", format!("{}.{}", parts[0], parts[1])),
        ("token_malformed.unsigned", format!("{}.{}.", parts[0], parts[1])),
        ("token_malformed.four-parts", format!("{good}.{}", parts[2])),
        ("token_malformed.five-parts--as-JWE-has", format!("{good}.x.y")),
        ("token_malformed.a-dot-behind", format!("{good}.")),
        ("token_malformed.nothing-but-dots", ".".repeat(8000)),
        ("token_too_large.dots", ".".repeat(8193)),
        ("token_malformed.JSON-serialisation", json.to_string()),
        ("token_malformed.a-token-in-a-token", format!("{}.{}.{}", parts[0], b64(&good), parts[2])),
        ("token_malformed.padding", format!("{good}==")),
        ("token_malformed.bits-that-say-nothing", format!("{head}{slack}")),
        ("token_malformed.a-line-end", format!("{good}\n")),
        ("token_malformed.a-space-in-front", format!(" {good}")),
        ("token_malformed.a-tab-within", good.replacen('.', ".\t", 1)),
        ("token_malformed.plain-base64", format!("{}.{}.{}", parts[0], parts[1], "+/".repeat(43))),
        ("token_bad_signature.cut", format!("{}.{}.{}", parts[0], parts[1], &parts[2][..84])),
        ("token_bad_signature.nothing-but-zeros", format!("{}.{}.{}", parts[0], parts[1], b64([0; 64]))),
        (
            "token_bad_signature.other-claims",
            format!("{}.{}.{}", parts[0], b64(with(claims(), "sub", json!("root")).to_string()), parts[2]),
        ),
        (
            "token_forbidden_algorithm.renamed-to-none",
            format!("{}.{}.{}", b64(r#"{"alg":"none"}"#), parts[1], parts[2]),
        ),
    ];
    inputs.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

fn other_keys(keys: &Keys) -> Inputs {
    let ec = json!({ "alg": "ES256", "kid": "ec" });
    let rsa = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let good = Keys::ec(&keys.ec, &ec, &claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let rs256 = keys.rsa(&RSA_PKCS1_SHA256, &rsa("RS256", "rsa"), &claims());
    let (_, rest) = rs256.split_once('.').unwrap();
    let inputs = [
        ("accepted.ES256", good.clone()),
        ("accepted.RS256", rs256.clone()),
        ("accepted.PS256", keys.rsa(&RSA_PSS_SHA256, &rsa("PS256", "rsa"), &claims())),
        ("accepted.PS256-by-the-key-that-is-bound-to-it", keys.rsa(&RSA_PSS_SHA256, &rsa("PS256", "bound"), &claims())),
        ("token_bad_signature.RS256-renamed-to-PS256", format!("{}.{rest}", b64(rsa("PS256", "rsa").to_string()))),
        ("token_bad_signature.of-zeros-ES256", format!("{signed}.{}", b64([0; 64]))),
        ("token_bad_signature.by-a-stranger-ES256", Keys::ec(&keys.svid, &ec, &claims())),
    ];
    inputs.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

fn claim_sets() -> Inputs {
    let mut inputs = Inputs::new();
    let mut add = |name: &str, text: &str| inputs.push((name.to_owned(), signed(&ed().to_string(), text)));
    for (name, claim, value) in [
        ("token_unknown_issuer.a-slash-more", "iss", json!("https://idp.example/")),
        ("token_unknown_issuer.upper-case", "iss", json!("HTTPS://idp.example")),
        ("token_invalid_claim.no-issuer", "iss", Value::Null),
        ("token_invalid_claim.a-list-of-issuers", "iss", json!([ISSUER])),
        ("accepted.a-list-of-audiences", "aud", json!(["x", "orders"])),
        ("token_wrong_audience.another", "aud", json!("payments")),
        ("token_wrong_audience.a-slash-more", "aud", json!(["orders/"])),
        ("token_invalid_claim.no-audience", "aud", Value::Null),
        ("token_invalid_claim.an-empty-list-of-audiences", "aud", json!([])),
        ("token_invalid_claim.an-audience-that-is-an-object", "aud", json!({ "orders": true })),
        ("token_invalid_claim.a-number-among-audiences", "aud", json!(["orders", 1])),
        ("accepted.within-the-leeway", "exp", at(-29)),
        ("token_expired.at-the-leeway", "exp", at(-30)),
        ("token_invalid_claim.no-expiry", "exp", Value::Null),
        ("token_invalid_claim.an-expiry-in-a-string", "exp", json!("1800000600")),
        ("token_invalid_claim.an-endless-expiry", "exp", json!(1e300)),
        ("token_invalid_claim.a-negative-expiry", "exp", json!(-1)),
        ("accepted.a-fraction-of-a-second", "exp", json!(1_800_000_000.5)),
        ("token_lifetime_too_long.a-day-and-a-second", "exp", at(86_401)),
        ("token_not_yet_valid.tomorrow", "nbf", at(31)),
        ("accepted.from-the-edge-of-the-leeway", "nbf", at(30)),
        ("token_invalid_claim.a-begin-in-a-string", "nbf", json!("0")),
        ("token_not_yet_valid.issued-tomorrow", "iat", at(31)),
        ("token_invalid_claim.a-subject-that-is-a-number", "sub", json!(7)),
        ("token_wrong_type.an-ID-token", "at_hash", json!("x")),
        ("accepted.bound-to-its-certificate", "cnf", json!({ "x5t#S256": b64(CERTIFICATE) })),
        ("token_wrong_certificate.bound-to-another", "cnf", json!({ "x5t#S256": b64([8; 32]) })),
        ("token_sender_constrained.DPoP", "cnf", json!({ "jkt": "x" })),
        ("token_sender_constrained.two-bindings", "cnf", json!({ "x5t#S256": b64(CERTIFICATE), "jkt": "x" })),
        ("token_invalid_claim.a-binding-that-is-a-string", "cnf", json!("x5t#S256")),
        ("accepted.4-KiB", "pad", json!("x".repeat(4096))),
        ("token_too_large.8-KiB", "pad", json!("x".repeat(6100))),
    ] {
        add(name, &with(claims(), claim, value).to_string());
    }
    let text = claims().to_string();
    let deep =
        |levels: usize| text.replacen('{', &format!(r#"{{"a":{}1{},"#, "[".repeat(levels), "]".repeat(levels)), 1);
    add("accepted.31-levels-deep", &deep(31));
    add("token_malformed.33-levels-deep", &deep(32));
    add("token_malformed.a-thousand-levels-deep", &deep(1000));
    add("token_malformed.iss-twice", &text.replacen('{', r#"{"iss":"https://evil.example","#, 1));
    add("token_malformed.sub-twice--once-escaped", &text.replacen('{', r#"{"\u0073ub":"root","#, 1));
    add("token_malformed.something-behind", &format!("{text} {text}"));
    add("token_malformed.a-list", &format!("[{text}]"));
    add("token_malformed.half-a-surrogate", &text.replacen("alice", r"\ud800", 1));
    inputs
}

fn jwt_svids(keys: &Keys) -> Inputs {
    let header = json!({ "alg": "ES256", "kid": "svid" });
    let svid = json!({ "sub": "spiffe://td/web", "aud": ["orders"], "exp": at(300), "iat": at(0) });
    let mut inputs = Inputs::new();
    let mut add = |name: &str, header: &Value, claims: &Value| {
        inputs.push((format!("{name}--JWT-SVID"), Keys::ec(&keys.svid, header, claims)));
    };
    add("accepted.plain", &header, &svid);
    add("accepted.typ-JOSE", &with(header.clone(), "typ", json!("JOSE")), &svid);
    add("accepted.an-iss-of-nobody", &header, &with(svid.clone(), "iss", json!("https://spire.example")));
    add("token_unknown_key.under-the-name-of-an-issuer", &header, &with(svid.clone(), "iss", json!(ISSUER)));
    add(
        "token_invalid_claim.of-an-unknown-trust-domain",
        &header,
        &with(svid.clone(), "sub", json!("spiffe://other/web")),
    );
    add("token_invalid_claim.an-upper-case-scheme", &header, &with(svid.clone(), "sub", json!("SPIFFE://td/web")));
    add("token_invalid_claim.a-subject-with-dots", &header, &with(svid.clone(), "sub", json!("spiffe://td/../web")));
    add("token_wrong_type.at-jwt", &with(header.clone(), "typ", json!("at+jwt")), &svid);
    add("token_unknown_key.without-kid", &json!({ "alg": "ES256" }), &svid);
    add("token_malformed.another-header", &with(header.clone(), "x", json!("y")), &svid);
    add("token_expired.yesterday", &header, &with(svid.clone(), "exp", at(-86_400)));
    add("token_wrong_audience.another", &header, &with(svid.clone(), "aud", json!(["payments"])));
    let stranger = Keys::ec(&keys.ec, &header, &svid);
    inputs.push(("token_bad_signature.by-a-stranger--JWT-SVID".to_owned(), stranger));
    inputs
}
