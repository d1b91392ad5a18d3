//! One reading of a request, so that policy, router, logs and limits cannot see different ones.
//!
//! Every bypass of this kind (Istio, Envoy, Consul and grpc-go, 2019 to 2026) came from two readers of the same bytes:
//! one saw `/public/../admin`, the other `/admin`. Here a request whose target has more than one reading is refused;
//! what passes is byte for byte what everybody sees. Nothing is decoded or rewritten.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Uri};

/// Method, authority and path as everybody sees them.
#[derive(Debug)]
pub(crate) struct Canonical {
    method: Method,
    host: Box<str>,
    uri: Uri,
}

impl Canonical {
    /// Reads a request, or says by a stable code why it has no single reading.
    pub(crate) fn of<B>(request: &Request<B>, grpc: bool) -> Result<Self, &'static str> {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        singletons(headers)?;
        if method == Method::CONNECT || uri.path() == "*" {
            return Err("target_form");
        }
        if headers.contains_key(UPGRADE) {
            return Err("upgrade");
        }
        if !matches!(uri.scheme_str(), None | Some("https" | "http")) {
            return Err("scheme");
        }
        let host = authority(uri, headers)?;
        path(uri.path())?;
        if grpc {
            if method != Method::POST {
                return Err("grpc_method");
            }
            if uri.query().is_some() || !grpc_path(uri.path()) {
                return Err("grpc_path");
            }
        }
        Ok(Self { method: method.clone(), host, uri: uri.clone() })
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Lower case, without a trailing dot, with the port if the request had one.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Without query; fragments never reach us: `http` cuts at `#`, for the router too.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }
}

/// Headers of which a second one changes the meaning of the message. (RFC 9110 5.3, RFC 9112 6.3)
fn singletons(headers: &HeaderMap) -> Result<(), &'static str> {
    const ONCE: [(HeaderName, &str); 4] = [
        (HOST, "duplicate_host"),
        (AUTHORIZATION, "duplicate_authorization"),
        (CONTENT_LENGTH, "duplicate_content_length"),
        (CONTENT_TYPE, "duplicate_content_type"),
    ];
    for (name, reason) in &ONCE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(reason);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err("length_and_transfer_encoding");
    }
    Ok(())
}

/// The authority: `:authority` or that of an absolute target; a `Host` beside it must say the same. (RFC 9113 8.3.1,
/// RFC 9112 3.2.2)
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Box<str>, &'static str> {
    let target = uri.authority().map(|authority| host(authority.as_str()).ok_or("host")).transpose()?;
    let header = match headers.get(HOST) {
        Some(value) => Some(value.to_str().ok().and_then(host).ok_or("host")?),
        None => None,
    };
    match (target, header) {
        (Some(target), Some(header)) if target != header => Err("host_mismatch"),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("host_missing"),
    }
}

/// `host [":" port]` in its one form; user information, empty parts and zone ids have none.
pub(crate) fn host(authority: &str) -> Option<Box<str>> {
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
pub(crate) fn path(path: &str) -> Result<(), &'static str> {
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

/// Exactly `/package.Service/Method`, in protobuf identifiers.
pub(crate) fn grpc_path(path: &str) -> bool {
    let identifier = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, method)| service.split('.').all(identifier) && identifier(method))
}

/// Removes every header by which a caller could claim an identity, steer the mesh, or have another header removed.
///
/// Inbound, no peer is trusted with any of them: identity comes from the handshake and the token alone.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| is_stripped(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

fn is_stripped(name: &str) -> bool {
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
    use http::HeaderValue;

    use super::*;

    fn read(request: http::request::Builder, grpc: bool) -> Result<Canonical, &'static str> {
        Canonical::of(&request.body(()).unwrap(), grpc)
    }

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

    #[test]
    fn whole_requests() {
        let get = |uri: &str| Request::get(uri);
        let ok = |read: Result<Canonical, _>| read.map(|c| format!("{} {} {}", c.method(), c.host(), c.path()));
        for (name, request, expected) in [
            ("origin form", get("/a?q=//..").header("host", "O:1"), Ok("GET o:1 /a")),
            ("fragment cut for all", get("/a#/../admin").header("host", "o"), Ok("GET o /a")),
            (":authority", get("https://O.x/a"), Ok("GET o.x /a")),
            ("absolute form that agrees", get("http://o/a").header("host", "O."), Ok("GET o /a")),
            ("absolute form that differs", get("http://o/a").header("host", "p"), Err("host_mismatch")),
            ("another port", get("https://o/a").header("host", "o:1"), Err("host_mismatch")),
            ("no host", get("/a"), Err("host_missing")),
            ("two hosts", get("/a").header("host", "o").header("host", "o"), Err("duplicate_host")),
            ("user information", get("https://u@o/a"), Err("host")),
            ("other scheme", get("ftp://o/a"), Err("scheme")),
            ("CONNECT", Request::builder().method("CONNECT").uri("o:1"), Err("target_form")),
            ("asterisk", Request::options("*").header("host", "o"), Err("target_form")),
            ("upgrade", get("/a").header("host", "o").header("upgrade", "websocket"), Err("upgrade")),
            (
                "two tokens",
                get("https://o/").header("authorization", "a").header("authorization", "b"),
                Err("duplicate_authorization"),
            ),
            (
                "two types",
                get("https://o/").header("content-type", "a").header("content-type", "b"),
                Err("duplicate_content_type"),
            ),
            (
                "two lengths",
                get("https://o/").header("content-length", "1").header("content-length", "1"),
                Err("duplicate_content_length"),
            ),
            (
                "smuggling",
                get("https://o/").header("content-length", "1").header("transfer-encoding", "chunked"),
                Err("length_and_transfer_encoding"),
            ),
        ] {
            assert_eq!(ok(read(request, false)), expected.map(str::to_owned), "{name}");
        }
    }

    #[test]
    fn grpc_targets() {
        for (uri, expected) in [
            ("https://o/shop.Payments/Charge", None),
            ("https://o/Payments/Charge", None),
            ("https://o/shop.Payments", Some("grpc_path")),
            ("https://o/shop.Payments/Charge/", Some("grpc_path")),
            ("https://o/shop.Payments/Charge/x", Some("grpc_path")),
            ("https://o/shop..Payments/Charge", Some("grpc_path")),
            ("https://o/.Payments/Charge", Some("grpc_path")),
            ("https://o/shop.Payments/", Some("grpc_path")),
            ("https://o/shop.Payments/Ch-arge", Some("grpc_path")),
            ("https://o/shop.Payments/Charge?x", Some("grpc_path")),
            ("https://o//shop.Payments/Charge", Some("path_empty_segment")),
        ] {
            assert_eq!(read(Request::post(uri), true).err(), expected, "{uri}");
        }
        assert_eq!(read(Request::get("https://o/s.P/C"), true).err(), Some("grpc_method"));
    }

    #[test]
    fn claimed_identities_are_stripped() {
        let kept =
            ["authorization", "content-type", "traceparent", "grpc-timeout", "te", "x-request-id", "x-forwarded-for"];
        let stripped = [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "X-Forwarded_Client-Cert",
            "l5d-client-id",
            "x-mesh-principal",
            "x_mesh_principal",
            "x-envoy-original-path",
            "x-envoy-expected-rq-timeout-ms",
            "client-cert",
            "connection",
            "x-http-method-override",
        ];
        let mut headers = HeaderMap::new();
        for name in kept.iter().chain(&stripped) {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("v"));
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("w"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(left, kept);
    }
}
