//! `mesh token verify`, and whose tokens `check` and `explain` know.

use super::*;

#[test]
fn token_verify_says_one_line_for_each_token_in_order() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use serde_json::json;

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let x = encode(rcgen::PublicKeyData::der_bytes(&key));
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
    fs::write(dir.join("keys.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
    fs::write(dir.join("key.json"), jwk.to_string()).unwrap();
    fs::write(dir.join("twice.json"), json!({ "keys": [jwk, jwk] }).to_string()).unwrap();
    fs::write(dir.join("payload"), "any payload").unwrap();
    let sign = |header: Value, payload: &str| {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload.as_bytes()));
        format!("{signed}.{}", encode(&rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap()))
    };
    let header = json!({ "alg": "EdDSA", "kid": "k" });
    let claims = json!({ "iss": "https://idp.example", "sub": "ann", "aud": "orders", "exp": 1_800_000_600, "iat": 1_800_000_000 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(header.clone(), &claims.to_string())
    };
    let line = |reason: &str| format!(r#"{{"valid":false,"reason":"{reason}","claims":null}}"#);
    let ok = format!(r#"{{"valid":true,"reason":null,"claims":{claims}}}"#);
    let good = sign(header.clone(), &claims.to_string());
    let table = [
        (good.clone(), ok.clone()),
        (with("aud", json!("payments")), line("token_wrong_audience")),
        (String::new(), line("token_malformed")),
        (format!("{good}\r"), line("token_malformed")),
        (with("iss", json!("https://evil.example")), line("token_unknown_issuer")),
        (with("pad", json!("x".repeat(9000))), line("token_too_large")),
        ("a".repeat(1_000_000), line("token_too_large")),
        (sign(json!({ "alg": "none" }), &claims.to_string()), line("token_forbidden_algorithm")),
        (sign(json!({ "alg": "EdDSA", "kid": "k", "typ": "wit+jwt" }), &claims.to_string()), line("token_wrong_type")),
        (sign(json!({ "alg": "EdDSA", "kid": "other" }), &claims.to_string()), line("token_unknown_key")),
        (good.replace("eyJ", "eyK"), line("token_malformed")),
        (with("cnf", json!({ "jkt": "x" })), line("token_sender_constrained")),
        (good.clone(), ok.clone()),
    ];
    let (input, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    fs::write(dir.join("tokens"), input.join("\n")).unwrap();
    fs::write(dir.join("token"), format!("{good}\n")).unwrap();
    let issuer = ["token", "verify", "--jwks", "keys.json", "--issuer", "https://idp.example", "--audience", "orders"];
    let verify = |more: &[&str]| lines(dir, &[&issuer[..], more].concat());
    assert_eq!(verify(&["--at", "1800000001", "tokens"]), (1, expected));
    assert_eq!(verify(&["--at", "1800000001", "token"]), (0, vec![ok.clone()]));
    assert_eq!(
        verify(&["--at", "1800000001", "--audience", "other", "--typ", "jwt", "--algorithms", "ES256,EdDSA", "token"])
            .0,
        0
    );
    // However the audiences are spelled, and wherever the file stands.
    let head = &issuer[..issuer.len() - 2];
    for spelled in [
        &["--audience", "other", "orders", "--typ", "at+jwt", "JWT", "--at", "1800000001", "token"][..],
        &["--at", "1800000001", "--audience", "other", "orders", "token"],
        &["--at", "1800000001", "--typ", "at+jwt", "JWT", "token", "--audience", "other", "--audience", "orders"],
        &["token", "--at", "1800000001", "--audience", "other", "orders"],
        &["--at", "1800000001", "token", "--audience=orders"],
    ] {
        assert_eq!(lines(dir, &[head, spelled].concat()), (0, vec![ok.clone()]), "{spelled:?}");
    }
    for (more, reason) in [
        (["--at", "1800000630"], "token_expired"),
        (["--at", "1799999000"], "token_not_yet_valid"),
        (["--algorithms", "ES256"], "token_algorithm_not_accepted"),
        (["--typ", "at+jwt"], "token_wrong_type"),
    ] {
        let at: &[&str] = if more[0] == "--at" { &[] } else { &["--at", "1800000001"] };
        assert_eq!(verify(&[at, &more, &["token"]].concat()), (1, vec![line(reason)]), "{more:?}");
    }
    // Keys that cannot be used: nothing holds under them, and that is told.
    for keys in ["twice.json", "nowhere.json", "token"] {
        let said = lines(dir, &["token", "verify", "--jwks", keys, "--issuer", "i", "--audience", "a", "token"]);
        assert_eq!(said, (3, vec![line("keys_unusable")]), "{keys}");
    }
    // Signatures alone, over anything; detached too.
    let signed = sign(json!({ "alg": "EdDSA" }), "any payload");
    let (head, rest) = signed.split_once('.').unwrap();
    let detached = format!("{head}..{}", rest.split_once('.').unwrap().1);
    fs::write(dir.join("signed"), format!("{signed}\n{good}\n{}", signed.replacen("eyJ", "eyK", 1))).unwrap();
    fs::write(dir.join("detached"), &detached).unwrap();
    let only =
        |more: &[&str]| lines(dir, &[&["token", "verify", "--signature-only", "--key", "key.json"], more].concat());
    let holds = r#"{"valid":true,"reason":null,"claims":null}"#.to_owned();
    assert_eq!(only(&["signed"]), (1, vec![holds.clone(), holds.clone(), line("token_malformed")]));
    assert_eq!(only(&["--payload", "payload", "detached"]), (0, vec![holds]));
    assert_eq!(only(&["--payload", "key.json", "detached"]), (1, vec![line("token_bad_signature")]));
    assert_eq!(only(&["detached"]), (1, vec![line("token_bad_signature")]));
    assert_eq!(only(&["--payload", "nowhere", "detached"]), (3, vec![]));
    assert_eq!(verify(&["nowhere"]), (3, vec![]));
    for wrong in [
        vec!["--signature-only", "token"],
        vec!["--signature-only", "--key", "key.json", "--issuer", "i", "token"],
        vec!["--payload", "payload", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "--audience", "a", "--algorithms", "HS256", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "--audience", "a"],
    ] {
        assert_eq!(lines(dir, &[&["token", "verify"][..], &wrong].concat()), (2, vec![]), "{wrong:?}");
    }
    // As in the README, word for word.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let command = format!("{} --at 1800000630 token", issuer.join(" "));
    assert!(readme.contains(&format!("$ mesh {command}\n{}\n", line("token_expired"))));
}

#[test]
fn check_and_explain_know_whose_tokens_are_taken() {
    let (_guard, dir) = workspace();
    let set = fs::read_to_string(keys_of_an_issuer(&dir)).unwrap();
    let document = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: {name}, namespace: shop \
             }}\nspec:\n  selector: {{ matchLabels: {{ app: {labels} }} }}\n  jwtRules: [ {{ issuer: 'https://idp.example', \
             audiences: [{labels}], jwks: '{set}' }} ]\n"
        )
    };
    fs::write(dir.join("policies/jwt.yaml"), document("jwt", "orders") + &document("other", "web")).unwrap();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["issuers"]), (0, &serde_json::json!(["https://idp.example"])), "{json}");
    let [listed] = json["request_authentications"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&listed["name"], &listed["line"]), (&"shop/jwt".into(), &2.into()));
    assert_eq!((&json["lint"]["warnings"], &json["warnings"]), (&0.into(), &serde_json::json!([])), "{json}");
    let text = String::from_utf8(mesh(&dir, &["check", "mesh.yaml"]).stdout).unwrap();
    assert!(text.contains("RequestAuthentication shop/jwt: https://idp.example, ./policies/jwt.yaml:2:1"), "{text}");

    for (claims, code, status, reason) in [
        (r#"{"iss":"https://idp.example","sub":"ann","aud":"orders"}"#, 0, None, None),
        (r#"{"iss":"https://idp.example","sub":"ann","aud":"web"}"#, 1, Some(401), Some("token_wrong_audience")),
        (r#"{"iss":"https://idp2.example","sub":"ann"}"#, 1, Some(401), Some("token_unknown_issuer")),
    ] {
        let args =
            ["explain", "--config", "mesh.yaml", "--anonymous", "--path", "/x", "--method", "POST", "--claims", claims];
        let (exit, json) = ask(&dir, &args);
        assert_eq!((exit, json["status"].as_u64(), json["reason"].as_str()), (code, status, reason), "{json}");
    }

    // What no document says is wrong with is wrong with the two together.
    let second = document("third", "orders").replace("audiences", "forwardOriginalToken: true, audiences");
    fs::write(dir.join("policies/jwt2.yaml"), second).unwrap();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["issues"][0]["field"]), (1, &"spec.jwtRules[0].issuer".into()), "{json}");
    let message = json["issues"][0]["message"].as_str().unwrap();
    assert!(message.contains("policies/jwt.yaml:7 (spec.jwtRules[0])"), "{message}");
}
