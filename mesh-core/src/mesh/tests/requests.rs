//! `RequestAuthentication` in a mesh: whose tokens hold, before and after a reload.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::config::{IssuerConfig, PlugConfig};
use crate::token::TokenError;
use crate::token::testkit::{Provider, TestKey, claims};

const ISSUER: &str = crate::token::testkit::ISSUER;

fn document(fields: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: jwt, namespace: shop }}\n\
         spec: {{ jwtRules: [ {{ issuer: '{ISSUER}', {fields} }} ] }}\n"
    )
}

fn inline(key: &TestKey, fields: &str) -> String {
    let set = json!({ "keys": [key.jwk("k")] });
    document(&format!("jwks: '{set}', {fields}"))
}

fn signed(key: &TestKey, audience: &str) -> String {
    let now = SystemClock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut all = claims();
    (all["aud"], all["iat"], all["exp"]) = (json!(audience), json!(now), json!(now + 300));
    key.sign(r#"{"alg":"ES256","kid":"k"}"#, &all.to_string())
}

fn verdict(mesh: &Mesh, token: &str) -> Result<(), TokenError> {
    mesh.revision().load().tokens.verify(token, SystemClock.now()).map(drop)
}

#[tokio::test(start_paused = true)]
async fn rules_and_policies_change_together_or_not_at_all() {
    let (home, key) = (Home::new(), TestKey::es256());
    let [orders, payments] = ["orders", "payments"].map(|audience| signed(&key, audience));
    let mesh = home.builder().start().await.unwrap();
    assert_eq!(verdict(&mesh, &orders), Err(TokenError::UnknownIssuer), "the control: nobody's tokens are taken");

    home.write("policies/jwt.yaml", &inline(&key, "audiences: [orders]"));
    until("the document is in force", || mesh.revision().generation() == 2).await;
    assert_eq!((verdict(&mesh, &orders), verdict(&mesh, &payments)), (Ok(()), Err(TokenError::WrongAudience)));

    // A second document of the issuer, and with it in one step a policy: one is wrong, neither comes.
    let second = inline(&key, "audiences: [payments]").replace("name: jwt", "name: jwt2");
    for wrong in [
        second.replace("audiences: [payments]", "audiences: []"),
        second.replace("audiences: [payments]", "audiences: [payments], forwardOriginalToken: true"),
        second.replace("name: jwt2", "name: jwt"),
        second.replace("\"kty\":\"EC\"", "\"kty\":\"oct\""),
    ] {
        let before = mesh.reload_error();
        home.write("policies/b.yaml", &format!("{}---\n{wrong}", POLICY.replace("NAME", "b")));
        until("refused", || mesh.reload_error() != before).await;
        let told = home.told(&mesh.reload_error().unwrap());
        assert!(told[0].contains("policies/b.yaml:"), "{told:?}");
        assert_eq!((mesh.revision().generation(), mesh.revision().load().policy.len()), (2, 1), "{told:?}");
        assert_eq!((verdict(&mesh, &orders), verdict(&mesh, &payments)), (Ok(()), Err(TokenError::WrongAudience)));
    }
    home.write("policies/b.yaml", &format!("{}---\n{second}", POLICY.replace("NAME", "b")));
    until("both are in force", || mesh.revision().load().policy.len() == 2).await;
    assert_eq!((verdict(&mesh, &orders), verdict(&mesh, &payments)), (Ok(()), Ok(())));

    for file in ["policies/b.yaml", "policies/jwt.yaml"] {
        std::fs::remove_file(home.path(file)).unwrap();
    }
    until("both are gone", || mesh.revision().load().policy.len() == 1).await;
    assert_eq!(verdict(&mesh, &orders), Err(TokenError::UnknownIssuer));
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_where_the_document_says_and_nowhere_without_a_plugin() {
    let (home, key) = (Home::new(), TestKey::es256());
    let provider = Arc::new(Provider::default());
    let set = json!({ "keys": [key.jwk("k")] });
    provider.serve("https://idp.example/keys", &set);
    let discovered: Value = json!({ "issuer": ISSUER, "jwks_uri": "https://idp.example/found" });
    provider.serve("https://idp.example/.well-known/openid-configuration", &discovered);
    provider.serve("https://idp.example/found", &set);
    let with = || home.builder().with(Plugin::new("test").fetch(provider.clone()));
    for (fields, asked) in [
        ("audiences: [orders], jwksUri: 'https://idp.example/keys', timeout: 2s", "https://idp.example/keys"),
        ("audiences: [orders]", "https://idp.example/found"),
    ] {
        home.write("policies/jwt.yaml", &document(fields));
        let mesh = with().start().await.unwrap();
        assert_eq!(verdict(&mesh, &signed(&key, "orders")), Ok(()), "{fields}");
        assert_eq!(provider.asked().last().unwrap().1, asked);
        let [first] = &home.refusal(home.builder()).await[..] else { panic!() };
        assert!(first.starts_with("policies/jwt.yaml:4:") && first.contains("needs a plugin"), "{first}");
    }
    home.write("policies/jwt.yaml", &document("audiences: [orders], jwksUri: 'https://idp.example/other'"));
    let [first] = &home.refusal(with()).await[..] else { panic!() };
    assert!(first.contains("jwtRules[0].jwksUri: no keys") && first.contains("connection refused"), "{first}");
}

#[tokio::test(start_paused = true)]
async fn any_audience_is_taken_in_compat_alone_and_is_said() {
    let (home, key) = (Home::new(), TestKey::es256());
    home.write("policies/jwt.yaml", &inline(&key, "forwardOriginalToken: false"));
    let [first] = &home.refusal(home.builder()).await[..] else { panic!() };
    assert!(first.contains("jwtRules[0].audiences: a rule without `audiences`"), "{first}");
    assert!(first.contains("authorization: { mode: compat }"), "{first}");

    home.write("mesh.yaml", &format!("{MESH}authorization: {{ mode: compat }}\n"));
    let mesh = home.builder().start().await.unwrap();
    assert_eq!(verdict(&mesh, &signed(&key, "payments")), Ok(()));
    let mut none = claims();
    none.as_object_mut().unwrap().remove("aud");
    none["exp"] = json!(SystemClock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 300);
    none.as_object_mut().unwrap().remove("iat");
    let sign = |claims: &Value| key.sign(r#"{"alg":"ES256","kid":"k"}"#, &claims.to_string());
    assert_eq!(verdict(&mesh, &sign(&none)), Ok(()));
    none["aud"] = json!(7);
    assert_eq!(verdict(&mesh, &sign(&none)), Err(TokenError::InvalidClaim("aud")));
    let report = home.builder().check().await.unwrap();
    let said: Vec<_> = report.warnings.iter().map(|warning| warning.message.as_str()).collect();
    let [_base, tokens] = said[..] else { panic!("{said:?}") };
    assert_eq!(tokens, "tokens of \"https://idp.example\" are accepted whatever service they are meant for");
    assert_eq!((report.issuers.len(), report.warnings[1].place.path.as_str()), (1, "spec.jwtRules[0].jwks"));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_from_code_brings_keys_to_a_document_and_stands_alone_without() {
    let (home, key, other) = (Home::new(), TestKey::es256(), TestKey::es256());
    let set = json!({ "keys": [other.jwk("k")] }).to_string();
    let issuer = || IssuerConfig::new(ISSUER, vec!["test".to_owned()], PlugConfig::new("inline", &json!(set)));
    let mesh = home.builder().issuer(issuer()).start().await.unwrap();
    assert_eq!(verdict(&mesh, &signed(&other, "test")), Ok(()));
    home.write("policies/jwt.yaml", &inline(&key, "audiences: [orders]"));
    until("the document is in force", || mesh.revision().generation() == 2).await;
    assert_eq!(verdict(&mesh, &signed(&other, "orders")), Ok(()), "its keys");
    assert_eq!(verdict(&mesh, &signed(&other, "test")), Err(TokenError::WrongAudience), "the document's audiences");
    assert_eq!(verdict(&mesh, &signed(&key, "orders")), Err(TokenError::BadSignature), "and not the document's keys");
}

#[tokio::test(start_paused = true)]
async fn inline_keys_are_read_where_they_stand() {
    let (home, key) = (Home::new(), TestKey::es256());
    let tokens = |set: &str| {
        format!("{MESH}tokens: [ {{ issuer: '{ISSUER}', audiences: [orders], jwks: {{ inline: {set} }} }} ]\n")
    };
    home.write("mesh.yaml", &tokens(&format!("'{}'", json!({ "keys": [key.jwk("k")] }))));
    let mesh = home.builder().start().await.unwrap();
    assert_eq!(verdict(&mesh, &signed(&key, "orders")), Ok(()));
    for (set, expected) in
        [("'{'", "not a JWK set"), ("{ keys: [] }", "expected a string"), ("'{\"keys\":[]}'", "no key")]
    {
        home.write("mesh.yaml", &tokens(set));
        let told = home.refusal(home.builder()).await;
        assert!(told[0].contains("tokens[0].jwks.inline: ") && told[0].contains(expected), "{told:?}");
    }
}
