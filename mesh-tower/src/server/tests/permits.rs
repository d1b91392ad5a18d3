//! Streams end with what let them in: policy, token, issuer.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use mesh_core::clock::WallClock;
use mesh_core::token::TokenVerifier;
use tokio::task::JoinHandle;

use super::*;

/// Calendar time that moves with tokio's.
#[derive(Debug)]
struct Calendar(Instant);

impl WallClock for Calendar {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// A mesh that accepts tokens, and `Bearer` of one that expires after 60 s, which are 90 s with the leeway.
async fn kit_and_token() -> (Kit, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let x = encode(rcgen::PublicKeyData::der_bytes(&key));
    let dir = tempfile::tempdir().unwrap();
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","use":"sig","x":"{x}"}}]}}"#);
    std::fs::write(dir.path().join("keys.json"), keys).unwrap();
    std::fs::write(dir.path().join("policy.yaml"), ALLOW_WEB).unwrap();
    let config = "workload: { name: orders, namespace: shop }\n\
                  identity: { trust_domain: test.example, source: { dev_ca: { dir: ca } } }\n\
                  policies: [policy.yaml]\n\
                  tokens: [{ issuer: 'https://idp.example', audiences: [orders], leeway: 30s, jwks: { file: keys.json } }]\n";
    std::fs::write(dir.path().join("mesh.yaml"), config).unwrap();
    let (audit, clock) = (MemorySink::default(), Arc::new(Calendar(Instant::now())));
    let builder = Mesh::builder().config_file(dir.path().join("mesh.yaml")).audit_sink(Box::new(audit.clone()));
    let kit = Kit { mesh: builder.clock(clock).start().await.unwrap(), audit, _dir: dir };
    let now = kit.mesh.clock().now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"iss":"https://idp.example","sub":"ann","aud":"orders","exp":{}}}"#, now + 60);
    let signed = format!("{}.{}", encode(br#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#), encode(claims.as_bytes()));
    let signature = encode(&rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap());
    (kit, format!("Bearer {signed}.{signature}"))
}

fn silent() -> Body {
    Body::new(StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>()))
}

/// A stream in each direction: how the response ends, how the handler does that reads, and how the task does that goes
/// on reading after its handler has answered. Nothing is sent on any of them.
struct Streams {
    response: JoinHandle<Option<Code>>,
    handler: JoinHandle<http::StatusCode>,
    reader: JoinHandle<String>,
}

impl Streams {
    async fn open(kit: &Kit, token: &str) -> Self {
        let request = |body: Body| {
            let mut request = grpc(request(WEB, "/S/M")).map(|_| body);
            request.headers_mut().insert("authorization", token.parse().unwrap());
            request
        };
        let answers = service_fn(|_| async { Ok(Response::new(silent())) });
        let response = stack(&kit.mesh, answers).oneshot(request(Body::empty())).await.unwrap();
        let response =
            tokio::spawn(
                async move { grpc::status(response.into_body().collect().await.unwrap().trailers().unwrap()) },
            );
        let reads = service_fn(|request: Request<Body>| async {
            drop(request.into_body().collect().await);
            Ok(Response::new(Body::from("read to its end")))
        });
        let mut plain = request(silent());
        plain.headers_mut().remove("content-type");
        let handler = stack(&kit.mesh, reads).oneshot(plain);
        let handler = tokio::spawn(async move { handler.await.unwrap().status() });
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Arc::new(Mutex::new(Some(tell)));
        let leaves = service_fn(move |request: Request<Body>| {
            let read = async { request.into_body().collect().await.unwrap_err().to_string() };
            tell.lock().unwrap().take().unwrap().send(tokio::spawn(read)).unwrap();
            async { Ok(Response::new(Body::empty())) }
        });
        let answered = stack(&kit.mesh, leaves).oneshot(request(silent())).await.unwrap();
        answered.into_body().collect().await.unwrap();
        Self { response, handler, reader: told.await.unwrap() }
    }

