//! Compressed request bodies: what handlers get, and what is refused.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use mesh_core::audit::{AuditOutcome, MemorySink};

use super::*;
use crate::fixture::audited_mesh;

const MAX: usize = 64 * 1024;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// The beginning of a gigabyte of zeros as gzip, and what makes a megabyte more of it each time it is repeated.
pub(super) fn bomb() -> (Vec<u8>, Vec<u8>) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    encoder.write_all(&zeros).unwrap();
    encoder.flush().unwrap();
    let begin = encoder.get_ref().clone();
    encoder.write_all(&zeros).unwrap();
    encoder.flush().unwrap();
    let more = encoder.get_ref()[begin.len()..].to_vec();
    assert!(more.len() < 2048, "{}", more.len());
    (begin, more)
}

/// What the handler saw: the length of the body and the headers about it.
async fn seen(headers: HeaderMap, body: Bytes) -> String {
    let of = |name: &str| {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("+")
    };
    format!("{} [{}] [{}]", body.len(), of("content-encoding"), of("content-length"))
}

async fn post_encoded(client: &mut Sender, path: &str, encodings: &[&str], body: Body) -> (StatusCode, String, bool) {
    let request = Request::post(format!("https://orders{path}")).header("content-type", "text/plain");
    let request = encodings.iter().fold(request, |request, encoding| request.header("content-encoding", *encoding));
    let response = client.send_request(request.body(body).unwrap()).await.unwrap();
    let (status, told) = (response.status(), response.headers().contains_key("accept-encoding"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned(), told)
}

struct Server {
    orders: Mesh,
    audit: MemorySink,
    client: Sender,
    /// Bytes that a handler took of a stream.
    taken: Arc<AtomicUsize>,
}

async fn server(decompress: bool) -> Server {
    let (ca, (listener, address)) = (ca(), listener().await);
    let audit = MemorySink::default();
    let edit = |config: &mut mesh_core::config::Config| {
        let limits = ListenerConfig::new(address).max_body_bytes(MAX as u64).decompress_requests(decompress);
        config.listeners.insert("default".to_owned(), limits);
    };
    let orders = audited_mesh(&ca, "orders", edit, Box::new(audit.clone())).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    // Swallows every error, and answers as if all were well.
    let stream = post(move |body: Body| async move {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            count.fetch_add(frame.ok().and_then(|f| f.into_data().ok()).map_or(0, |d| d.len()), Ordering::Relaxed);
        }
        "all is well"
    });
    let router = Router::new().route("/", post(seen)).route("/stream", stream);
    tokio::spawn(serve(&orders, listener, router).into_future());
    let web = mesh(&ca, "web", |_| {}).await;
    Server { client: connect(&web, address).await, orders, audit, taken }
}

#[tokio::test]
async fn handlers_get_bodies_decompressed_and_what_cannot_be_is_refused() {
    let mut server = server(true).await;
    let text = b"payment ".repeat(1000);
    let truncated = |mut body: Vec<u8>| {
        body.truncate(body.len() - 9);
        body
    };
    let two = [gzip(&text), gzip(&text)].concat();
    let exact = gzip(&vec![7; MAX]);
    let beyond = gzip(&vec![7; MAX + 1]);
    let (begin, more) = bomb();
    let gigabyte = [begin, more.repeat(1023)].concat();
    assert!(gigabyte.len() < 2 << 20, "{}", gigabyte.len());
    let all = "8000 [] []";
    type Case = (&'static str, &'static [&'static str], Vec<u8>, u16, &'static str);
    let table: Vec<Case> = vec![
        ("gzip", &["gzip"], gzip(&text), 200, all),
        ("its other names", &["X-GZip"], gzip(&text), 200, all),
        ("deflate", &["deflate"], deflate(&text), 200, all),
        ("none", &[], text.clone(), 200, "8000 [] [8000]"),
        ("none, in words", &["identity"], text.clone(), 200, "8000 [identity] [8000]"),
        ("none and one", &["identity, gzip"], gzip(&text), 200, all),
        ("as much as may be", &["gzip"], exact, 200, "65536 [] []"),
        ("one byte more", &["gzip"], beyond, 413, "body_too_large"),
        ("unknown", &["br"], text.clone(), 415, "unsupported_encoding"),
        ("stacked", &["gzip, gzip"], gzip(&gzip(&text)), 415, "unsupported_encoding"),
        ("stacked in two lines", &["gzip", "gzip"], gzip(&gzip(&text)), 415, "unsupported_encoding"),
        ("not what it says", &["gzip"], text.clone(), 400, "body_encoding"),
        ("truncated", &["gzip"], truncated(gzip(&text)), 400, "body_encoding"),
        ("truncated", &["deflate"], truncated(deflate(&text)), 400, "body_encoding"),
        ("bytes behind its end", &["gzip"], two, 400, "body_encoding"),
    ];
    for (name, encodings, body, status, expected) in table {
        let seen = post_encoded(&mut server.client, "/", encodings, Body::from(body)).await;
        assert_eq!(seen.0.as_u16(), status, "{name}: {seen:?}");
        if status == 200 {
            assert_eq!(seen.1, expected, "{name}");
            continue;
        }
        assert_eq!(seen.2, status == 415, "{name}: the caller is told what there is");
        server.orders.audit().flush().await;
        let record = server.audit.records().pop().unwrap();
        assert_eq!((record.outcome, record.reason), (AuditOutcome::Reject, expected), "{name}");
    }
    // In pieces, so that nothing of it is refused by its length as it came.
    let pieces: Vec<_> =
        gigabyte[..48 * 1024].chunks(1024).map(|c| Ok::<_, Infallible>(Bytes::copy_from_slice(c))).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let answer = post_encoded(&mut server.client, "/stream", &["gzip"], body).await;
    assert_eq!(answer.0, StatusCode::PAYLOAD_TOO_LARGE, "whatever the handler makes of it");
    assert!(server.taken.load(Ordering::Relaxed) <= MAX, "{:?}", server.taken);
    let metrics = server.orders.metrics().encode();
    for (reason, times) in [("body_too_large", 2), ("unsupported_encoding", 3), ("body_encoding", 4)] {
        assert!(metrics.contains(&format!("mesh_server_rejected_total{{reason=\"{reason}\"}} {times}\n")), "{metrics}");
    }
}

#[tokio::test]
async fn without_the_setting_a_body_reaches_its_handler_as_it_came() {
    let mut server = server(false).await;
    let body = gzip(b"payment");
    let length = body.len();
    for encodings in [&["gzip"][..], &["br"], &["gzip, gzip"]] {
        let (status, seen, _) = post_encoded(&mut server.client, "/", encodings, Body::from(body.clone())).await;
        assert_eq!((status, seen), (StatusCode::OK, format!("{length} [{}] [{length}]", encodings[0])));
    }
    let garbage = post_encoded(&mut server.client, "/", &["gzip"], Body::from("no gzip")).await;
    assert_eq!(garbage.0, StatusCode::OK);
}
