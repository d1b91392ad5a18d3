//! Attacks on JWT verifiers that this one survives, by the rows of the threat list. (RFC 8725, RFC 8725bis)

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::testkit::{ISSUER, TestKey, at, b64, claims, issuer, keys, now, verifier};
use super::{IssuerKeys, Jwks, TokenError, TokenVerifier, bearer};

/// A claim set with one member changed, or removed where the value is null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    match value {
        Value::Null => members.remove(name),
        value => members.insert(name.to_owned(), value),
    };
    claims
}

fn header(extra: Value) -> String {
    let mut header = json!({ "alg": "ES256", "kid": "k" });
    header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    header.to_string()
}

struct Bench {
    key: TestKey,
    verifier: TokenVerifier,
}

impl Bench {
    fn new() -> Self {
        let key = TestKey::es256();
        let verifier = verifier(issuer(ISSUER), &[key.jwk("k")]);
        Self { key, verifier }
    }

    fn judge(&self, header: &str, claims: &str) -> Result<(), TokenError> {
        self.verifier.verify(&self.key.sign(header, claims), now()).map(drop)
    }

    fn judge_claims(&self, claims: &Value) -> Result<(), TokenError> {
        self.judge(&header(json!({})), &claims.to_string())
    }

    fn judge_text(&self, token: &str) -> Result<(), TokenError> {
        self.verifier.verify(token, now()).map(drop)
    }
}

#[test]
fn good_tokens_of_every_kind_pass() {
    let (ec, rsa, ed) = (TestKey::es256(), TestKey::rsa(), TestKey::ed25519());
    let verifier = verifier(issuer(ISSUER), &[ec.jwk("ec"), rsa.jwk("rsa"), ed.jwk("ed")]);
    for (key, alg, kid) in [
        (&ec, "ES256", Some("ec")),
        (&rsa, "RS256", Some("rsa")),
        (&rsa, "PS256", Some("rsa")),
        (&ed, "EdDSA", Some("ed")),
        // Without a `kid`, one key alone fits the algorithm.
        (&ec, "ES256", None),
    ] {
        let header = match kid {
            Some(kid) => json!({ "alg": alg, "kid": kid, "typ": "at+jwt" }),
            None => json!({ "alg": alg }),
        };
        let token = verifier.verify(&key.sign(&header.to_string(), &claims().to_string()), now()).unwrap();
        assert_eq!((&*token.issuer, token.subject.as_deref()), (ISSUER, Some("alice")), "{alg}");
        assert_eq!(token.audiences, ["orders"]);
        assert_eq!(token.claims.len(), 5);
    }
}

