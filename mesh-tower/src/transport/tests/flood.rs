//! Floods that HTTP/2 itself knows, and those that are only busy.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::super::activity::{Activity, Watched};
use super::super::pace::Patience;
use super::*;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// GET https://orders/ without any use of the dynamic table. (RFC 7541 6)
const HEAD: &[u8] = b"\x82\x84\x87\x01\x06orders";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(start_paused = true)]
async fn what_http2_calls_a_flood_is_counted_as_one() {
    let resets: Vec<u8> = (0..200)
        .flat_map(|n| [frame(HEADERS, 5, 2 * n + 1, HEAD), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let endless = [frame(HEADERS, 1, 1, HEAD), frame(CONTINUATION, 0, 1, &[]).repeat(1000)].concat();
    for (name, flood) in [("resets", resets), ("CONTINUATION", endless)] {
        let net = Net::start(|_| {}, hello);
        let mut stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http2).await.unwrap();
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&[begin, flood].concat()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // it may end without a TLS goodbye
        until(name, || net.metrics.transport.connections() == 0).await;
        assert_eq!(net.metrics.transport.closed_for("flood"), 1, "{name}: {}", net.metrics.encode());
    }
}

/// Whether `answer` has the head of a response on `stream`.
fn answers(mut answer: &[u8], stream: u32) -> bool {
    while let Some((head, rest)) = answer.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == HEADERS && head[5..9] == stream.to_be_bytes() {
            return true;
        }
        answer = rest.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_all_its_requests_at_once_keeps_its_connection() {
    for streams in [8, 100, 250] {
        let net = Net::start(|config| config.max_concurrent_streams = streams, hello);
        let mut stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http2).await.unwrap();
        let ids = || (0..streams).map(|n| 2 * n + 1);
        let requests: Vec<u8> = ids().flat_map(|id| frame(HEADERS, 5, id, HEAD)).collect();
        let resets: Vec<u8> = ids().flat_map(|id| frame(RST_STREAM, 0, id, &[0, 0, 0, 8])).collect();
        let (begin, next) = ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat(), 999);
        stream.write_all(&[begin, requests, resets, frame(HEADERS, 5, next, HEAD)].concat()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        while !answers(&answer, next) {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "{streams}: closed after {:?}", String::from_utf8_lossy(&answer));
        }
        assert_eq!(net.metrics.transport.closed_for("flood"), 0, "{streams}");
    }
}

/// PING and SETTINGS are answered by h2 within one poll for as long as there is something to read.
#[tokio::test]
async fn a_stream_that_always_has_bytes_lets_others_have_their_turn() {
    let activity = Activity::new(Instant::now(), Patience::new(S, 0), None);
    let mut watched = Watched::new(tokio::io::repeat(0), false, activity);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        let mut reads = 0;
        while let Poll::Ready(read) = Pin::new(&mut watched).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 64])) {
            read.unwrap();
            reads += 1;
            assert!(reads <= 16, "it never yields");
        }
        assert_eq!(reads, 16);
    }
}
