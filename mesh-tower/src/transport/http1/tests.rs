//! The rules in a table, and that whatever is well formed passes unchanged however it is cut.

use std::sync::Arc;

use mesh_core::rng::Rng;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::framing::{REFUSED_BODY, REFUSED_HEAD};
use super::refusal::Refusal;
use super::{Guard, Limits, Verdict};

const LIMIT: usize = 1024;
const FIELDS: usize = 10;

/// What a guard lets through of `bytes` that come in pieces of these sizes (the last again and again), read in pieces of
/// `room` bytes; and its verdict.
async fn pass(bytes: &[u8], pieces: &[usize], room: usize) -> (Vec<u8>, Option<Refusal>) {
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    let verdict = Arc::new(Verdict::default());
    let mut guard = Guard::new(theirs, Limits { bytes: LIMIT, fields: FIELDS }, Arc::clone(&verdict));
    let (mut rest, mut sizes, mut passed) = (bytes, pieces.iter().copied().cycle(), Vec::new());
    let mut buffer = vec![0; room];
    let mut read = async |guard: &mut Guard<_>, passed: &mut Vec<u8>| {
        loop {
            tokio::task::yield_now().await; // or tokio would hold reads back that never wait
            let polled = futures_util::poll!(std::pin::pin!(guard.read(&mut buffer)));
            match polled {
                std::task::Poll::Ready(Ok(n)) if n > 0 => passed.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
    };
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
        ours.write_all(piece).await.unwrap();
        read(&mut guard, &mut passed).await;
        rest = behind;
    }
    drop(ours);
    read(&mut guard, &mut passed).await;
    (passed, verdict.refused())
}

#[tokio::test]
async fn each_form_has_its_verdict_however_it_comes() {
    use Refusal::*;
    let get = |rest: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{rest}\r\n");
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    let digits = |count| "0".repeat(count);
    let table: Vec<(String, Option<Refusal>)> = vec![
        // What is fine.
        (get(""), None),
        (line("GET /a?b=c HTTP/1.0"), None),
        (line("\r\nGET / HTTP/1.1"), None), // RFC 9112 2.2: one empty line is forgiven
        (get("x:y\r\nX-Y:\t y z \t\r\ne:\r\nobs: \u{e4}\r\n"), None),
        (get("content-length:  3 \r\n") + "abc", None),
        (get("content-length: 003\r\n") + "abc", None),
        (get("Transfer-Encoding:\t Chunked \r\n") + "0\r\n\r\n", None),
        (chunked("3\r\nabc\r\n00A;x=\"y z\"\t;z\r\n0123456789\r\n0 ;last\r\nx-sum: 1\r\n\r\n"), None),
        (chunked("0000000000000003\r\nabc\r\n0\r\n\r\n") + &get(""), None),
        (get("expect: 100-continue\r\n"), None),
        // Lines.
        ("GET / HTTP/1.1\nhost: a\n\n".into(), Some(LineEnd)),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n".into(), Some(LineEnd)),
        ("GET / HTTP/1.1\r\nhost: a\r\n\n".into(), Some(LineEnd)),
        ("GET / HTTP/1.1\r\r\nhost: a\r\n\r\n".into(), Some(RequestLine)),
        (get("x: a\rb: c\r\n"), Some(FieldValue)),
        (get("x: a\r\r\n"), Some(FieldValue)),
        ("\n\r\nGET / HTTP/1.1\r\n\r\n".into(), Some(LineEnd)),
        (line("\r\n\r\nGET / HTTP/1.1"), Some(RequestLine)),
        (line("\r\r\nGET / HTTP/1.1"), Some(RequestLine)),
        // The first.
        ("GET /\r\n".into(), Some(RequestLine)), // HTTP/0.9
        (line("GET  / HTTP/1.1"), Some(RequestLine)),
        (line("GET / HTTP/1.1 "), Some(RequestLine)),
        (line("GET / x HTTP/1.1"), Some(RequestLine)),
        (line(" GET / HTTP/1.1"), Some(RequestLine)),
        (line("GET\t/\tHTTP/1.1"), Some(RequestLine)),
        (line("G@T / HTTP/1.1"), Some(RequestLine)),
        (line("GET /\0 HTTP/1.1"), Some(RequestLine)),
        (line("GET / http/1.1"), Some(RequestLine)),
        (line("GET / HTTP/1.2"), Some(RequestLine)),
        (line("GET / HTTP/2.0"), Some(RequestLine)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Some(RequestLine)),
        (line("CONNECT a:443 HTTP/1.1"), Some(Connect)),
        // Names and values.
        (get("x : y\r\n"), Some(FieldName)),
        (get("Transfer-Encoding\t: chunked\r\n"), Some(FieldName)),
        (get("content-length\0: 3\r\n"), Some(FieldName)),
        (get("\u{2a}\u{e9}: y\r\n"), Some(FieldName)),
        (get(": y\r\n"), Some(FieldName)),
        (get("no colon\r\n"), Some(FieldName)),
        (get("x: a\r\n b\r\n"), Some(Fold)),
        (get("x: a\r\n\tb\r\n"), Some(Fold)),
        ("GET / HTTP/1.1\r\n x: y\r\n\r\n".into(), Some(Fold)),
        (get("x: a\0b\r\n"), Some(FieldValue)),
        (get("x: \x0b\r\n"), Some(FieldValue)),
        (get("x: \x7f\r\n"), Some(FieldValue)),
        (get("upgrade: websocket\r\n"), Some(Upgrade)),
        (get("UPGRADE:\r\n"), Some(Upgrade)),
        // Lengths.
        (get("content-length: 5, 5\r\n"), Some(ContentLength)),
        (get("content-length: 5 5\r\n"), Some(ContentLength)),
        (get("content-length: +5\r\n"), Some(ContentLength)),
        (get("content-length: -5\r\n"), Some(ContentLength)),
        (get("content-length: 0x5\r\n"), Some(ContentLength)),
        (get("content-length: 5.0\r\n"), Some(ContentLength)),
        (get("content-length: 1e3\r\n"), Some(ContentLength)),
        (get("content-length: 1_000\r\n"), Some(ContentLength)),
        (get("content-length:\r\n"), Some(ContentLength)),
        (get("content-length: \u{665}\r\n"), Some(ContentLength)),
        (get("content-length: 18446744073709551621\r\n"), Some(ContentLength)), // 5, to whom it wraps
        (get("content-length: 5\r\nContent-Length: 5\r\n"), Some(ContentLengths)),
        (get("content-length: 5\r\ncontent-length: 6\r\n"), Some(ContentLengths)),
        (get("content-length: 5\r\ncontent_length: 5\r\n"), Some(FieldName)),
        (get("Content_Length: 5\r\n"), Some(FieldName)),
        // Codings.
        (get("transfer-encoding: identity\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding:\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: gzip, chunked\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: chunked, chunked\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: chunked, identity\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: xchunked\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: chunkedx\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: chunked;q=1\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: \"chunked\"\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: ,chunked\r\n"), Some(TransferEncoding)),
        (get("transfer-encoding: \x0bchunked\r\n"), Some(FieldValue)),
        (get("transfer_encoding: chunked\r\n"), Some(FieldName)),
        (get("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), Some(TransferEncodings)),
        (get("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"), Some(TransferEncodings)),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), Some(TransferEncoding)),
        (get("content-length: 5\r\ntransfer-encoding: chunked\r\n"), Some(Both)),
        (get("transfer-encoding: chunked\r\ncontent-length: 0\r\n"), Some(Both)),
        // Targets.
        (line("OPTIONS * HTTP/1.1"), None),
        (line("GET http://a/b?c HTTP/1.1"), None),
        (line("GET /a\"b{c}|d^e?f`g#h HTTP/1.1"), None),
        (line("GET /a<b HTTP/1.1"), Some(Target)),
        (line("GET /a\tb HTTP/1.1"), Some(Target)),
        (line("GET http:// HTTP/1.1"), Some(Target)),
        (line("GET a/b HTTP/1.1"), Some(Target)),
        // Sizes.
        (get(&"x: y\r\n".repeat(FIELDS - 1)), None),
        (get(&"x: y\r\n".repeat(FIELDS)), Some(TooMany)),
        (get(&"x: y\r\n".repeat(FIELDS - 1)) + &get(&"x: y\r\n".repeat(FIELDS - 1)), None),
        (chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(FIELDS))), None),
        (chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(FIELDS + 1))), Some(TooMany)),
        (get(&format!("x: {}\r\n", "y".repeat(LIMIT))), Some(TooLarge)),
        (format!("GET /{}", "y".repeat(LIMIT)), Some(TooLarge)),
        (chunked(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(LIMIT))), Some(TooLarge)),
        // Chunks.
        (chunked("\r\n"), Some(Chunk)),
        (chunked("+5\r\nabcde\r\n"), Some(Chunk)),
        (chunked("-5\r\nabcde\r\n"), Some(Chunk)),
        (chunked("0x5\r\nabcde\r\n"), Some(Chunk)),
        (chunked(" 5\r\nabcde\r\n"), Some(Chunk)),
        (chunked("5 \r\nabcde\r\n"), Some(Chunk)),
        (chunked("5 5\r\nabcde\r\n"), Some(Chunk)),
        (chunked("5_0\r\nabcde\r\n"), Some(Chunk)),
        (chunked("5\nabcde\r\n"), Some(Chunk)),
        (chunked("5\r5\r\nabcde\r\n"), Some(Chunk)),
        (chunked("5;x\nabcde\r\n"), Some(Chunk)), // CVE-2025-22871
        (chunked("5;x\rabcde\r\n"), Some(Chunk)),
        (chunked("5;x\0\r\nabcde\r\n"), Some(Chunk)),
        (chunked(&format!("5;{}\r\nabcde\r\n", "x".repeat(257))), Some(Chunk)),
        (chunked("10000000000000005\r\nabcde\r\n"), Some(Chunk)), // 5, to whom it wraps
        (chunked(&format!("{}5\r\nabcde\r\n", digits(16))), Some(Chunk)),
        (chunked("5\r\nabcdef\r\n"), Some(Chunk)),
        (chunked("5\r\nabcde\n0\r\n\r\n"), Some(Chunk)),
        (chunked("5\r\nabcde\r0\r\n\r\n"), Some(Chunk)),
        (chunked("5\r\nabcde0\r\n\r\n"), Some(Chunk)),
        (chunked("0\r\nx: y\n\r\n"), Some(LineEnd)),
        (chunked("0\r\n\n"), Some(LineEnd)),
        (chunked("0\r\nx : y\r\n\r\n"), Some(FieldName)),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), Some(Trailer)),
        (chunked("0\r\ntransfer-encoding: chunked\r\n\r\n"), Some(Trailer)),
        (chunked("0\r\nhost: b\r\n\r\n"), Some(Trailer)),
        (chunked("0\r\nAuthorization: b\r\n\r\n"), Some(Trailer)),
        (chunked("0\r\nx_forwarded_client_cert: b\r\n\r\n"), Some(Trailer)),
        (chunked("0\r\nx-mesh-principal: b\r\n\r\n"), Some(Trailer)),
        // Behind something good.
        (get("content-length: 0\r\n") + "hello", None),
        (get("content-length: 0\r\n") + "hello\r\n", Some(RequestLine)),
        (chunked("0\r\n\r\nX"), None),
        (chunked("0\r\n\r\nX\r\n"), Some(RequestLine)),
    ];
    for (bytes, expected) in &table {
        for (pieces, room) in [(&[usize::MAX][..], 8192), (&[1], 8192), (&[7, 2], 3), (&[usize::MAX], 5)] {
            let (passed, refused) = pass(bytes.as_bytes(), pieces, room).await;
            let text = String::from_utf8_lossy(&passed);
            assert_eq!(refused, *expected, "{bytes:?} in pieces of {pieces:?}");
            match refused {
                // A head is not seen at all, a body up to where it is wrong.
                Some(_) => {
                    let end = [REFUSED_HEAD, REFUSED_BODY].into_iter().find(|end| passed.ends_with(end));
                    let before = passed.strip_suffix(end.unwrap_or_else(|| panic!("{text:?}"))).unwrap();
                    let before = std::str::from_utf8(before).unwrap();
                    assert!(bytes.starts_with(before) && before.len() < bytes.len(), "{text:?}");
                    let in_body = before.contains("chunked\r\n\r\n") && !before.ends_with("0\r\n\r\n");
                    assert_eq!(end == Some(REFUSED_BODY), in_body, "{text:?}");
                }
                // Half a head, and nobody to complete it.
                None => assert!(bytes.as_bytes().starts_with(&passed) && bytes.len() - passed.len() <= 5, "{text:?}"),
            }
        }
    }
}

