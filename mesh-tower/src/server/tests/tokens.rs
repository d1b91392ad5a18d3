//! What a token's issuer decides of a request: where the token may be, what the handler sees. (security.md 2, rows 10, 17,
//! 20, 22; section 1, RequestAuthentication)

use std::sync::Mutex;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use mesh_core::Plugin;
use mesh_core::fetch::{Fetch, FetchRequest, Fetched, Fetching};
use serde_json::{Value, json};

use super::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

struct Key(rcgen::KeyPair);

impl Key {
    fn new() -> Self {
        Self(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())
    }

    fn set(&self, kid: &str) -> String {
        let x = encode(rcgen::PublicKeyData::der_bytes(&self.0));
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }] }).to_string()
    }

    /// A token of `https://ISSUER.example` with these claims too.
    fn token(&self, issuer: &str, kid: &str, more: Value) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(0);
        let now =
            mesh_core::clock::WallClock::now(&mesh_core::clock::SystemClock).duration_since(now).unwrap().as_secs();
        let mut claims =
            json!({ "iss": format!("https://{issuer}.example"), "sub": "ann", "aud": "orders", "exp": now + 60 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let signed =
            format!("{}.{}", encode(json!({ "alg": "EdDSA", "kid": kid }).to_string()), encode(claims.to_string()));
        let signature = rcgen::SigningKey::sign(&self.0, signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}

/// Shows the handler's request: its URI, then the headers that it has of those asked for.
async fn show(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut seen = vec![request.uri().to_string()];
    for (name, value) in request.headers() {
        seen.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    seen.sort();
    Ok(Response::new(Body::from(seen.join("\n"))))
}

async fn send(kit: &Kit, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut sent = request(WEB, target);
    for (name, value) in headers {
        let name = http::HeaderName::try_from(*name).unwrap();
        sent.headers_mut().append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let response = stack(&kit.mesh, service_fn(show)).oneshot(sent).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

const ISSUERS: &str = r#"
tokens:
  - { issuer: "https://idp.example", audiences: [orders], jwks: { file: keys.json } }
  - issuer: "https://edge.example"
    audiences: [orders]
    jwks: { file: keys.json }
    from_headers: [ { name: x-edge-jwt, prefix: "JWT " } ]
    from_params: [ jwt ]
    forward_original_token: true
  - issuer: "https://claims.example"
    audiences: [orders]
    jwks: { file: keys.json }
    output_claim_to_headers: [ { header: X-User, claim: sub }, { header: x-level, claim: realm.level }, { header: x-none, claim: aud2 } ]
"#;

#[tokio::test]
async fn row_10_a_token_is_found_in_each_place_of_its_issuer_and_two_are_refused() {
    let key = Key::new();
    let kit = Kit::with_keys(ISSUERS, &key.set("k")).await;
    let [default, edge] = ["idp", "edge"].map(|issuer| key.token(issuer, "k", json!({})));
    let (bearer, jwt) = (format!("Bearer {default}"), format!("JWT {edge}"));
    let bearer_edge = format!("Bearer {edge}");
    let (param, param_edge) = (format!("/a?access_token={default}&x=1"), format!("/a?x=1&jwt={edge}"));
    let twice = format!("/a?access_token={default}&access_token={default}");
    let jwt_default = format!("JWT {default}");
    for (name, target, headers, status, seen) in [
        ("no token", "/a?x=1", vec![], 200, "https://orders/a?x=1".to_owned()),
        ("bearer, taken", "/a?x=1", vec![("authorization", &*bearer)], 200, "https://orders/a?x=1".to_owned()),
        ("parameter, taken", &param, vec![], 200, "https://orders/a?x=1".to_owned()),
        ("header, forwarded", "/a", vec![("x-edge-jwt", &*jwt)], 200, format!("https://orders/a\nx-edge-jwt: {jwt}")),
        ("its parameter, forwarded", &param_edge, vec![], 200, format!("https://orders{param_edge}")),
        ("bearer and parameter", &param, vec![("authorization", &*bearer)], 401, String::new()),
        ("bearer and header", "/a", vec![("authorization", &*bearer), ("x-edge-jwt", &*jwt)], 401, String::new()),
        ("header and parameter", &param, vec![("x-edge-jwt", &*jwt)], 401, String::new()),
        ("parameter twice", &twice, vec![], 401, String::new()),
        ("header twice", "/a", vec![("x-edge-jwt", &*jwt), ("x-edge-jwt", &*jwt)], 401, String::new()),
        ("another's place", "/a", vec![("x-edge-jwt", &*jwt_default)], 401, String::new()),
        ("not its place", "/a", vec![("authorization", &*bearer_edge)], 401, String::new()),
        ("an empty parameter", "/a?access_token=", vec![], 401, String::new()),
        (
            "no token in the header",
            "/a",
            vec![("x-edge-jwt", "opaque")],
            200,
            "https://orders/a\nx-edge-jwt: opaque".to_owned(),
        ),
    ] {
        let (found, body) = send(&kit, target, &headers).await;
        assert_eq!(found, status, "{name}: {body}");
        if status == 200 {
            assert_eq!(body, seen, "{name}");
        }
    }
    assert_eq!(kit.metric("mesh_server_rejected_total{reason=\"token_wrong_location\"}").as_deref(), Some("2"));
}

#[tokio::test]
async fn row_20_claims_reach_the_handler_in_headers_that_nobody_can_bring() {
    let key = Key::new();
    let kit = Kit::with_keys(ISSUERS, &key.set("k")).await;
    let forged: Vec<(&str, &str)> =
        vec![("x-user", "root"), ("x-user", "root2"), ("x_user", "root"), ("X-LEVEL", "9"), ("x-none", "root")];
    // Without a token, and with one of another issuer: what was forged is gone.
    let other = format!("Bearer {}", key.token("idp", "k", json!({})));
    for headers in [forged.clone(), [&forged[..], &[("authorization", &*other)]].concat()] {
        assert_eq!(send(&kit, "/a", &headers).await, (200, "https://orders/a".to_owned()));
    }
    let with = async |more: Value| {
        let token = format!("Bearer {}", key.token("claims", "k", more));
        send(&kit, "/a", &[&forged[..], &[("authorization", &*token)]].concat()).await
    };
    let body = |lines: &str| (200, format!("https://orders/a\n{lines}"));
    assert_eq!(with(json!({ "realm": { "level": 3 } })).await, body("x-level: 3\nx-user: ann"));
    assert_eq!(with(json!({ "realm.level": true, "realm": { "level": 3 } })).await, body("x-level: true\nx-user: ann"));
    assert_eq!(with(json!({ "realm": { "level": [3] }, "sub": "Jos\u{e9}" })).await, body("x-user: Jos\u{e9}"));
    for injected in ["ann\r\nx-level: 9", "ann\nx", "ann\rx", "a\u{0}b", "a\u{7f}"] {
        assert_eq!(with(json!({ "sub": injected })).await.0, 401, "{injected:?}");
    }
}

#[tokio::test]
async fn row_20_nobody_brings_claims_behind_the_body() {
    let kit = Kit::with_keys(ISSUERS, &Key::new().set("k")).await;
    let reads = service_fn(|request: Request<Body>| async {
        let read = request.into_body().collect().await;
        Ok(Response::new(Body::from(read.map_or_else(|error| error.to_string(), |_| "read".to_owned()))))
    });
    for (name, expected) in
        [("x-user", "stream cut: trailer"), ("x_user", "stream cut: trailer"), ("x-other", "read"), ("x-users", "read")]
    {
        let trailers = http::HeaderMap::from_iter([(name.parse().unwrap(), "root".parse().unwrap())]);
        let frames = [Ok::<_, Infallible>(http_body::Frame::<bytes::Bytes>::trailers(trailers))];
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let response = stack(&kit.mesh, reads).oneshot(request(WEB, "/a").map(|_| body)).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), expected, "{name}");
    }
}

#[tokio::test]
async fn row_22_a_bound_token_passes_on_the_connection_of_its_certificate_alone() {
    let key = Key::new();
    let kit = Kit::with_keys(ISSUERS, &key.set("k")).await;
    // The certificate of these connections is one of zeros.
    for (hash, status) in [([0; 32], 200), ([1; 32], 401)] {
        let token = key.token("idp", "k", json!({ "cnf": { "x5t#S256": encode(hash) } }));
        assert_eq!(send(&kit, "/a", &[("authorization", &format!("Bearer {token}"))]).await.0, status);
    }
    kit.permissive(kit.mesh.clock().now() + Duration::from_secs(3600));
    let bound = key.token("idp", "k", json!({ "cnf": { "x5t#S256": encode([0; 32]) } }));
    let mut sent = with(request(WEB, "/a"), "x", "y");
    let address = SocketAddr::from(([192, 0, 2, 1], 5));
    sent.extensions_mut().insert(Connection::for_test(Peer { address, svid: None }));
    sent.headers_mut().insert("authorization", format!("Bearer {bound}").parse().unwrap());
    let response = stack(&kit.mesh, service_fn(show)).oneshot(sent).await.unwrap();
    assert_eq!(response.status(), 401, "a connection without a certificate");
}

/// A provider that serves what it is told to, at once.
#[derive(Debug, Default)]
struct Provider(Mutex<(String, usize)>);

impl Fetch for Provider {
    fn get(&self, _: FetchRequest) -> Fetching {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        let body = state.0.clone();
        Box::pin(async move {
            sleep(Duration::from_millis(100)).await;
            Ok(Fetched::new(200, "", body))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn row_17_a_request_with_a_new_key_waits_for_it_and_one_with_junk_does_not_wait_twice() {
    let (old, new) = (Key::new(), Key::new());
    let provider = Arc::new(Provider(Mutex::new((old.set("old"), 0))));
    let dir = tempfile::tempdir().unwrap();
    let config = "workload: { name: orders, namespace: shop }\n\
                  identity: { trust_domain: test.example, source: { dev_ca: { dir: ca } } }\n\
                  policies: [policy.yaml]\n\
                  tokens: [{ issuer: 'https://idp.example', audiences: [orders], jwks: { url: 'https://idp.example/keys' } }]\n";
    std::fs::write(dir.path().join("mesh.yaml"), config).unwrap();
    std::fs::write(dir.path().join("policy.yaml"), ALLOW_WEB).unwrap();
    let audit = MemorySink::default();
    let builder = Mesh::builder().config_file(dir.path().join("mesh.yaml")).audit_sink(Box::new(audit.clone()));
    let mesh = builder.with(Plugin::new("test").fetch(provider.clone())).start().await.unwrap();
    let kit = Kit { mesh, audit, _dir: dir };
    let fetches = || provider.0.lock().unwrap().1;
    let bearer = |key: &Key, kid: &str| format!("Bearer {}", key.token("idp", kid, json!({})));
    let status = async |token: String| {
        let begun = Instant::now();
        (send(&kit, "/a", &[("authorization", &token)]).await.0, begun.elapsed())
    };
    assert_eq!(status(bearer(&old, "old")).await, (200, Duration::ZERO));
    provider.0.lock().unwrap().0 = new.set("new");
    let (found, took) = status(bearer(&new, "new")).await;
    assert!(found == 200 && took < Duration::from_secs(1), "{found} after {took:?}");
    assert_eq!((status(bearer(&old, "old")).await.0, fetches()), (401, 2));
    // Control: no lookup may begin now, so nobody waits, and nothing is fetched.
    for n in 0..100 {
        assert_eq!(status(bearer(&new, &format!("junk-{n}"))).await, (401, Duration::ZERO));
    }
    assert_eq!(fetches(), 2);
    sleep(Duration::from_secs(31)).await;
    let (found, took) = status(bearer(&new, "junk")).await;
    assert!(found == 401 && took < Duration::from_secs(1), "{found} after {took:?}");
    assert_eq!(fetches(), 3);
}
