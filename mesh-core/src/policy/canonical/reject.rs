//! Mode `reject`: one reading, or none.

/// Accepts a path that has one reading (RFC 3986 6.2.2): `pchar`s and `/`, no empty or dot segments, no `;`, every
/// escape necessary, in upper-case hex, and together UTF-8.
pub(super) fn check(path: &str) -> Result<(), &'static str> {
    let Some(segments) = path.strip_prefix('/') else { return Err("path_form") };
    let mut bytes = path.bytes();
    let mut escaped = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {}
            b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {}
            b';' => return Err("path_parameter"),
            b'\\' => return Err("path_backslash"),
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else { return Err("path_escape") };
                escaped |= escape(high, low)?;
            }
            _ => return Err("path_character"),
        }
    }
    // The last segment may be empty: a trailing slash is a path of its own.
    let mut rest = segments.split('/').peekable();
    while let Some(segment) = rest.next() {
        match segment {
            "." | ".." => return Err("path_dot_segment"),
            "" if rest.peek().is_some() => return Err("path_empty_segment"),
            _ => {}
        }
    }
    if escaped && !utf8(path.as_bytes()) { Err("path_not_utf8") } else { Ok(()) }
}

/// What a reader that decodes makes of the path, where that is another one: `%40` and `@` are one character to it, and both
/// may be sent (RFC 3986 2.2 leaves open whether they mean the same; `encodeURIComponent` escapes them, routers compare
/// before they decode, handlers after). `path` passed [`check`].
pub(super) fn decoded(path: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(char::from);
        match hex.filter(|c| "!$&'()*+,=:@;".contains(*c)) {
            Some(character) => decoded.extend(before.chars().chain([character])),
            None => decoded.extend([before, "%", after.get(..2).unwrap_or_default()]),
        }
        rest = after.get(2..).unwrap_or_default();
    }
    decoded.push_str(rest);
    // `..%3Bx` becomes a segment with a parameter, and without it a dot segment.
    (decoded != path).then(|| super::dual::resolve(&decoded))
}

/// Judges one escape; true if it is part of a character beyond ASCII.
fn escape(high: u8, low: u8) -> Result<bool, &'static str> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (Some(first), Some(second)) = (digit(high), digit(low)) else { return Err("path_escape") };
    match first << 4 | second {
        0..=0x1f | 0x7f => Err("path_control"),
        b'/' | b'\\' => Err("path_escaped_separator"),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Err("path_needless_escape"),
        _ if high.is_ascii_lowercase() || low.is_ascii_lowercase() => Err("path_lower_case_escape"),
        byte => Ok(byte >= 0x80),
    }
}

/// Whether the path is UTF-8 once decoded; overlong forms are not.
fn utf8(path: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        let hex = rest.first_chunk::<2>().filter(|_| *byte == b'%');
        match hex.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) => {
                decoded.push(escaped);
                rest = rest.get(2..).unwrap_or_default();
            }
            None => decoded.push(*byte),
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_a_second_reading_are_refused() {
        for (text, expected) in [
            ("/", Ok(())),
            ("/orders/7", Ok(())),
            ("/orders/", Ok(())),
            ("/a*b/!$&'()+,=:@-._~", Ok(())),
            ("/caf%C3%A9", Ok(())),
            ("/100%25", Ok(())),
            ("/%252e", Ok(())),
            ("/a...b/.well-known/..c", Ok(())),
            ("", Err("path_form")),
            ("admin", Err("path_form")),
            ("*", Err("path_form")),
            ("/a/../admin", Err("path_dot_segment")),
            ("/a/..", Err("path_dot_segment")),
            ("/./admin", Err("path_dot_segment")),
            ("/a/%2e%2e/admin", Err("path_needless_escape")),
            ("/%2E%2E/admin", Err("path_needless_escape")),
            ("/.%2e/admin", Err("path_needless_escape")),
            ("/%61dmin", Err("path_needless_escape")),
            ("//admin", Err("path_empty_segment")),
            ("/a//b", Err("path_empty_segment")),
            ("/a//", Err("path_empty_segment")),
            ("/a%2fadmin", Err("path_escaped_separator")),
            ("/a%2Fadmin", Err("path_escaped_separator")),
            ("/a%5cadmin", Err("path_escaped_separator")),
            ("/a\\admin", Err("path_backslash")),
            ("/admin;x=y", Err("path_parameter")),
            ("/..;/admin", Err("path_parameter")),
            ("/.;", Err("path_parameter")),
            ("/a%00", Err("path_control")),
            ("/a%0d%0aX", Err("path_control")),
            ("/a%7F", Err("path_control")),
            ("/a%", Err("path_escape")),
            ("/a%2", Err("path_escape")),
            ("/a%zz", Err("path_escape")),
            ("/a%+1b", Err("path_escape")),
            ("/caf%c3%a9", Err("path_lower_case_escape")),
            ("/%C0%AE%C0%AE/", Err("path_not_utf8")),
            ("/%FF", Err("path_not_utf8")),
            ("/a b", Err("path_character")),
            ("/a\u{0}", Err("path_character")),
            ("/caf\u{e9}", Err("path_character")),
            ("/{id}", Err("path_character")),
            ("/a#b", Err("path_character")),
            ("/a?b", Err("path_character")),
        ] {
            assert_eq!(check(text), expected, "{text}");
        }
    }

    #[test]
    fn what_may_be_sent_escaped_or_not_is_read_both_ways() {
        for (text, expected) in [
            ("/users/root@corp", None),
            ("/users/root%40corp", Some("/users/root@corp")),
            ("/v1/orders%3Arefund/a%2Cb", Some("/v1/orders:refund/a,b")),
            ("/caf%C3%A9/100%25/a%20b", None),
            ("/caf%C3%A9%21", Some("/caf%C3%A9!")),
            ("/%2540", None),
            ("/admin%3Bx", Some("/admin")),
            ("/a/..%3Bx/admin", Some("/admin")),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
        for byte in 0..=0x7f_u8 {
            let (raw, escaped) = (format!("/a{}b", char::from(byte)), format!("/a%{byte:02X}b"));
            if check(&escaped).is_ok() && check(&raw).is_ok() {
                assert_eq!(decoded(&escaped), Some(raw), "whatever passes in two spellings has both readings");
            }
        }
    }
}
