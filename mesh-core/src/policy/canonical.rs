//! The one form of hosts, paths and header names, for requests and for the policies about them.
//!
//! A request that is not in this form is refused, so a policy that is not can match none: a DENY with `/a//b` would
//! look like a lock and hold nothing. Both sides ask here, so that they cannot differ.

/// `host [":" port]` in its one form; user information, empty parts and zone ids have none.
pub fn host(authority: &str) -> Option<Box<str>> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            let name = name.strip_suffix('.').unwrap_or(name);
            let plain = |label: &str| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            if !name.split('.').all(plain) {
                return None;
            }
            (name.to_ascii_lowercase(), port)
        }
    };
    if port.is_empty() {
        return Some(name.into());
    }
    let port = port.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    Some(format!("{name}:{}", port.parse::<u16>().ok()?).into())
}

/// Accepts a path that has one reading (RFC 3986 6.2.2): `pchar`s and `/`, no empty or dot segments, no `;`, every
/// escape necessary, in upper-case hex, and together UTF-8.
pub fn path(path: &str) -> Result<(), &'static str> {
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

/// Whether the mesh takes this header (lower case) from every request before anybody sees it, policy included.
pub fn is_stripped(name: &str) -> bool {
    // hyper has acted on `connection` already; passed on, it can only have headers removed by whoever honours it.
    const NAMES: [&str; 15] = [
        "client-cert",
        "client-cert-chain",
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "ssl-client-cert",
        "x-client-cert",
        "x-forwarded-client-cert",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-ssl-client-cert",
    ];
    const PREFIXES: [&str; 3] = ["l5d-", "x-envoy-", "x-mesh-"];
    // Gateways and CGI-like frameworks read `_` as `-`.
    let dashed;
    let name = if name.contains('_') {
        dashed = name.replace('_', "-");
        &dashed
    } else {
        name
    };
    match name.as_bytes().first() {
        Some(b'c' | b'k' | b'l' | b'p' | b's' | b'x') => {
            NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }
        _ => false,
    }
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
            assert_eq!(path(text), expected, "{text}");
        }
    }

    #[test]
    fn hosts_have_one_form() {
        for (text, expected) in [
            ("Orders.Shop", Some("orders.shop")),
            ("orders.", Some("orders")),
            ("orders.:8443", Some("orders:8443")),
            ("orders:0443", Some("orders:443")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("[::1]:443", Some("[::1]:443")),
            ("[0:0::1]", Some("[::1]")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a:", None),
            ("a:65536", None),
            ("a:+1", None),
            ("a:1:2", None),
            ("user@a", None),
            ("a,b", None),
            ("a%2eb", None),
            ("[::1", None),
            ("[fe80::1%25eth0]", None),
            ("[::1]x", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}
