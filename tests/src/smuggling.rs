//! Messages with two readings, as raw bytes over real TLS: what one reader takes for a body, another takes for a request.

use axum::Router;
use axum::extract::Request;
use http_body_util::BodyExt;
use mesh_core::audit::AuditOutcome;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tokio::io::AsyncWriteExt;

use crate::frames;
use crate::kit::{Reached, connect_as, read_answer, soon, until};

const WEB: &str = "spiffe://test/ns/test/sa/web";
/// The request that hides behind another.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: orders\r\n\r\n";

/// A service that reads bodies, except under `/deaf`, and notes who came, and who came by stealth.
async fn orders() -> (RunningTestMesh, Reached, Reached) {
    let (reached, smuggled) = (Reached::default(), Reached::default());
    let (all, stealthy) = (reached.clone(), smuggled.clone());
    let handler = move |request: Request| async move {
        all.note();
        if request.uri().path() == "/smuggled" {
            stealthy.note();
        }
        if request.uri().path() == "/deaf" {
            return Ok(String::new());
        }
        let body = request.into_body().collect().await.map_err(|_| http::StatusCode::BAD_REQUEST)?.to_bytes();
        Ok::<_, http::StatusCode>(format!("{} bytes", body.len()))
    };
    let service = TestService::new("orders").app(move |_mesh| Ok(Router::new().fallback(handler)));
    (TestMesh::new().with(service).start().await.unwrap(), reached, smuggled)
}

/// Sends `bytes`; the statuses that were answered until the server closed.
async fn statuses(mesh: &RunningTestMesh, bytes: &[u8], name: &str) -> Vec<String> {
    let mut stream = connect_as(mesh, WEB, "orders", "http/1.1").await;
    stream.write_all(bytes).await.unwrap();
    let answer = soon(name, read_answer(&mut stream)).await.unwrap();
    let statuses = answer
        .match_indices("HTTP/1.")
        .filter_map(|(at, start)| answer.get(at + start.len() + 2..at + start.len() + 5));
    statuses.map(str::to_owned).collect()
}

