//! HTTP/2 by hand, for requests that no client would make.

use mesh_tower::test_util::RunningTestMesh;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::kit::{connect_as, soon};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK literals that nobody indexes. (RFC 7541 6.2.2)
pub(crate) fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A request on stream 1: its head, the pieces of its body, its trailers.
pub(crate) fn request(fields: &[(&str, &str)], body: &[&[u8]], trailers: Option<&[(&str, &str)]>) -> Vec<u8> {
    let ends = |last: bool| u8::from(last);
    let mut frames = frame(HEADERS, 4 | ends(body.is_empty() && trailers.is_none()), 1, &literals(fields));
    for (n, data) in body.iter().enumerate() {
        frames.extend(frame(DATA, ends(n + 1 == body.len() && trailers.is_none()), 1, data));
    }
    frames.extend(trailers.map(|trailers| frame(HEADERS, 5, 1, &literals(trailers))).unwrap_or_default());
    frames
}

/// How `id` is answered by `orders` on stream 1 of a connection with these `frames`.
pub(crate) async fn answer(mesh: &RunningTestMesh, id: &str, frames: &[u8]) -> &'static str {
    exchange(&mut connect_as(mesh, id, "orders", "h2").await, frames).await
}

/// The same over a connection that is there: `200`, `400`, `another status`, `RST_STREAM`, `GOAWAY`, `closed`; an answer
/// first.
pub(crate) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), frames: &[u8]) -> &'static str {
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], frames].concat();
    stream.write_all(&preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        if soon("a frame", stream.read_exact(&mut head)).await.is_err() {
            return "closed";
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        match head[3] {
            // HPACK's indices of `:status`.
            HEADERS if payload[0] == 0x88 => return "200",
            HEADERS if payload[0] == 0x8c => return "400",
            HEADERS => return "another status",
            3 => return "RST_STREAM",
            7 => return "GOAWAY",
            _ => {}
        }
    }
}
