//! HTTP/2 as no client would write it. (RFC 9113, RFC 7541)

/// How HTTP/2 begins. (RFC 9113 3.4)
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const NONE: u8 = 0;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// SETTINGS_INITIAL_WINDOW_SIZE.
pub(super) const INITIAL_WINDOW: u16 = 4;
/// CANCEL.
pub(super) const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// What a peer takes in one frame unless it says otherwise.
pub(super) const MAX_FRAME: usize = 16_384;

/// Appends one frame; a payload that is too long is cut.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let payload = payload.get(..MAX_FRAME).unwrap_or(payload);
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends HEADERS, and CONTINUATION for what does not fit.
pub(super) fn headers(out: &mut Vec<u8>, flags: u8, stream: u32, block: &[u8]) {
    let mut parts = block.chunks(MAX_FRAME).peekable();
    let mut kind = HEADERS;
    let mut flags = flags & !END_HEADERS;
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { NONE };
        frame(out, kind, flags | last, stream, part);
        (kind, flags) = (CONTINUATION, NONE);
    }
}

/// The header block of a request that is as it should be, as far as it goes.
pub(super) fn request(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "https"), (":authority", "victim"), (":path", path)] {
        literal(&mut block, name, value.as_bytes());
    }
    block
}

/// A literal field without indexing. (RFC 7541 6.2.2)
pub(super) fn literal(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    field(block, 0x00, name, value);
}

/// A literal field that becomes entry 62 of the table. (RFC 7541 6.2.1)
pub(super) fn indexed_literal(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    field(block, 0x40, name, value);
}

/// The newest entry of the dynamic table. (RFC 7541 6.1)
pub(super) const NEWEST: u8 = 0x80 | 62;

fn field(block: &mut Vec<u8>, form: u8, name: &str, value: &[u8]) {
    block.push(form);
    string(block, name.as_bytes());
    string(block, value);
}

/// A string literal without Huffman coding. (RFC 7541 5.1, 5.2)
fn string(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX: usize = 0x7f;
    if text.len() < PREFIX {
        block.push(text.len() as u8);
    } else {
        block.push(PREFIX as u8);
        let mut rest = text.len() - PREFIX;
        while rest >= 0x80 {
            block.push((rest % 0x80) as u8 | 0x80);
            rest /= 0x80;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_and_long_blocks_are_cut_as_the_rfcs_say() {
        let mut block = Vec::new();
        literal(&mut block, "a", &[b'x'; 1337 + 0x7f - 31]);
        assert_eq!(block.get(..6).unwrap(), [0, 1, b'a', 0x7f, 0b1001_1010, 0b0000_1010]); // RFC 7541 C.1.2: 1337 - 31
        let mut out = Vec::new();
        headers(&mut out, END_STREAM, 3, &[0; MAX_FRAME + 1]);
        assert_eq!(out.get(..9).unwrap(), [0, 0x40, 0, HEADERS, END_STREAM, 0, 0, 0, 3]);
        assert_eq!(out.get(9 + MAX_FRAME..).unwrap(), [0, 0, 1, CONTINUATION, END_HEADERS, 0, 0, 0, 3, 0]);
    }
}