#[tokio::test]
async fn heads_with_two_readings_are_refused_and_nothing_behind_them_is_read() {
    let (mesh, reached, smuggled) = orders().await;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nhost: orders\r\n{fields}\r\n{SMUGGLED}");
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: orders\r\n{fields}\r\n{body}{SMUGGLED}");
    let line = |line: &str| format!("{line}\r\nhost: orders\r\n\r\n{SMUGGLED}");
    let rows: Vec<(&str, String, &str)> = vec![
        // hyper alone takes these, each with one of its two readings.
        (
            "a length beside chunks",
            post("content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            "length_and_transfer_encoding",
        ),
        (
            "chunks beside a length",
            post("transfer-encoding: chunked\r\ncontent-length: 60\r\n", "0\r\n\r\n"),
            "length_and_transfer_encoding",
        ),
        ("the same length twice", post("content-length: 0\r\ncontent-length: 0\r\n", ""), "duplicate_content_length"),
        ("a length by another name", post("content-length: 0\r\ncontent_length: 60\r\n", ""), "header_name"),
        ("two codings", post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), "transfer_encoding"),
        ("chunks of chunks", post("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"), "transfer_encoding"),
        (
            "a coding twice",
            post("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            "transfer_encoding",
        ),
        (
            "chunks twice",
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            "duplicate_transfer_encoding",
        ),
        ("a coding by another name", post("transfer_encoding: chunked\r\n", ""), "header_name"),
        ("bare LF", get("x: y\nz: w\r\n"), "line_end"),
        ("a head of bare LF", format!("GET / HTTP/1.1\nhost: orders\n\n{SMUGGLED}"), "line_end"),
        ("an end of bare LF", format!("GET / HTTP/1.1\r\nhost: orders\r\n\n{SMUGGLED}"), "line_end"),
        ("empty lines first", line("\r\n\r\nGET / HTTP/1.1"), "request_line"),
        ("an upgrade, and early bytes", get("connection: upgrade\r\nupgrade: websocket\r\n"), "upgrade"),
        ("an upgrade to HTTP/2", get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"), "upgrade"),
        ("CONNECT, and early bytes", line("CONNECT orders:443 HTTP/1.1"), "target_form"),
        // hyper alone refuses these; here with a reason, and a record.
        ("two lengths", post("content-length: 0\r\ncontent-length: 60\r\n", ""), "duplicate_content_length"),
        ("a list of lengths", post("content-length: 5, 5\r\n", "abcde"), "content_length"),
        ("a signed length", post("content-length: +5\r\n", "abcde"), "content_length"),
        ("a length with a space", post("content-length: 5 0\r\n", "abcde"), "content_length"),
        ("a hexadecimal length", post("content-length: 0x5\r\n", "abcde"), "content_length"),
        ("a length too long", post("content-length: 18446744073709551621\r\n", "abcde"), "content_length"),
        ("no coding", post("transfer-encoding: identity\r\n", "0\r\n\r\n"), "transfer_encoding"),
        ("a coding within", post("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"), "transfer_encoding"),
        ("nearly a coding", post("transfer-encoding: xchunked\r\n", "0\r\n\r\n"), "transfer_encoding"),
        ("a coding with a parameter", post("transfer-encoding: chunked;q=1\r\n", "0\r\n\r\n"), "transfer_encoding"),
        ("a coding behind a vertical tab", post("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n"), "header_value"),
        (
            "a coding in HTTP/1.0",
            format!("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            "transfer_encoding",
        ),
        ("a folded line", get("x: y\r\n transfer-encoding: chunked\r\n"), "header_fold"),
        (
            "a line that begins with white space",
            format!("GET / HTTP/1.1\r\n host: orders\r\n\r\n{SMUGGLED}"),
            "header_fold",
        ),
        ("a name with a space", post("transfer-encoding : chunked\r\n", "0\r\n\r\n"), "header_name"),
        ("a name with a tab", post("content-length\t: 5\r\n", "abcde"), "header_name"),
        ("no name", get(": y\r\n"), "header_name"),
        ("bare CR", get("x: y\rtransfer-encoding: chunked\r\n"), "header_value"),
        ("NUL", get("x: y\0\r\n"), "header_value"),
        ("HTTP/0.9", format!("GET /\r\n{SMUGGLED}"), "request_line"),
        ("HTTP/2 by hand", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"), "request_line"),
        ("two spaces", line("GET  / HTTP/1.1"), "request_line"),
        ("white space first", line(" GET / HTTP/1.1"), "request_line"),
    ];
    let metrics = mesh.mesh("orders").unwrap().metrics();
    let mut records = 0;
    for (name, bytes, reason) in &rows {
        let counted = metrics.transport.unreadable_for(reason);
        assert_eq!(statuses(&mesh, bytes.as_bytes(), name).await, ["400"], "{name}");
        assert_eq!((reached.count(), smuggled.count()), (0, 0), "{name}");
        until("the reason", async || (metrics.transport.unreadable_for(reason) == counted + 1).then_some(())).await;
        let record = mesh.audit("orders").await.unwrap().pop().unwrap();
        records += 1;
        assert_eq!(mesh.audit("orders").await.unwrap().len(), records, "{name}");
        assert_eq!((record.outcome, record.reason, record.status), (AuditOutcome::Reject, *reason, 400), "{name}");
        assert_eq!(record.peer.as_deref(), Some(WEB), "{name}");
    }
    assert_eq!(metrics.transport.closed_for("unreadable"), records as u64);
    // Behind a good request its answer comes first; and the way itself is open.
    let good = "GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
    let bad = format!("{good}{}", rows[0].1);
    assert_eq!(statuses(&mesh, bad.as_bytes(), "after a good one").await, ["200", "400"]);
    assert_eq!((reached.count(), smuggled.count()), (1, 0));
    let two = format!("{good}GET /smuggled HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n{good}");
    assert_eq!(statuses(&mesh, two.as_bytes(), "two good ones").await, ["200", "200"], "none behind `close`");
    assert_eq!((reached.count(), smuggled.count()), (3, 1));
    // HTTP/1.0 closes by itself.
    let old = format!("GET / HTTP/1.0\r\nhost: orders\r\n\r\n{SMUGGLED}");
    assert_eq!(statuses(&mesh, old.as_bytes(), "HTTP/1.0").await.len(), 1);
    assert_eq!((reached.count(), smuggled.count()), (4, 1));
}

/// What hyper would answer by itself, without a trace.
#[tokio::test]
async fn heads_beyond_their_limits_are_counted_and_recorded() {
    let (mesh, reached, smuggled) = orders().await;
    let metrics = mesh.mesh("orders").unwrap().metrics();
    let head = |target: &[u8], fields: &str| {
        [b"GET ", target, b" HTTP/1.1\r\nhost: orders\r\n", fields.as_bytes(), b"\r\n", SMUGGLED.as_bytes()].concat()
    };
    let rows: [(&str, Vec<u8>, u16, &str); 5] = [
        ("too many headers", head(b"/", &"x: y\r\n".repeat(100)), 431, "too_many_headers"),
        ("too long headers", head(b"/", &format!("x: {}\r\n", "y".repeat(17_000))), 431, "headers_too_large"),
        ("a target too long", head(&[b"/", &[b'a'; 17_000][..]].concat(), ""), 431, "headers_too_large"),
        ("a target beyond ASCII", head(b"/\xe4", ""), 400, "target"),
        ("a target that is no URI", head(b"/a<b", ""), 400, "target"),
    ];
    for (name, bytes, status, reason) in &rows {
        let counted = metrics.transport.unreadable_for(reason);
        assert_eq!(statuses(&mesh, bytes, name).await, [status.to_string()], "{name}");
        assert_eq!((reached.count(), smuggled.count()), (0, 0), "{name}");
        until("the reason", async || (metrics.transport.unreadable_for(reason) == counted + 1).then_some(())).await;
        let record = mesh.audit("orders").await.unwrap().pop().unwrap();
        assert_eq!((record.outcome, record.reason, record.status), (AuditOutcome::Reject, *reason, *status), "{name}");
        assert_eq!(record.peer.as_deref(), Some(WEB), "{name}");
    }
    assert_eq!(mesh.audit("orders").await.unwrap().len(), rows.len());
    let text = metrics.encode();
    for (reason, count) in [("too_many_headers", 1), ("headers_too_large", 2), ("target", 2)] {
        let line = format!("mesh_server_rejected_total{{reason=\"{reason}\"}} {count}");
        assert!(text.contains(&line), "{line}");
    }
    // At the limit, and behind a good one.
    let most = format!("GET / HTTP/1.1\r\nhost: orders\r\n{}\r\n", "x: y\r\n".repeat(99));
    let two = [most.as_bytes(), &rows[0].1].concat();
    assert_eq!(statuses(&mesh, &two, "at the limit").await, ["200", "431"]);
    assert_eq!((reached.count(), smuggled.count()), (1, 0));
}

#[tokio::test]
async fn bodies_with_two_readings_end_their_connection() {
    let (mesh, reached, smuggled) = orders().await;
    let metrics = mesh.mesh("orders").unwrap().metrics();
    let oversize = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(300));
    let rows = [
        // hyper alone takes these.
        ("a space behind the size", "5 \r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("a long extension", &oversize, "chunk"),
        ("NUL in an extension", "5;\0\r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("a length behind the body", "0\r\ncontent-length: 60\r\n\r\n", "trailer"),
        ("a coding behind the body", "0\r\ntransfer-encoding: chunked\r\n\r\n", "trailer"),
        ("a host behind the body", "0\r\nhost: other\r\n\r\n", "trailer"),
        ("a token behind the body", "0\r\nauthorization: Bearer x\r\n\r\n", "trailer"),
        ("an identity behind the body", "0\r\nx_forwarded-client-cert: By=x\r\n\r\n", "trailer"),
        ("trailers of bare LF", "0\r\nx: y\n\r\n", "line_end"),
        // hyper alone refuses these.
        ("an end of bare LF", "0\r\n\n", "line_end"),
        ("an extension with LF", "5;x\nabcde\r\n0\r\n\r\n", "chunk"), // CVE-2025-22871
        ("a size with LF", "5\nabcde\r\n0\r\n\r\n", "chunk"),
        ("a signed size", "+5\r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("a size with 0x", "0x5\r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("a size too long", "10000000000000005\r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("no size", "\r\nabcde\r\n0\r\n\r\n", "chunk"),
        ("more than its size", "4\r\nabcde\r\n0\r\n\r\n", "chunk"),
    ];
    for (n, (name, body, reason)) in rows.iter().enumerate() {
        for (path, status) in [("/", "400"), ("/deaf", "200")] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n");
            let counted = metrics.transport.unreadable_for(reason);
            let bytes = format!("{head}{body}{SMUGGLED}");
            assert_eq!(statuses(&mesh, bytes.as_bytes(), name).await, [status], "{name} {path}");
            until("the reason", async || (metrics.transport.unreadable_for(reason) == counted + 1).then_some(())).await;
        }
        assert_eq!((reached.count(), smuggled.count()), (2 * n + 2, 0), "{name}");
    }
    // The way itself is open.
    let body = "5;x=\"y\"\r\nabcde\r\n0\r\nx-sum: 1\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nhost: orders\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let close = SMUGGLED.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    assert_eq!(statuses(&mesh, format!("{head}{body}{close}").as_bytes(), "good").await, ["200", "200"]);
    assert_eq!(smuggled.count(), 1);
    // A body where none is announced is a request that is none.
    let none = format!("GET / HTTP/1.1\r\nhost: orders\r\ncontent-length: 0\r\n\r\nabcde\r\n{SMUGGLED}");
    assert_eq!(statuses(&mesh, none.as_bytes(), "an unannounced body").await, ["200", "400"]);
    assert_eq!(smuggled.count(), 1);
}

/// What HTTP/2 says twice, its framing says once; hyper and h2 hold senders to it. (RFC 9113 8.1.1, 8.2.2)
#[tokio::test]
async fn http2_requests_that_contradict_their_framing_are_refused() {
    const START: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "https"), (":authority", "orders"), (":path", "/")];
    let (mesh, _, smuggled) = orders().await;
    let post = |fields: &[(&str, &str)], body: &[&[u8]], trailers: Option<&[(&str, &str)]>| {
        frames::request(&[&START, fields].concat(), body, trailers)
    };
    for (name, frames) in [
        ("a coding", post(&[("transfer-encoding", "chunked")], &[b"0\r\n\r\n"], None)),
        ("a connection", post(&[("connection", "close")], &[b"x"], None)),
        ("an upgrade", post(&[("upgrade", "websocket")], &[b"x"], None)),
        ("keep-alive", post(&[("keep-alive", "timeout=5")], &[b"x"], None)),
        ("a proxy's connection", post(&[("proxy-connection", "close")], &[b"x"], None)),
        ("te", post(&[("te", "chunked")], &[b"x"], None)),
        ("upper case", post(&[("Content-Length", "1")], &[b"x"], None)),
        ("a line end in a value", post(&[("x", "y\r\ntransfer-encoding: chunked")], &[b"x"], None)),
        ("NUL in a value", post(&[("x", "y\0z")], &[b"x"], None)),
        ("a colon in a name", post(&[("x: y", "z")], &[b"x"], None)),
        ("a late pseudo-header", post(&[("x", "y"), (":path", "/smuggled")], &[b"x"], None)),
        ("less than the length", post(&[("content-length", "6")], &[b"abcde"], None)),
        ("more than the length", post(&[("content-length", "4")], &[b"abcde"], None)),
        ("nothing of the length", post(&[("content-length", "4")], &[], None)),
        ("less, and trailers", post(&[("content-length", "6")], &[b"abcde"], Some(&[("x", "y")]))),
        ("a signed length", post(&[("content-length", "+5")], &[b"abcde"], None)),
    ] {
        let answer = frames::answer(&mesh, WEB, &frames).await;
        assert!(["RST_STREAM", "GOAWAY"].contains(&answer), "{name}: {answer}");
        assert_eq!(smuggled.count(), 0, "{name}");
    }
    // h2 drops pseudo-headers of trailers: nobody sees them.
    assert_eq!(frames::answer(&mesh, WEB, &post(&[], &[b"abcde"], Some(&[(":path", "/smuggled")]))).await, "200");
    assert_eq!(
        frames::answer(&mesh, WEB, &post(&[("content-length", "5")], &[b"ab", b"cde"], Some(&[("x", "y")]))).await,
        "200"
    );
}
