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