/// A well-formed message.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let field =
        ("[!#-'*+.^`|~0-9A-Za-z]{1,13}", "[ -~\t]{0,40}").prop_map(|(name, value)| format!("{name}:{value}\r\n"));
    let fields = prop::collection::vec(field, 0..8).prop_map(|fields| fields.concat());
    let chunk = (prop::collection::vec(any::<u8>(), 1..300), "(|;[a-z]{1,9}=[ -~]{0,20})", any::<bool>()).prop_map(
        |(data, extension, upper)| {
            let size = if upper { format!("{:X}", data.len()) } else { format!("0{:x}", data.len()) };
            [size.as_bytes(), extension.as_bytes(), b"\r\n", &data, b"\r\n"].concat()
        },
    );
    let chunks = (prop::collection::vec(chunk, 0..6), "(|x-sum: [0-9]{1,9}\r\n)")
        .prop_map(|(chunks, trailers)| [&chunks.concat(), &b"0\r\n"[..], trailers.as_bytes(), b"\r\n"].concat());
    let body = prop_oneof![
        Just((String::new(), Vec::new())),
        prop::collection::vec(any::<u8>(), 0..2000)
            .prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        chunks.prop_map(|body| ("transfer-encoding: chunked\r\n".to_owned(), body)),
    ];
    ("[A-Z]{1,7}", "/[!-~]{0,60}", fields, body)
        .prop_filter("hyper takes its target for a URI", |(_, target, ..)| http::Uri::try_from(target.as_str()).is_ok())
        .prop_filter("CONNECT is no request like others", |(method, ..)| method != "CONNECT")
        .prop_filter("not these", |(_, _, fields, _)| !fields.to_ascii_lowercase().contains("upgrade"))
        .prop_map(|(method, target, fields, (framing, body))| {
            [format!("{method} {target} HTTP/1.1\r\n{fields}{framing}\r\n").as_bytes(), &body].concat()
        })
}

#[test]
fn well_formed_streams_pass_unchanged_however_they_are_cut() {
    let seed = std::env::var("MESH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| Rng::from_entropy().next_u64());
    println!("MESH_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 400, failure_persistence: None, ..Config::default() }, rng);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let streams = (prop::collection::vec(message(), 1..6), prop::collection::vec(1usize..400, 1..20), 1usize..3000);
    runner
        .run(&streams, |(messages, pieces, room)| {
            let bytes = messages.concat();
            let (passed, refused) = runtime.block_on(pass(&bytes, &pieces, room));
            prop_assert_eq!(refused, None);
            prop_assert!(
                passed == bytes,
                "{:?}\n{:?}",
                String::from_utf8_lossy(&passed),
                String::from_utf8_lossy(&bytes)
            );
            Ok(())
        })
        .unwrap();
}