    async fn end(self, code: Code, status: u16, reason: &str) {
        assert_eq!(self.response.await.unwrap(), Some(code));
        assert_eq!(self.handler.await.unwrap(), status);
        let error = self.reader.await.unwrap();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_streams_end_in_both_directions_with_what_let_them_in() {
    type Change = fn(&Kit);
    let nothing: Change = |_| {};
    let policy: Change = |kit| kit.publish(ALLOW_BATCH);
    let issuer: Change = |kit| {
        let now = kit.mesh.revision().load();
        let tokens = Arc::new(TokenVerifier::default());
        kit.mesh.revision().publish(Revision { tokens, ..now.value().clone() });
    };
    for (change, lasts, code, status, reason) in [
        (nothing, 90, Code::UNAUTHENTICATED, 401, "permit_token_expired"),
        (policy, 10, Code::PERMISSION_DENIED, 403, "permit_revoked"),
        (issuer, 10, Code::UNAUTHENTICATED, 401, "permit_issuer_removed"),
    ] {
        let (kit, token) = kit_and_token().await;
        let start = Instant::now();
        let streams = Streams::open(&kit, &token).await;
        sleep(Duration::from_secs(10)).await;
        change(&kit);
        streams.end(code, status, reason).await;
        assert_eq!(start.elapsed().as_secs(), lasts, "{reason}");
        // Each request once, though two of its sides may have seen it.
        assert_eq!(kit.metric("mesh_server_streams_revoked_total").as_deref(), Some("3"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_in_full_is_sent_after_the_token_ended() {
    let (kit, token) = kit_and_token().await;
    let slow = service_fn(|_| async {
        sleep(Duration::from_secs(120)).await;
        Ok(Response::new(Body::from("done")))
    });
    let mut request = request(WEB, "/a");
    request.headers_mut().insert("authorization", token.parse().unwrap());
    let response = stack(&kit.mesh, slow).oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
}

/// Silent, but of an announced length.
struct Announced(u64);

impl http_body::Body for Announced {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_length_does_not_outlive_policy() {
    let (kit, token) = kit_and_token().await;
    let reads = service_fn(|request: Request<Body>| async {
        drop(request.into_body().collect().await);
        Ok(Response::new(Body::from("read to its end")))
    });
    let mut request = grpc(request(WEB, "/S/M")).map(|_| Body::new(Announced(u64::MAX - 1)));
    request.headers_mut().insert("authorization", token.parse().unwrap());
    let handler = tokio::spawn(stack(&kit.mesh, reads).oneshot(request));
    sleep(Duration::from_secs(10)).await;
    kit.publish(ALLOW_BATCH);
    sleep(Duration::from_secs(1)).await;
    assert!(handler.is_finished(), "still read after policy shut its caller out");
}

#[tokio::test(start_paused = true)]
async fn what_decides_nothing_ends_no_stream() {
    let reads_headers = |action: &str, annotations: &str| {
        format!(
            "{ALLOW_WEB}---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: more, namespace: shop, annotations: {{ {annotations} }} }}\n\
             spec: {{ action: {action}, rules: [{{ when: [{{ key: 'request.headers[x-a]', values: [b] }}] }}] }}\n"
        )
    };
    for (action, annotations, ends) in
        [("AUDIT", "", false), ("DENY", "istio.io/dry-run: 'true'", false), ("DENY", "", true)]
    {
        let kit = Kit::new("").await;
        let reads = service_fn(|request: Request<Body>| async {
            drop(request.into_body().collect().await);
            Ok(Response::new(Body::from("read to its end")))
        });
        let handler = tokio::spawn(stack(&kit.mesh, reads).oneshot(request(WEB, "/a").map(|_| silent())));
        sleep(Duration::from_secs(1)).await;
        kit.publish(&reads_headers(action, annotations));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(handler.is_finished(), ends, "{action} {annotations}");
    }
}

/// The same policy as a binding of a role, or as a document of none.
fn publish_as(kit: &Kit, role: Option<&str>) {
    let mut documents = parse_documents("p.yaml", ALLOW_WEB, &mut Errors::default());
    for document in &mut documents {
        document.role = role.map(Into::into);
    }
    let options = EngineOptions::new(TrustDomain::parse("test.example").unwrap());
    let policy = Arc::new(PolicyEngine::compile(&documents, kit.mesh.workload(), &options));
    let now = kit.mesh.revision().load();
    kit.mesh.revision().publish(Revision { policy, ..now.value().clone() });
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_role_that_its_route_required() {
    for kept in [false, true] {
        let kit = Kit::new("").await;
        publish_as(&kit, Some("reader"));
        let answers = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(silent())) });
        let required = tower_layer::Layer::layer(&crate::require::role("reader"), answers);
        let response = stack(&kit.mesh, required).oneshot(grpc(request(WEB, "/S/M"))).await.unwrap();
        assert!(response.headers().get("grpc-status").is_none());
        let end =
            tokio::spawn(
                async move { grpc::status(response.into_body().collect().await.unwrap().trailers().unwrap()) },
            );
        sleep(Duration::from_secs(10)).await;
        publish_as(&kit, kept.then_some("reader"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(end.is_finished(), !kept, "policy lets it in either way");
        if !kept {
            assert_eq!(end.await.unwrap(), Some(Code::PERMISSION_DENIED));
        }
    }
}
