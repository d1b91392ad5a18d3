//! Where each message of a connection begins and ends. Knows bytes alone: no clock, no socket.

use super::chunks::Chunks;
use super::head::{Body, Head};
use super::refusal::Refusal;

/// What hyper reads instead of a head that was refused: a request that says nothing, not even a host, and is the last.
///
/// [`Verdict`](super::Verdict) tells the edge to refuse it. Were that lost, it would be refused for want of a host.
pub(super) const REFUSED_HEAD: &[u8] = b"REFUSED / HTTP/1.1\r\nconnection: close\r\n\r\n";
/// What hyper reads instead of the rest of a body that was refused: nothing that it takes, wherever it stands.
pub(super) const REFUSED_BODY: &[u8] = b"\r!";

/// The messages of one connection, one after the other.
#[derive(Debug)]
pub(super) struct Framing {
    part: Part,
    max: Limits,
    /// Heads that passed.
    heads: u64,
}

/// How much one head, or the trailers behind one body, may be.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) struct Limits {
    pub(in crate::transport) bytes: usize,
    pub(in crate::transport) fields: usize,
}

#[derive(Debug)]
enum Part {
    Head(Head),
    Length(u64),
    Chunks(Chunks),
    Trailers(Head),
    Refused,
}

/// What became of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// So many may go on to hyper. Those behind them must be kept, and come first the next time.
    pub(super) passed: usize,
    pub(super) refused: Option<Refused>,
}

/// A message that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    /// How many heads came before it; `None` if it was its body that is refused.
    pub(super) head: Option<u64>,
}

impl Framing {
    pub(super) fn new(max: Limits) -> Self {
        Self { part: Part::Head(Head::default()), max, heads: 0 }
    }

    /// Judges `bytes`, which begin with those that the step before did not pass.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Step {
        let mut passed = 0;
        while let Some(rest @ [_, ..]) = bytes.get(passed..) {
            let (taken, next) = match &mut self.part {
                Part::Head(head) => match block(head, rest, self.max) {
                    Ok(None) => break,
                    Ok(Some((taken, body))) => {
                        self.heads += 1;
                        (taken, Some(Part::behind(body)))
                    }
                    Err(refusal) => return self.refuse(passed, refusal, Some(self.heads)),
                },
                Part::Trailers(head) => match block(head, rest, self.max) {
                    Ok(None) => break,
                    Ok(Some((taken, _))) => (taken, Some(Part::Head(Head::default()))),
                    Err(refusal) => return self.refuse(passed, refusal, None),
                },
                Part::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64; // at most `left`
                    (here, (*left == 0).then(|| Part::Head(Head::default())))
                }
                Part::Chunks(chunks) => match chunks.read(rest) {
                    (taken, Ok(last)) => (taken, last.then(|| Part::Trailers(Head::trailers()))),
                    (taken, Err(refusal)) => return self.refuse(passed + taken, refusal, None),
                },
                Part::Refused => break,
            };
            passed += taken;
            if let Some(next) = next {
                self.part = next;
            }
        }
        Step { passed, refused: None }
    }

    fn refuse(&mut self, passed: usize, refusal: Refusal, head: Option<u64>) -> Step {
        self.part = Part::Refused;
        Step { passed, refused: Some(Refused { refusal, head }) }
    }
}

impl Part {
    fn behind(body: Body) -> Self {
        match body {
            Body::Length(0) => Self::Head(Head::default()),
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunks(Chunks::default()),
        }
    }
}

/// A head or trailers within their limit.
fn block(head: &mut Head, bytes: &[u8], max: Limits) -> Result<Option<(usize, Body)>, Refusal> {
    let read = head.read(bytes, max.fields)?;
    let length = read.map_or(bytes.len(), |(length, _)| length);
    if length > max.bytes { Err(Refusal::TooLarge) } else { Ok(read) }
}
