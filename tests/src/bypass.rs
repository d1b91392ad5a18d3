//! Every known way past policy by a request with a second reading, as raw bytes over real sockets.
//!
//! One table, so that a fix that reaches one entry point and forgets another is seen (CVE-2026-26308). The control sends
//! the same bytes to the same router without the mesh: it serves what is refused here.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use http_body_util::BodyExt;
use mesh_core::audit::{AuditOutcome, AuditRecord};
use mesh_core::policy::canonical::{Canonicalization, is_stripped};
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::frames;
use crate::kit::{Reached, connect_as, read_answer, soon};

const WEB: &str = "spiffe://test/ns/test/sa/web";

/// Everybody may see `/public`, nobody `/admin`.
const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: public, namespace: test }
spec: { rules: [ { to: [ { operation: { paths: [/public, "/public/*", /shop.Orders/List] } } ] } ] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: test }
spec: { action: DENY, rules: [ { to: [ { operation: { paths: [/admin, "/admin/*"] } } ] } ] }
"#;

enum Wire {
    Http1(String),
    Http2(Vec<(&'static str, String)>),
}

struct Row {
    name: String,
    /// Where it was seen before: CVE, advisory or test suite.
    evidence: &'static str,
    wire: Wire,
    /// What the caller is told.
    status: &'static str,
    /// What is written down; empty: hyper or h2 refuse it before there is a request.
    reason: &'static str,
}

/// What the handler saw last.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<(String, Vec<String>)>>);

fn app(reached: &Reached, seen: &Seen) -> Router {
    let (reached, seen) = (reached.clone(), seen.clone());
    Router::new().fallback(move |request: Request| async move {
        reached.note();
        let names = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
        *seen.0.lock().unwrap() = (request.uri().path().to_owned(), names);
        // A body that breaks is an answer of its own.
        request.into_body().collect().await.map_err(|_| http::StatusCode::IM_A_TEAPOT).map(drop)
    })
}

fn get(target: &str) -> Wire {
    head(&format!("GET {target} HTTP/1.1\r\nhost: orders"))
}

fn head(head: &str) -> Wire {
    Wire::Http1(format!("{head}\r\nconnection: close\r\n\r\n"))
}

fn h2(fields: &[(&'static str, &str)]) -> Wire {
    let start = [(":method", "GET"), (":scheme", "https"), (":authority", "orders"), (":path", "/public")];
    let given = |name: &str| fields.iter().any(|(given, _)| *given == name);
    let start = start.into_iter().filter(|(name, _)| !given(name));
    // An empty value stands for a field that is left out.
    let all = start.chain(fields.iter().copied()).filter(|(_, value)| !value.is_empty());
    let mut all: Vec<_> = all.map(|(name, value)| (name, value.to_owned())).collect();
    all.sort_by_key(|(name, _)| !name.starts_with(':'));
    Wire::Http2(all)
}

fn grpc(path: &str) -> Wire {
    h2(&[(":method", "POST"), (":path", path), ("content-type", "application/grpc")])
}

/// Path, evidence, reason: over HTTP/1.1, HTTP/2 and, behind a service's name, gRPC.
const PATHS: [(&str, &str, &str); 33] = [
    ("/public/../admin", "CVE-2019-9901", "path_dot_segment"),
    ("/./admin", "CVE-2019-9901", "path_dot_segment"),
    ("/public/..", "CVE-2019-9901", "path_dot_segment"),
    ("/public/%2e%2e/admin", "CVE-2019-9901", "path_needless_escape"),
    ("/public/.%2E/admin", "CVE-2019-9901", "path_needless_escape"),
    ("/%61dmin", "CVE-2021-29492", "path_needless_escape"),
    ("//admin", "CVE-2021-31920", "path_empty_segment"),
    ("/public//../admin", "CVE-2021-31920", "path_empty_segment"),
    ("/public//x", "CVE-2026-26205", "path_empty_segment"),
    ("/public/%2fadmin", "CVE-2021-29492", "path_escaped_separator"),
    ("/public%2F..%2Fadmin", "CVE-2021-29492", "path_escaped_separator"),
    ("/public%5c..%5Cadmin", "CVE-2024-10005", "path_escaped_separator"),
    ("/public\\..\\admin", "CVE-2024-10005", "path_backslash"),
    ("/admin;x=y", "CVE-2026-73511", "path_parameter"),
    ("/public;/x", "CVE-2026-73511", "path_parameter"),
    ("/public/..;/admin", "CVE-2026-73551", "path_parameter"),
    ("/public/.;/admin", "CVE-2026-73553", "path_parameter"),
    ("/public/..;x%2fy/admin", "CVE-2026-73551", "path_parameter"),
    ("/public/%2e%2e;/admin", "Envoy 1.40 forwards `/..;/`", "path_needless_escape"),
    ("/public/%00", "Istio suite", "path_control"),
    ("/public/%0d%0ax:%20y", "Istio suite", "path_control"),
    ("/public/%7F", "Istio suite", "path_control"),
    ("/public/%", "Istio suite", "path_escape"),
    ("/public/%2", "Istio suite", "path_escape"),
    ("/public/%zz", "Istio suite", "path_escape"),
    ("/public/%%32e%%32e/", "Chromium, nested escapes", "path_escape"),
    ("/public/%C0%AE%C0%AE/admin", "Istio suite, overlong UTF-8", "path_not_utf8"),
    ("/public/%FF", "Istio suite", "path_not_utf8"),
    ("/public/%c3%a9", "two spellings of one path", "path_lower_case_escape"),
    ("/public/\"", "RFC 3986", "path_character"),
    ("/public/{id}", "RFC 3986", "path_character"),
    ("/public/^", "RFC 3986", "path_character"),
    ("/public/|", "RFC 3986", "path_character"),
];

/// Headers by which a caller claims to be somebody, or steers.
const FORGED: [&str; 14] = [
    "x-forwarded-client-cert",
    "x_forwarded_client_cert",
    "X-Forwarded_Client-Cert",
    "l5d-client-id",
    "l5d_client_id",
    "x-mesh-id",
    "x_mesh_principal",
    "x-envoy-original-path",
    "x_envoy_peer_metadata",
    "client-cert",
    "ssl-client-cert",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
];

fn row(name: impl Into<String>, evidence: &'static str, wire: Wire, status: &'static str, reason: &'static str) -> Row {
    Row { name: name.into(), evidence, wire, status, reason }
}

fn table() -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, evidence, reason) in PATHS {
        rows.push(row(format!("{path}, HTTP/1.1"), evidence, get(path), "400", reason));
        rows.push(row(format!("{path}, HTTP/2"), evidence, h2(&[(":path", path)]), "400", reason));
        rows.push(row(format!("{path}, gRPC"), evidence, grpc(path), "grpc 12", reason));
    }
    for name in FORGED {
        let lines = format!("GET /public HTTP/1.1\r\nhost: orders\r\n{name}: URI=spiffe://test/ns/test/sa/root");
        rows.push(row(format!("forged {name}, HTTP/1.1"), "CVE-2023-27487", head(&lines), "200", "allow_rule"));
        if !name.contains(char::is_uppercase) {
            let wire = h2(&[(name, "URI=spiffe://test/ns/test/sa/root")]);
            rows.push(row(format!("forged {name}, HTTP/2"), "CVE-2024-45806", wire, "200", "allow_rule"));
        }
    }
    for (path, evidence) in [
        ("/shop.Orders", "grpc-go malformed-method test"),
        ("/shop.Orders/", "grpc-go malformed-method test"),
        ("/shop.Orders/List/", "grpc-go malformed-method test"),
        ("/shop.Orders/List/x", "grpc-go malformed-method test"),
        ("/shop..Orders/List", "grpc-go malformed-method test"),
        ("/shop.Orders/Li-st", "CVE-2021-28682"),
        ("/shop.Orders/List?x", "CVE-2021-28682"),
        ("/", "grpc-go malformed-method test"),
    ] {
        rows.push(row(format!("gRPC {path}"), evidence, grpc(path), "grpc 12", "grpc_path"));
    }
    let host = |lines: &str| head(&format!("GET /public HTTP/1.1\r\n{lines}"));
    let admin = "GET /admin HTTP/1.1\r\nhost: orders";
    rows.extend([
        // What has one reading is judged by it.
        row("the path itself", "control", get("/admin"), "403", "deny_rule"),
        row("a trailing slash", "lint", get("/admin/"), "403", "deny_rule"),
        row("another case", "lint", get("/Admin"), "403", "no_allow_rule"),
        row("a longer name", "lint, `/admin*`", get("/administrator"), "403", "no_allow_rule"),
        row("escaped twice", "decoded never", get("/public/%252e%252e/admin"), "200", "allow_rule"),
        row("escaped twice, HTTP/2", "decoded never", h2(&[(":path", "/public/%252e%252e/admin")]), "200", "allow_rule"),
        row("a fragment", "CVE-2021-39156", get("/public#/../admin"), "200", "allow_rule"),
        row("a fragment behind", "CVE-2021-39156", get("/admin#/../public"), "403", "deny_rule"),
        row("a fragment, HTTP/2", "CVE-2021-39156", h2(&[(":path", "/public#/../admin")]), "200", "allow_rule"),
        row("a query", "CVE-2020-8595", get("/public?/../admin"), "200", "allow_rule"),
        row("a query behind", "CVE-2020-8595", get("/admin?/public"), "403", "deny_rule"),
        row("a query, HTTP/2", "CVE-2020-8595", h2(&[(":path", "/admin?/public")]), "another status", "deny_rule"),
        row("NUL", "Istio suite", get("/public/\0"), "400", "request_line"),
        // Forms of targets.
        row("no leading slash", "CVE-2026-33186", get("admin"), "400", "host_mismatch"),
        row("no leading slash, of our name", "CVE-2026-33186", get("orders"), "400", "path_form"),
        row("no leading slash, HTTP/2", "CVE-2026-33186", h2(&[(":path", "admin")]), "RST_STREAM", ""),
        row("no leading slash, gRPC", "CVE-2026-33186", grpc("shop.Orders/List"), "RST_STREAM", ""),
        row("no path, HTTP/2", "CVE-2026-73547", h2(&[(":path", "")]), "RST_STREAM", ""),
        row("two paths, HTTP/2", "CVE-2026-26308", h2(&[(":path", "/public"), (":path", "/admin")]), "RST_STREAM", ""),
        row("absolute form", "control", get("http://orders/public"), "200", "allow_rule"),
        row("absolute form of another", "CVE-2026-73547", get("http://other/public"), "400", "host_mismatch"),
        row("asterisk", "CVE-2026-73547", get("*"), "400", "target_form"),
        row("asterisk, HTTP/2", "CVE-2026-73547", h2(&[(":method", "OPTIONS"), (":path", "*")]), "400", "target_form"),
        row("CONNECT", "CVE-2026-73547", head("CONNECT orders:443 HTTP/1.1\r\nhost: orders:443"), "400", "target_form"),
        row(
            "CONNECT, HTTP/2",
            "CVE-2026-73547",
            h2(&[(":method", "CONNECT"), (":path", ""), (":scheme", "")]),
            "400",
            "target_form",
        ),
        row(
            "extended CONNECT",
            "CVE-2025-64763",
            h2(&[(":method", "CONNECT"), (":protocol", "websocket")]),
            "RST_STREAM",
            "",
        ),
        row("another scheme", "CVE-2023-35944", get("ftp://orders/public"), "400", "scheme"),
        row("a scheme in upper case", "CVE-2023-35944", h2(&[(":scheme", "HTTPS")]), "400", "scheme"),
        row("a scheme in mixed case, gRPC", "CVE-2023-35944", h2(&[(":scheme", "hTTps")]), "400", "scheme"),
        // Hosts.
        row("a host in upper case", "CVE-2021-39155", host("host: ORDERS"), "200", "allow_rule"),
        row("a host with a dot", "CVE-2021-39155", host("host: orders."), "200", "allow_rule"),
        row("a host with a port", "CVE-2021-39155", host("host: orders:8443"), "200", "allow_rule"),
        row("user information", "CVE-2021-39155", host("host: admin@orders"), "400", "host"),
        row("user information, HTTP/2", "CVE-2021-39155", h2(&[(":authority", "a@orders")]), "400", "host"),
        row("two hosts", "gRFC A41", host("host: orders\r\nhost: other"), "400", "duplicate_host"),
        row("the same host twice", "gRFC A41", host("host: orders\r\nhost: orders"), "400", "duplicate_host"),
        row("no host", "RFC 9112 3.2", host("x-a: b"), "400", "host_missing"),
        row("host and :authority", "gRFC A41", h2(&[("host", "other")]), "400", "host_mismatch"),
        row("host and :authority that agree", "control", h2(&[("host", "Orders.")]), "200", "allow_rule"),
        row("no authority, HTTP/2", "gRFC A41", h2(&[(":authority", "")]), "400", "host_missing"),
        // Headers that may come once.
        row(
            "two tokens",
            "CVE-2020-25017",
            host("host: orders\r\nauthorization: Bearer a\r\nauthorization: Bearer b"),
            "400",
            "duplicate_authorization",
        ),
        row(
            "two tokens, HTTP/2",
            "CVE-2021-32777",
            h2(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
            "400",
            "duplicate_authorization",
        ),
        row(
            "two types",
            "CVE-2026-26308",
            h2(&[("content-type", "a/b"), ("content-type", "c/d")]),
            "400",
            "duplicate_content_type",
        ),
        row("a header that another names", "CVE-2024-45410", head(&format!("{admin}\r\nconnection: x-a")), "403", "deny_rule"),
        // Other protocols, and bytes that come before them.
        row(
            "upgrade, and early bytes",
            "CVE-2026-73548",
            head(&format!("{admin}\r\nupgrade: websocket\r\n\r\nGET /public HTTP/1.1\r\nhost: orders")),
            "400",
            "upgrade",
        ),
        row("upgrade to HTTP/2", "CVE-2026-2833", host("host: orders\r\nupgrade: h2c"), "400", "upgrade"),
        row("upgrade, HTTP/2", "RFC 9113 8.2.2", h2(&[("upgrade", "websocket")]), "RST_STREAM", ""),
        row("connection, HTTP/2", "RFC 9113 8.2.2", h2(&[("connection", "x-mesh-id")]), "RST_STREAM", ""),
        // Framing; the rest of it is in `smuggling`.
        row(
            "a length beside chunks",
            "CVE-2021-21299",
            Wire::Http1(
                "POST /public HTTP/1.1\r\nhost: orders\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
            ),
            "400",
            "length_and_transfer_encoding",
        ),
        row(
            "a length with a sign",
            "CVE-2021-32715",
            host("host: orders\r\ncontent-length: +0"),
            "400",
            "content_length",
        ),
        row("a coding, HTTP/2", "CVE-2021-21299", h2(&[("transfer-encoding", "chunked")]), "RST_STREAM", ""),
    ]);
    rows
}

async fn orders() -> (RunningTestMesh, Reached, Seen) {
    orders_in(Canonicalization::Reject).await
}

async fn orders_in(mode: Canonicalization) -> (RunningTestMesh, Reached, Seen) {
    let (reached, seen) = (Reached::default(), Seen::default());
    let (http, grpc) = (app(&reached, &seen), app(&reached, &seen));
    let orders = TestService::new("orders").config(move |config| config.canonical = mode);
    let orders = orders.policy(POLICIES).app(move |_mesh| Ok(http)).grpc(move |_mesh| Ok(grpc));
    (TestMesh::new().with(orders).start().await.unwrap(), reached, seen)
}

fn status_of(answer: &str) -> String {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or(answer).to_owned()
}

fn request(fields: &[(&str, String)]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    frames::request(&fields, &[], None)
}

/// How the mesh answers, and what it wrote down.
async fn ask(mesh: &RunningTestMesh, row: &Row, records: &mut usize) -> (String, Option<AuditRecord>) {
    let answer = match &row.wire {
        Wire::Http1(bytes) => {
            let mut stream = connect_as(mesh, WEB, "orders", "http/1.1").await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let answer = soon(&row.name, read_answer(&mut stream)).await.unwrap();
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{}: a second request was read: {answer}", row.name);
            status_of(&answer)
        }
        Wire::Http2(fields) => frames::answer(mesh, WEB, &request(fields)).await.to_owned(),
    };
    let mut written = mesh.audit("orders").await.unwrap();
    assert!(written.len() <= *records + 1, "{}: one record", row.name);
    let record = (written.len() > *records).then(|| written.pop().unwrap());
    *records += usize::from(record.is_some());
    (answer, record)
}

#[tokio::test]
async fn nobody_gets_past_policy_by_a_second_reading() {
    let (mesh, reached, seen) = orders().await;
    let (mut records, mut answered) = (0, 0);
    for row in table() {
        let name = format!("{} ({})", row.name, row.evidence);
        let (status, record) = ask(&mesh, &row, &mut records).await;
        let code = record.as_ref().and_then(|record| record.grpc_status);
        let told = code.map_or(status.clone(), |code| format!("grpc {code}"));
        assert_eq!((told.as_str(), record.as_ref().map_or("", |r| r.reason)), (row.status, row.reason), "{name}");
        if status == "200" && code.is_none() {
            answered += 1;
            let (path, names) = seen.0.lock().unwrap().clone();
            assert_eq!(record.map(|record| record.path), Some(path), "{name}: policy and handler see one path");
            assert!(!names.iter().any(|name| is_stripped(name)), "{name}: {names:?}");
        } else if let Some(record) = record {
            let outcome = if record.status == 403 { AuditOutcome::Deny } else { AuditOutcome::Reject };
            assert_eq!((record.outcome, record.peer.as_deref()), (outcome, Some(WEB)), "{name}");
        }
        assert_eq!(reached.count(), answered, "{name}");
    }
    assert!(answered > 25, "the way itself is open: {answered}");
}

/// The control: without the mesh each of these paths reaches the handler as it was sent.
#[tokio::test]
async fn the_same_router_alone_serves_them() {
    let (reached, seen) = (Reached::default(), Seen::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, app(&reached, &seen)).into_future());
    let rows: Vec<Row> =
        table().into_iter().filter(|row| PATHS.iter().any(|(path, ..)| row.name.starts_with(path))).collect();
    assert_eq!(rows.len(), 3 * PATHS.len());
    for row in &rows {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let status = match &row.wire {
            Wire::Http1(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                status_of(&soon(&row.name, read_answer(&mut stream)).await.unwrap())
            }
            Wire::Http2(fields) => frames::exchange(&mut stream, &request(fields)).await.to_owned(),
        };
        assert_eq!(status, "200", "{}", row.name);
        assert!(row.name.starts_with(&seen.0.lock().unwrap().0), "{}: {seen:?}", row.name);
    }
    assert_eq!(reached.count(), rows.len());
    server.abort();
}

/// What HTTP/1.1 refuses below hyper (`smuggling`) HTTP/2 must not let through.
#[tokio::test]
async fn nobody_claims_an_identity_behind_the_body() {
    const START: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "https"), (":authority", "orders"), (":path", "/public")];
    let (mesh, reached, _) = orders().await;
    let names = ["x-forwarded-client-cert", "x_mesh_id", "l5d-client-id", "authorization", "host", "content-length"];
    for (n, name) in names.into_iter().enumerate() {
        let frames = frames::request(&START, &[b"abcde"], Some(&[("x-sum", "1"), (name, "5")]));
        assert_eq!(frames::answer(&mesh, WEB, &frames).await, "400", "{name}");
        let record = mesh.audit("orders").await.unwrap().pop().unwrap();
        assert_eq!((record.outcome, record.reason), (AuditOutcome::Reject, "trailer"), "{name}");
        assert_eq!(reached.count(), n + 1, "it is the body that is refused");
    }
    let frames = frames::request(&START, &[b"abcde"], Some(&[("x-sum", "1")]));
    assert_eq!(frames::answer(&mesh, WEB, &frames).await, "200");
}