#[test]
fn row_1_algorithms_are_an_exact_list_per_issuer_checked_before_the_key() {
    let bench = Bench::new();
    for alg in ["none", "None", "noNE", "NONE", "", "HS256", "HS512", "es256", "ES256K", "RSA-OAEP", "ES512"] {
        let judged = bench.judge(&header(json!({ "alg": alg })), &claims().to_string());
        assert_eq!(judged, Err(TokenError::ForbiddenAlgorithm), "{alg}");
    }
    for alg in [json!(null), json!(["ES256"]), json!(1)] {
        let judged = bench.judge(&header(json!({ "alg": alg })), &claims().to_string());
        assert!(matches!(judged, Err(TokenError::Malformed(_))), "{alg}");
    }
    assert_eq!(bench.judge(r#"{"kid":"k"}"#, &claims().to_string()), Err(TokenError::ForbiddenAlgorithm));
    // Known and asymmetric, but not accepted from this issuer: no key is looked up, not even a missing one.
    let judged = bench.judge(&header(json!({ "alg": "RS512", "kid": "nobody" })), &claims().to_string());
    assert_eq!(judged, Err(TokenError::AlgorithmNotAccepted));
    // An unsigned token that claims a good algorithm.
    let unsigned = format!("{}.{}.", b64(header(json!({}))), b64(claims().to_string()));
    assert_eq!(bench.judge_text(&unsigned), Err(TokenError::Malformed("a part is empty")));
}

#[test]
fn row_2_a_key_is_good_for_its_own_algorithm_only() {
    let (ec, rsa) = (TestKey::es256(), TestKey::rsa());
    let mut bound = rsa.jwk("bound");
    bound["alg"] = json!("PS256");
    let verifier = verifier(issuer(ISSUER), &[ec.jwk("ec"), rsa.jwk("rsa"), bound]);
    let judge = |key: &TestKey, alg: &str, kid: &str| {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        verifier.verify(&key.sign(&header, &claims().to_string()), now()).map(drop)
    };
    assert_eq!(judge(&ec, "RS256", "ec"), Err(TokenError::KeyMismatch));
    assert_eq!(judge(&rsa, "ES256", "rsa"), Err(TokenError::KeyMismatch));
    assert_eq!(judge(&ec, "ES384", "ec"), Err(TokenError::KeyMismatch));
    assert_eq!(judge(&rsa, "RS256", "bound"), Err(TokenError::KeyMismatch));
    assert_eq!(judge(&rsa, "PS256", "bound"), Ok(()));
    // The signature of one algorithm under the name of another of the same key.
    let signed = rsa.sign(&json!({ "alg": "RS256", "kid": "rsa" }).to_string(), &claims().to_string());
    let (_, rest) = signed.split_once('.').unwrap();
    let renamed = format!("{}.{rest}", b64(json!({ "alg": "PS256", "kid": "rsa" }).to_string()));
    assert_eq!(verifier.verify(&renamed, now()).map(drop), Err(TokenError::BadSignature));
}

#[test]
fn rows_3_and_5_headers_that_bring_keys_or_extensions_are_refused() {
    let bench = Bench::new();
    let own = bench.key.jwk("k");
    for (name, value) in [
        ("jwk", own),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("b64", json!(true)),
    ] {
        let judged = bench.judge(&header(json!({ name: value })), &claims().to_string());
        assert_eq!(judged, Err(TokenError::ForbiddenHeader(name)), "{name}");
    }
}

#[test]
fn row_4_a_kid_is_an_opaque_short_name() {
    let key = TestKey::es256();
    let verifier = verifier(issuer(ISSUER), &[key.jwk("../../etc/passwd"), TestKey::es256().jwk("other")]);
    let judge = |kid: Value| {
        let token = key.sign(&header(json!({ "kid": kid })), &claims().to_string());
        verifier.verify(&token, now()).map(drop)
    };
    assert_eq!(judge(json!("../../etc/passwd")), Ok(()));
    for unknown in ["etc/passwd", "' OR 1=1 --", "https://evil.example"] {
        assert_eq!(judge(json!(unknown)), Err(TokenError::UnknownKey));
    }
    assert_eq!(judge(json!("other")), Err(TokenError::BadSignature));
    for wrong in [json!("k".repeat(129)), json!(""), json!(7), json!(["k"])] {
        assert!(matches!(judge(wrong), Err(TokenError::Malformed(_))));
    }
    // Without a `kid` there is a choice of two keys here: none is tried.
    let token = key.sign(r#"{"alg":"ES256"}"#, &claims().to_string());
    assert_eq!(verifier.verify(&token, now()), Err(TokenError::UnknownKey));
}

#[test]
fn row_6_other_serialisations_and_encryption_are_refused_before_crypto() {
    let bench = Bench::new();
    let good = bench.key.sign(&header(json!({})), &claims().to_string());
    let parts: Vec<&str> = good.split('.').collect();
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        format!("{good}."),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!(".{good}"),
        json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string(),
        ".".repeat(8000),
    ] {
        assert!(matches!(bench.judge_text(&text), Err(TokenError::Malformed(_))), "{text:.40}");
    }
    for (name, value) in
        [("zip", json!("DEF")), ("enc", json!("A256GCM")), ("p2c", json!(1_000_000)), ("cty", json!("JWT"))]
    {
        let judged = bench.judge(&header(json!({ name: value })), &claims().to_string());
        assert_eq!(judged, Err(TokenError::ForbiddenHeader(name)));
    }
}

#[test]
fn row_7_size_and_depth_are_bounded() {
    let bench = Bench::new();
    assert_eq!(bench.judge_claims(&with("pad", json!("x".repeat(8192)))), Err(TokenError::TooLarge));
    assert_eq!(bench.judge_claims(&with("pad", json!("x".repeat(4096)))), Ok(()));
    let deep = format!("{{\"iss\":\"{ISSUER}\",\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    assert!(matches!(bench.judge(&header(json!({})), &deep), Err(TokenError::Malformed(_))));
}

#[test]
fn row_8_there_is_one_spelling_of_a_token() {
    let bench = Bench::new();
    let good = bench.key.sign(&header(json!({})), &claims().to_string());
    assert_eq!(bench.judge_text(&good), Ok(()));
    let (head, last) = good.split_at(good.len() - 1);
    // 64 bytes are 85 characters and two bits: the last character has four bits that must be zero.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    let slack = alphabet.chars().nth(place + 1).unwrap();
    for text in [
        format!("{head}{slack}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good}\n"),
        format!(" {good}"),
        good.replacen('.', ".\t", 1),
        good.replace(['-', '_'], "+").replacen('.', "/.", 1),
    ] {
        assert!(matches!(bench.judge_text(&text), Err(TokenError::Malformed(_))), "{text}");
    }
}

#[test]
fn row_9_duplicate_members_are_refused_everywhere() {
    let bench = Bench::new();
    let claims = claims().to_string();
    let twice = claims.replacen('{', r#"{"iss":"https://evil.example","#, 1);
    assert!(matches!(bench.judge(&header(json!({})), &twice), Err(TokenError::Malformed(_))));
    let escaped = claims.replacen('{', r#"{"\u0073ub":"root","#, 1);
    assert!(matches!(bench.judge(&header(json!({})), &escaped), Err(TokenError::Malformed(_))));
    let header = r#"{"alg":"none","alg":"ES256","kid":"k"}"#;
    assert!(matches!(bench.judge(header, &claims), Err(TokenError::Malformed(_))));
    assert!(Jwks::parse(br#"{"keys":[],"keys":[]}"#).is_err());
}

#[test]
fn row_10_a_request_carries_one_token() {
    let one = |header: &'static str| bearer([header.as_bytes()]);
    assert_eq!(bearer([]), Ok(None));
    let malformed = Err("token_malformed");
    for (header, expected) in [
        ("Bearer a.b.c", Ok(Some("a.b.c"))),
        ("bEARER a.b.c", Ok(Some("a.b.c"))),
        ("Basic YTpi", Ok(None)),
        ("Bear", Ok(None)),
        ("Bearers a.b.c", Ok(None)),
        ("Bearer", malformed),
        ("Bearer ", malformed),
        ("Bearer  a", malformed),
        ("Bearer\ta", malformed),
        ("Bearer a b", malformed),
        ("Bearer \u{e9}", malformed),
        ("Bearer a.b.c, Bearer d.e.f", Err("token_ambiguous")),
        ("Bearer, Bearer a.b.c", Err("token_ambiguous")),
        ("Basic YTpi, Bearer a.b.c", Err("token_ambiguous")),
        ("Basic YTpi,bearer a.b.c", Err("token_ambiguous")),
    ] {
        assert_eq!(one(header).map_err(|error| error.reason()), expected, "{header}");
    }
    assert_eq!(bearer([&b"Bearer a.b.c"[..], b"Bearer a.b.c"]), Err(TokenError::Ambiguous));
    assert_eq!(bearer([&b"Basic x"[..], b"Bearer a.b.c"]), Err(TokenError::Ambiguous));
}

#[test]
fn row_11_an_issuer_is_one_exact_string_and_its_keys_are_its_own() {
    let (ours, theirs) = (TestKey::es256(), TestKey::es256());
    let verifier = TokenVerifier::default()
        .with(issuer(ISSUER), keys(&[ours.jwk("k")]))
        .with(issuer("https://other.example"), keys(&[theirs.jwk("k")]));
    let judge = |key: &TestKey, iss: Value| {
        verifier.verify(&key.sign(&header(json!({})), &with("iss", iss).to_string()), now()).map(drop)
    };
    assert_eq!(judge(&ours, json!(ISSUER)), Ok(()));
    assert_eq!(judge(&theirs, json!("https://other.example")), Ok(()));
    assert_eq!(judge(&theirs, json!(ISSUER)), Err(TokenError::BadSignature));
    for unknown in ["https://idp.example/", "HTTPS://idp.example", "https://idp.example.evil", ""] {
        assert_eq!(judge(&ours, json!(unknown)), Err(TokenError::UnknownIssuer), "{unknown}");
    }
    for wrong in [json!(null), json!([ISSUER]), json!(1)] {
        assert_eq!(judge(&ours, wrong), Err(TokenError::InvalidClaim("iss")));
    }
    // Keys that have not arrived close, and say so.
    let waiting = TokenVerifier::default().with(issuer(ISSUER), IssuerKeys::none());
    let token = ours.sign(&header(json!({})), &claims().to_string());
    assert_eq!(waiting.verify(&token, now()), Err(TokenError::NoKeys));
}

#[test]
fn row_12_the_audience_is_required_and_exact() {
    let bench = Bench::new();
    for good in [json!("orders"), json!(["x", "orders-v2"])] {
        assert_eq!(bench.judge_claims(&with("aud", good)), Ok(()));
    }
    for other in [json!("payments"), json!("order"), json!("ORDERS"), json!(["orders/"])] {
        assert_eq!(bench.judge_claims(&with("aud", other)), Err(TokenError::WrongAudience));
    }
    for wrong in [json!(null), json!([]), json!(1), json!(["orders", 1]), json!({ "orders": true })] {
        assert_eq!(bench.judge_claims(&with("aud", wrong)), Err(TokenError::InvalidClaim("aud")));
    }
}

#[test]
fn row_13_times_are_required_finite_and_bounded() {
    let bench = Bench::new();
    let day = 24 * 3600;
    for (name, value, expected) in [
        ("exp", at(-29), Ok(())),
        ("exp", at(-30), Err(TokenError::Expired)),
        ("exp", json!(1_800_000_000.5), Ok(())),
        ("exp", json!(null), Err(TokenError::InvalidClaim("exp"))),
        ("exp", json!("1800000600"), Err(TokenError::InvalidClaim("exp"))),
        ("exp", json!(-1), Err(TokenError::InvalidClaim("exp"))),
        ("exp", json!(1e300), Err(TokenError::InvalidClaim("exp"))),
        ("exp", at(day), Ok(())),
        ("exp", at(day + 1), Err(TokenError::LifetimeTooLong)),
        ("nbf", at(30), Ok(())),
        ("nbf", at(31), Err(TokenError::NotYetValid)),
        ("nbf", json!("0"), Err(TokenError::InvalidClaim("nbf"))),
        ("iat", at(31), Err(TokenError::NotYetValid)),
        ("iat", at(-day), Err(TokenError::LifetimeTooLong)),
        ("iat", json!(true), Err(TokenError::InvalidClaim("iat"))),
        ("sub", json!(7), Err(TokenError::InvalidClaim("sub"))),
    ] {
        assert_eq!(bench.judge_claims(&with(name, value.clone())), expected, "{name} = {value}");
    }
    // Without `iat` the lifetime counts from now.
    let mut open = with("iat", Value::Null);
    open["exp"] = at(day + 1);
    assert_eq!(bench.judge_claims(&open), Err(TokenError::LifetimeTooLong));
}

#[test]
fn a_token_is_good_until_its_end_and_the_leeway_while_it_is_meant_for_us() {
    let bench = Bench::new();
    let token = bench.key.sign(&header(json!({})), &claims().to_string());
    let verified = bench.verifier.verify(&token, now()).unwrap();
    assert_eq!(bench.verifier.good_until(&verified), Some(now() + Duration::from_secs(600 + 30)));
    for (issuer, audience) in [("https://other.example", "orders"), (ISSUER, "payments")] {
        let mut other = (*verified).clone();
        (other.issuer, other.audiences) = (issuer.into(), vec![audience.to_owned()]);
        assert_eq!(bench.verifier.good_until(&other), None, "{issuer} {audience}");
    }
}

#[test]
fn row_14_one_kind_of_token_does_not_pass_for_another() {
    let bench = Bench::new();
    for (typ, expected) in [
        (json!("JWT"), Ok(())),
        (json!("jwt"), Ok(())),
        (json!("application/at+jwt"), Ok(())),
        (json!("dpop+jwt"), Err(TokenError::WrongType)),
        (json!("wit+jwt"), Err(TokenError::WrongType)),
        (json!("logout+jwt"), Err(TokenError::WrongType)),
        (json!(""), Err(TokenError::WrongType)),
    ] {
        assert_eq!(bench.judge(&header(json!({ "typ": typ })), &claims().to_string()), expected, "{typ}");
    }
    assert_eq!(bench.judge_claims(&with("at_hash", json!("x"))), Err(TokenError::WrongType));
    // An issuer that varies is taken at its word. (Okta)
    let config = issuer(ISSUER).types(vec!["JWT".into(), "application/okta-internal-at+jwt".into()]);
    let varied = verifier(config, &[bench.key.jwk("k")]);
    let token = bench.key.sign(&header(json!({ "typ": "application/okta-internal-at+jwt" })), &claims().to_string());
    assert_eq!(varied.verify(&token, now()).map(drop), Err(TokenError::WrongType));
}

#[test]
fn a_touched_token_fails_wherever_it_is_touched() {
    let bench = Bench::new();
    let good = bench.key.sign(&header(json!({})), &claims().to_string());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let touched = String::from_utf8(bytes).unwrap();
        if touched != good {
            assert!(bench.judge_text(&touched).is_err(), "byte {at}");
        }
    }
}

#[test]
fn row_19_a_token_that_was_accepted_is_refused_when_anything_it_stood_on_is_gone() {
    let (key, other) = (TestKey::es256(), TestKey::es256());
    let set = keys(&[key.jwk("k")]);
    let verifier = TokenVerifier::default().with(issuer(ISSUER), set.clone());
    let mut claims = with("nbf", at(0));
    claims["exp"] = at(100);
    let token = key.sign(&header(json!({})), &claims.to_string());
    let judge = |seconds: i64| {
        let moment = if seconds < 0 {
            now() - Duration::from_secs(seconds.unsigned_abs())
        } else {
            now() + Duration::from_secs(seconds.unsigned_abs())
        };
        // A verifier that never saw the token says the same.
        let fresh = TokenVerifier::default().with(issuer(ISSUER), set.clone()).verify(&token, moment);
        let verdict = verifier.verify(&token, moment);
        assert_eq!(verdict, fresh, "at {seconds}");
        verdict
    };
    let first = judge(1).unwrap();
    assert!(Arc::ptr_eq(&first, &verifier.verify(&token, now() + Duration::from_secs(50)).unwrap()), "not kept");
    let leeway = i64::try_from(issuer(ISSUER).leeway.as_secs()).unwrap();
    for (seconds, verdict) in [
        (100 + leeway - 1, Ok(())),
        (100 + leeway, Err(TokenError::Expired)),
        (-leeway - 1, Err(TokenError::NotYetValid)),
        (0, Ok(())),
    ] {
        assert_eq!(judge(seconds).map(drop), verdict, "at {seconds}");
    }
    // The key is withdrawn, replaced under its own name, and there again.
    for (jwk, verdict) in [
        (other.jwk("o"), Err(TokenError::UnknownKey)),
        (other.jwk("k"), Err(TokenError::BadSignature)),
        (key.jwk("k"), Ok(())),
    ] {
        set.set.publish(keys(&[jwk]).set.load().value().clone());
        assert_eq!(judge(2).map(drop), verdict);
    }
    // Another set of issuers, made from this verifier, knows nothing of what this one accepted.
    let stricter = TokenVerifier::default().with(issuer("https://other.example"), set.clone());
    assert_eq!(stricter.verify(&token, now()).map(drop), Err(TokenError::UnknownIssuer));
    let grown = verifier.clone().with(issuer("https://other.example"), set.clone());
    assert!(!Arc::ptr_eq(&grown.verify(&token, now()).unwrap(), &verifier.verify(&token, now()).unwrap()));
}

#[test]
fn row_15_a_key_set_with_a_bad_key_is_refused_whole() {
    let good = TestKey::es256().jwk("good");
    let refused = |bad: Value, why: &str| {
        let set = json!({ "keys": [good.clone(), bad] }).to_string();
        let error = Jwks::parse(set.as_bytes()).unwrap_err().0;
        assert!(error.contains(why), "{error}");
    };
    let changed = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    refused(changed(TestKey::es256().jwk("b"), "d", json!("AA")), "private");
    refused(json!({ "kty": "oct", "kid": "b", "k": "AAAA" }), "private");
    refused(json!({ "kty": "oct", "kid": "b" }), "symmetric");
    refused(TestKey::es256().jwk("good"), "used twice");
    refused(changed(TestKey::rsa().jwk("b"), "n", json!(b64([0xff; 128]))), "1024 bits");
    refused(changed(TestKey::rsa().jwk("b"), "e", json!(b64([1]))), "no sense");
    refused(changed(TestKey::es256().jwk("b"), "x", json!(b64([7; 32]))), "no point");
    refused(changed(TestKey::es256().jwk("b"), "x", json!(b64([7; 31]))), "32 bytes");
    refused(changed(TestKey::es256().jwk("b"), "alg", json!("RS256")), "another type");
    refused(changed(TestKey::ed25519().jwk("b"), "x", json!(b64([7; 31]))), "Ed25519");
    refused(json!({ "kid": "b" }), "`kty` is missing");
    refused(json!("x"), "an object");
    // Keys for other purposes are left out, not refused.
    let others = json!({ "keys": [
        good,
        changed(TestKey::rsa().jwk("enc"), "use", json!("enc")),
        changed(TestKey::rsa().jwk("oaep"), "alg", json!("RSA-OAEP")),
        { "kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA" },
        { "kty": "AKP", "kid": "ml-dsa", "alg": "ML-DSA-44", "pub": "AA" },
    ] });
    assert!(Jwks::parse(others.to_string().as_bytes()).is_ok());
    assert!(Jwks::parse(br#"{"keys":[]}"#).is_err());
    assert!(Jwks::parse(b"{}").is_err());
}
