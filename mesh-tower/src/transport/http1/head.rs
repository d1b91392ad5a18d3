//! The head of a request, or the trailers behind its body: line by line, each line once.

use http::Uri;
use memchr::memchr;
use mesh_core::policy::canonical::is_forbidden_trailer;

use super::refusal::Refusal;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes; none for the most.
    Length(u64),
    Chunked,
}

/// The longest target that `http::Uri` takes, and the longest name of a field.
const MAX_TARGET: usize = 65_534;
const MAX_NAME: usize = 65_535;

/// How far a head was read, and what it said of its body.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the line begins that is being read.
    line: usize,
    /// Up to where it has no end.
    scanned: usize,
    part: Part,
    /// Lines that are fields.
    fields: usize,
    old: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    /// Nothing, not even the one empty line that RFC 9112 2.2 forgives.
    #[default]
    Start,
    RequestLine,
    Fields,
    Trailers,
}

impl Head {
    pub(super) fn trailers() -> Self {
        Self { part: Part::Trailers, ..Self::default() }
    }

    /// Reads on in `bytes`, which begin where the head does. `None`: it is not complete.
    ///
    /// On completion: how long it is, and what follows.
    pub(super) fn read(&mut self, bytes: &[u8], max_fields: usize) -> Result<Option<(usize, Body)>, Refusal> {
        while let Some(unread) = bytes.get(self.scanned..) {
            let Some(length) = memchr(b'\n', unread) else { break };
            let end = self.scanned + length;
            let line = bytes.get(self.line..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Refusal::LineEnd)?;
            (self.line, self.scanned) = (end + 1, end + 1);
            let field = matches!(self.part, Part::Fields | Part::Trailers);
            match self.part {
                Part::Start if line.is_empty() => self.part = Part::RequestLine,
                Part::Start | Part::RequestLine => {
                    self.request_line(line)?;
                    self.part = Part::Fields;
                }
                _ if line.is_empty() => return Ok(Some((end + 1, self.body()))),
                Part::Fields => self.field(line)?,
                Part::Trailers => trailer(line)?,
            }
            self.fields += usize::from(field);
            if self.fields > max_fields {
                return Err(Refusal::TooMany);
            }
        }
        self.scanned = bytes.len();
        Ok(None)
    }

    fn body(&self) -> Body {
        if self.chunked { Body::Chunked } else { Body::Length(self.length.unwrap_or(0)) }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut parts = line.splitn(3, |b| *b == b' ');
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        self.old = match parts.next() {
            Some(b"HTTP/1.1") => false,
            Some(b"HTTP/1.0") => true,
            _ => return Err(Refusal::RequestLine),
        };
        if method.is_empty() || !method.iter().all(|b| token(*b)) || target.is_empty() || any_control(target) {
            return Err(Refusal::RequestLine);
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        if is_target(target) { Ok(()) } else { Err(Refusal::Target) }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = split(line)?;
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => return Err(Refusal::Upgrade),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let before = self.length.replace(decimal(value)?);
                before.map_or(Ok(()), |_| Err(Refusal::ContentLengths))?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(Refusal::TransferEncodings);
                }
                // A coding that we cannot take off has no place before the last one either.
                if self.old || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferEncoding);
                }
            }
            // CGI and its heirs read `_` as `-`; hyper does not.
            14 if name.eq_ignore_ascii_case(b"content_length") => return Err(Refusal::FieldName),
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => return Err(Refusal::FieldName),
            _ => {}
        }
        if self.chunked && self.length.is_some() { Err(Refusal::Both) } else { Ok(()) }
    }
}

/// A field's name and its value without the white space around it.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let end = line.iter().position(|b| !token(*b)).unwrap_or(line.len());
    match line.split_at(end) {
        ([], [b' ' | b'\t', ..]) => Err(Refusal::Fold),
        ([], _) => Err(Refusal::FieldName),
        (name, _) if name.len() > MAX_NAME => Err(Refusal::FieldName),
        (_, [b':', value @ ..]) if any_control(value) => Err(Refusal::FieldValue),
        (name, [b':', value @ ..]) => Ok((name, trim(value))),
        _ => Err(Refusal::FieldName),
    }
}

/// Whether hyper finds a URI in it. What it is asked for most is known to be one without asking, and without an allocation.
fn is_target(target: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%?".contains(b);
    match target {
        [b'/', rest @ ..] if rest.iter().all(plain) => target.len() <= MAX_TARGET,
        _ => Uri::try_from(target).is_ok(),
    }
}

fn trailer(line: &[u8]) -> Result<(), Refusal> {
    let (name, _) = split(line)?;
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if is_forbidden_trailer(&name) { Err(Refusal::Trailer) } else { Ok(()) }
}

/// Digits alone. Up to 18 of them fit any integer that somebody may count with.
fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 18 {
        return Err(Refusal::ContentLength);
    }
    value.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + u64::from(digit - b'0')),
        _ => Err(Refusal::ContentLength),
    })
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// No early end, so that it works on many bytes at once.
fn any_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |any, b| any | ((*b < b' ') & (*b != b'\t')) | (*b == 0x7f))
}

/// `tchar`. (RFC 9110 5.6.2)
fn token(byte: u8) -> bool {
    static TOKEN: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0u8);
        while byte < 128 {
            #[allow(clippy::indexing_slicing, reason = "a byte has a place among 256")]
            {
                table[byte as usize] = byte.is_ascii_alphanumeric()
                    || matches!(
                        byte,
                        b'!' | b'#'
                            | b'$'
                            | b'%'
                            | b'&'
                            | b'\''
                            | b'*'
                            | b'+'
                            | b'-'
                            | b'.'
                            | b'^'
                            | b'_'
                            | b'`'
                            | b'|'
                            | b'~'
                    );
            }
            byte += 1;
        }
        table
    };
    #[allow(clippy::indexing_slicing, reason = "a byte has a place among 256")]
    TOKEN[usize::from(byte)]
}
