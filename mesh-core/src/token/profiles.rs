//! Whose tokens, from where, in whose hands: the rules of one issuer. (security.md 2, rows 10, 15, 20 to 22)

use serde_json::{Value, json};

use super::roca::power_of_65537;
use super::testkit::{ISSUER, TestKey, at, b64, claims, issuer, keys, now};
use super::{IssuerKeys, Jwks, Location, Presented, TokenError, TokenVerifier};
use crate::config::{IssuerConfig, PlugConfig, TokenHeader};

const HEADER: &str = r#"{"alg":"ES256","kid":"k"}"#;

fn signed(key: &TestKey, claims: &Value) -> String {
    key.sign(HEADER, &claims.to_string())
}

fn plus(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn row_22_a_bound_token_is_good_with_its_certificate_alone() {
    let key = TestKey::es256();
    let verifier = TokenVerifier::default().with(issuer(ISSUER), keys(&[key.jwk("k")]));
    let (own, other) = ([7; 32], [8; 32]);
    let judge = |claims: &Value, certificate| {
        let presented = Presented { certificate, ..Presented::default() };
        verifier.judge(&signed(&key, claims), presented, now()).map(drop).map_err(|refused| refused.error)
    };
    let bound = plus("cnf", json!({ "x5t#S256": b64(own) }));
    let wrong = Err(TokenError::WrongCertificate);
    // Twice: the second time what was verified is remembered, and the binding is checked all the same.
    for _ in 0..2 {
        assert_eq!(judge(&bound, Some(&own)), Ok(()));
        assert_eq!(judge(&bound, Some(&other)), wrong);
        assert_eq!(judge(&bound, None), wrong);
    }
    assert_eq!(verifier.verify(&signed(&key, &bound), now()).map(drop), wrong);
    // Control: without a binding nobody asks.
    assert_eq!(judge(&claims(), None), Ok(()));
    let unknown = Err(TokenError::SenderConstrained);
    let invalid = Err(TokenError::InvalidClaim("cnf"));
    for (confirmation, expected) in [
        (json!({ "jkt": "x" }), unknown),
        (json!({ "jwk": {} }), unknown),
        (json!({ "kid": "x" }), unknown),
        (json!({}), unknown),
        (json!({ "x5t#S256": b64(own), "jkt": "x" }), unknown),
        (json!({ "x5t": b64(own) }), unknown),
        (json!({ "x5t#S256": b64([7; 31]) }), invalid),
        (json!({ "x5t#S256": format!("{}=", b64(own)) }), invalid),
        (json!({ "x5t#S256": 7 }), invalid),
        (json!(null), invalid),
        (json!("x5t#S256"), invalid),
    ] {
        assert_eq!(judge(&plus("cnf", confirmation.clone()), Some(&own)), expected, "{confirmation}");
    }
}

#[test]
fn row_20_nothing_of_a_token_counts_before_its_signature_holds() {
    let (key, other) = (TestKey::es256(), TestKey::es256());
    let verifier = TokenVerifier::default().with(issuer(ISSUER), keys(&[key.jwk("k")]));
    let verdict = |key: &TestKey, claims: &Value| verifier.verify(&signed(key, claims), now()).map(drop);
    for (claims, expected) in [
        (plus("exp", at(-600)), TokenError::Expired),
        (plus("aud", json!("payments")), TokenError::WrongAudience),
        (plus("nbf", json!("soon")), TokenError::InvalidClaim("nbf")),
        (plus("sub", json!(7)), TokenError::InvalidClaim("sub")),
        (plus("cnf", json!({ "jkt": "x" })), TokenError::SenderConstrained),
        (plus("at_hash", json!("x")), TokenError::WrongType),
    ] {
        // Whoever cannot sign learns nothing from what a claim would have done; with the right key it decides.
        assert_eq!(verdict(&other, &claims), Err(TokenError::BadSignature), "{claims}");
        assert_eq!(verdict(&key, &claims), Err(expected), "{claims}");
    }
}

fn jwt_svid_issuer(domain: &str) -> IssuerConfig {
    let jwks = PlugConfig::new("jwt_svid", &json!({ "file": "bundle.json" }));
    IssuerConfig::new(format!("spiffe://{domain}"), vec!["orders".to_owned()], jwks)
}

fn bundle(key: &TestKey) -> IssuerKeys {
    let mut jwk = key.jwk("k");
    jwk["use"] = json!("jwt-svid");
    let x509 = json!({ "kty": "EC", "crv": "P-256", "use": "x509-svid", "x": jwk["x"], "y": jwk["y"], "x5c": ["AA"] });
    let set = json!({ "spiffe_sequence": 1, "keys": [x509, jwk] }).to_string();
    IssuerKeys::new(Jwks::parse_jwt_svid(set.as_bytes()).unwrap().into())
}

#[test]
fn row_21_a_jwt_svid_is_judged_by_its_own_rules_and_by_its_own_trust_domain() {
    let (ours, theirs, idp) = (TestKey::es256(), TestKey::es256(), TestKey::es256());
    let verifier = TokenVerifier::default()
        .with(issuer(ISSUER), keys(&[idp.jwk("k")]))
        .with(jwt_svid_issuer("td"), bundle(&ours))
        .with(jwt_svid_issuer("partner"), bundle(&theirs));
    let svid = |sub: &str| json!({ "sub": sub, "aud": ["orders"], "exp": at(300), "iat": at(0) });
    let changed = |name: &str, value: Value| {
        let mut claims = svid("spiffe://td/web");
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        claims
    };
    let judge =
        |key: &TestKey, header: &str, claims: &Value| verifier.verify(&key.sign(header, &claims.to_string()), now());
    let token = judge(&ours, HEADER, &svid("spiffe://td/web")).unwrap();
    assert_eq!((&*token.issuer, token.subject.as_deref()), ("spiffe://td", Some("spiffe://td/web")));
    assert!(judge(&theirs, HEADER, &svid("spiffe://partner/x")).is_ok());
    // An `iss` that nobody configured says nothing; one that is configured decides.
    assert!(judge(&ours, HEADER, &changed("iss", json!("https://spire.example"))).is_ok());
    let verdict = |key: &TestKey, header: &str, claims: &Value| judge(key, header, claims).map(drop);
    assert_eq!(verdict(&ours, HEADER, &changed("iss", json!(ISSUER))), Err(TokenError::BadSignature));
    // Another trust domain's name under our key, and ours under theirs.
    for (key, sub, expected) in [
        (&ours, "spiffe://partner/x", TokenError::BadSignature),
        (&theirs, "spiffe://td/web", TokenError::BadSignature),
        (&ours, "spiffe://unknown/x", TokenError::InvalidClaim("iss")),
        (&ours, "SPIFFE://td/web", TokenError::InvalidClaim("iss")),
        (&ours, "spiffe://td/../web", TokenError::InvalidClaim("iss")),
        (&ours, "web", TokenError::InvalidClaim("iss")),
    ] {
        assert_eq!(verdict(key, HEADER, &svid(sub)), Err(expected), "{sub}");
    }
    for (header, expected) in [
        (r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#, Ok(())),
        (r#"{"alg":"ES256","kid":"k","typ":"JOSE"}"#, Ok(())),
        (r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, Err(TokenError::WrongType)),
        (r#"{"alg":"ES256","kid":"k","typ":"jwt"}"#, Err(TokenError::WrongType)),
        (r#"{"alg":"ES256"}"#, Err(TokenError::UnknownKey)),
        (r#"{"alg":"EdDSA","kid":"k"}"#, Err(TokenError::KeyMismatch)),
    ] {
        assert_eq!(verdict(&ours, header, &svid("spiffe://td/web")), expected, "{header}");
    }
    let more = r#"{"alg":"ES256","kid":"k","x":"y"}"#;
    assert!(matches!(verdict(&ours, more, &svid("spiffe://td/web")), Err(TokenError::Malformed(_))));
    for (name, value, expected) in [
        ("aud", json!(null), TokenError::InvalidClaim("aud")),
        ("aud", json!(["payments"]), TokenError::WrongAudience),
        ("exp", json!(null), TokenError::InvalidClaim("exp")),
        ("exp", at(-31), TokenError::Expired),
    ] {
        assert_eq!(verdict(&ours, HEADER, &changed(name, value)), Err(expected), "{name}");
    }
    // A bundle's keys for certificates sign no tokens, and a key for tokens has a name.
    let mut unnamed = ours.jwk("k");
    unnamed["use"] = json!("jwt-svid");
    unnamed.as_object_mut().unwrap().remove("kid");
    for jwk in [ours.jwk("k"), unnamed] {
        assert!(Jwks::parse_jwt_svid(json!({ "keys": [jwk] }).to_string().as_bytes()).is_err());
    }
    // Control: what is good for JWT-SVIDs is no key of any other issuer.
    let mut svid_key = idp.jwk("k");
    svid_key["use"] = json!("jwt-svid");
    assert!(Jwks::parse(json!({ "keys": [svid_key] }).to_string().as_bytes()).is_err());
}

#[test]
fn row_10_a_token_is_taken_from_where_its_issuer_has_it_and_from_nowhere_else() {
    let (here, there) = (TestKey::es256(), TestKey::es256());
    let custom = issuer("https://other.example")
        .from_headers(vec![TokenHeader::new("X-Jwt", "T "), TokenHeader::new("x-jwt", "")])
        .from_params(vec!["jwt".to_owned()]);
    let verifier =
        TokenVerifier::default().with(issuer(ISSUER), keys(&[here.jwk("k")])).with(custom, keys(&[there.jwk("k")]));
    let places = verifier.locations();
    assert_eq!(places.headers().collect::<Vec<_>>(), ["x-jwt", "x-jwt"]);
    assert_eq!(places.params().collect::<Vec<_>>(), ["access_token", "jwt"]);
    let [default, other] = [signed(&here, &claims()), signed(&there, &plus("iss", json!("https://other.example")))];
    for (token, allowed) in [
        (&default, [Location::Bearer, Location::Param(0)]),
        (&other, [Location::Header(0), Location::Param(1)]),
        (&other, [Location::Header(1), Location::Param(1)]),
    ] {
        for location in allowed {
            let presented = Presented { location, ..Presented::default() };
            assert!(verifier.judge(token, presented, now()).is_ok(), "{location:?}");
        }
    }
    for (token, refused) in [
        (&default, [Location::Header(0), Location::Param(1), Location::Header(9)]),
        (&other, [Location::Bearer, Location::Param(0), Location::Param(9)]),
    ] {
        for location in refused {
            let presented = Presented { location, ..Presented::default() };
            let error = verifier.judge(token, presented, now()).unwrap_err().error;
            assert_eq!(error, TokenError::WrongLocation, "{location:?}");
        }
    }
    // In a header: the longest prefix that fits, one value, one token.
    let find = |values: &[&'static str]| {
        let found = [0, 1].map(|index| places.in_header(index, values.iter().map(|value| value.as_bytes())));
        found.map(|found| found.map_err(|error| error.reason()))
    };
    assert_eq!(find(&[]), [Ok(None), Ok(None)]);
    assert_eq!(find(&["T a.b.c"]), [Ok(Some("a.b.c")), Ok(None)]);
    assert_eq!(find(&["a.b.c"]), [Ok(None), Ok(Some("a.b.c"))]);
    assert_eq!(find(&["a.b.c", "a.b.c"]), [Err("token_ambiguous"), Err("token_ambiguous")]);
    assert_eq!(find(&["T a.b.c, T d.e.f"]), [Err("token_ambiguous"), Ok(None)]);
    assert_eq!(find(&["T "]), [Err("token_malformed"), Ok(None)]);
    // In a query.
    let query = |text| places.in_query(text).map_err(|error| error.reason());
    for (text, expected) in [
        ("", Ok(None)),
        ("a=b&Access_token=x", Ok(None)),
        ("a=b&access_token=a.b.c", Ok(Some((Location::Param(0), "a.b.c")))),
        ("jwt=a.b.c&x", Ok(Some((Location::Param(1), "a.b.c")))),
        ("access_token=a.b.c&access_token=a.b.c", Err("token_ambiguous")),
        ("access_token=a.b.c&jwt=d.e.f", Err("token_ambiguous")),
        ("access_token", Err("token_malformed")),
        ("access_token=", Err("token_malformed")),
        ("access_token=a%2Eb.c", Err("token_malformed")),
    ] {
        assert_eq!(query(text), expected, "{text}");
    }
    // Nobody takes tokens: then a parameter of that name is the handler's.
    assert_eq!(TokenVerifier::default().locations().params().len(), 0);
}

#[test]
fn row_15_rsa_keys_that_can_be_factored_are_refused() {
    let set = |jwk: &Value| Jwks::parse(json!({ "keys": [jwk] }).to_string().as_bytes());
    let mut key = TestKey::rsa().jwk("k");
    assert!(set(&key).is_ok(), "a control");
    key["n"] = json!(b64(power_of_65537(128)));
    let error = set(&key).unwrap_err();
    assert!(error.0.contains("ROCA"), "{error}");
}