/// Where a listener must take paths with several readings, policy judges what a handler may make of them.
#[tokio::test]
async fn other_modes_judge_every_reading() {
    use Canonicalization::{Base, DecodeAndMergeSlashes, Dual, MergeSlashes, None};
    for (mode, path, status, reason, seen_as) in [
        (Dual, "/public/a", "200", "allow_rule", "/public/a"),
        (Dual, "/public//a", "200", "allow_rule", "/public//a"),
        (Dual, "/public/a;x", "200", "allow_rule", "/public/a;x"),
        (Dual, "/public/../admin", "403", "deny_rule", ""),
        (Dual, "/public/%2e%2e/admin", "403", "deny_rule", ""),
        (Dual, "/public%2f..%5cadmin", "403", "deny_rule", ""),
        (Dual, "/public/..;/admin", "403", "deny_rule", ""),
        (Dual, "/admin;x", "403", "deny_rule", ""),
        (Dual, "/%61dmin", "403", "deny_rule", ""),
        (Dual, "//admin", "403", "deny_rule", ""),
        (Dual, "/admin/../public/a", "403", "deny_rule", ""),
        (Dual, "/x/../public/a", "403", "no_allow_rule", ""),
        (Dual, "/public/%00", "400", "path_control", ""),
        (Dual, "/public/%zz", "400", "path_escape", ""),
        (None, "/public/../admin", "200", "allow_rule", "/public/../admin"),
        (Base, "/public/../admin", "403", "deny_rule", ""),
        (Base, "/x/../public/%61?y=//", "200", "allow_rule", "/public/a"),
        (Base, "//admin", "403", "no_allow_rule", ""),
        (Base, "/public%2f..%2fadmin", "403", "no_allow_rule", ""),
        (MergeSlashes, "//admin", "403", "deny_rule", ""),
        (MergeSlashes, "//public///a", "200", "allow_rule", "/public/a"),
        (DecodeAndMergeSlashes, "/public%2f..%5cadmin", "403", "deny_rule", ""),
        (DecodeAndMergeSlashes, "/public%2fa", "200", "allow_rule", "/public/a"),
    ] {
        let (mesh, reached, seen) = orders_in(mode).await;
        for wire in [get(path), h2(&[(":path", path)])] {
            let name = format!("{path} in {mode}");
            let over_h2 = matches!(wire, Wire::Http2(_));
            let row = row(name.clone(), "", wire, status, reason);
            let mut records = mesh.audit("orders").await.unwrap().len();
            let (told, record) = ask(&mesh, &row, &mut records).await;
            // The status 403 has no place in HPACK's table.
            let expected = if over_h2 && status == "403" { "another status" } else { status };
            assert_eq!(
                (told.as_str(), record.as_ref().map(|record| record.reason)),
                (expected, Some(reason)),
                "{name}"
            );
            if status == "200" {
                assert_eq!(seen.0.lock().unwrap().0, seen_as, "{name}");
                assert_eq!(record.unwrap().path, seen_as, "{name}");
            }
        }
        assert_eq!(reached.count(), if status == "200" { 2 } else { 0 }, "{path} in {mode}");
    }
}
