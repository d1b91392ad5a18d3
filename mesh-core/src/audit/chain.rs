//! What ties each record to the one before it.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// Says what is hashed, so that no hash of a record is a hash of anything else.
const TAG: &[u8] = b"mesh.audit.record.v2\0";

/// The hash of a record, which stands for it and for all before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Head([u8; 32]);

impl Head {
    /// What the first record of a chain continues: nothing.
    pub(super) const GENESIS: Self = Self([0; 32]);

    /// The hash of a record that continues this one: SHA-256 over tag, this hash, and the canonical record.
    pub(super) fn next(self, canonical: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(TAG);
        context.update(&self.0);
        context.update(canonical.as_bytes());
        Self(bytes(context.finish().as_ref()))
    }

    /// 64 lower-case hex digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut head = [0; 32];
        for (byte, pair) in head.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(head))
    }
}

/// SHA-256 in hex.
pub(super) fn sha256_hex(message: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, message).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(DIGITS.get(usize::from(nibble)));
        }
    }
    text
}

fn bytes(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    bytes
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'mesh.audit.record.v2\0' | cat - <(head -c32 /dev/zero) <(printf '{"a":1}') | sha256sum`
    #[test]
    fn the_hash_is_what_the_documentation_says() {
        let head = Head::GENESIS.next(r#"{"a":1}"#);
        assert_eq!(head.to_string(), include_str!("testdata/head.txt").trim());
        assert_eq!(Head::parse(&head.to_string()), Some(head));
        for text in ["", "00", &head.to_string().to_uppercase(), &format!("{}+1", "0".repeat(62))] {
            assert_eq!(Head::parse(text), None, "{text}");
        }
        assert_ne!(head.next(r#"{"a":1}"#), head);
    }
}
