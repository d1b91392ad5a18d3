//! The wire facts of gRPC that a mesh needs, without a gRPC crate.
//!
//! Source: grpc/grpc `doc/PROTOCOL-HTTP2.md` and `doc/statuscodes.md`.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

/// Where a call's status stands.
///
/// In trailers, or in the headers of a response without body.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The percent-encoded text beside the status.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the caller waits.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A gRPC status code by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// Success.
    pub const OK: Self = Self(0);
    /// The caller gave up.
    pub const CANCELLED: Self = Self(1);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The caller is known and may not.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A quota or limit is spent.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// There is no such method here.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// Something broke.
    pub const INTERNAL: Self = Self(13);
    /// Try again later.
    pub const UNAVAILABLE: Self = Self(14);
    /// Nobody vouches for the caller.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The number as the wire has it; `2` for a number that is no status.
    pub fn as_str(self) -> &'static str {
        const TEXT: [&str; 17] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
        TEXT.get(usize::from(self.0)).copied().unwrap_or("2")
    }
}

/// Whether these headers belong to a gRPC request or response.
///
/// `application/grpc`, alone or with `+` or `;`.
///
/// `application/grpc-web` is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.get(..TYPE.len()).is_some_and(|head| head.eq_ignore_ascii_case(TYPE))
            && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
    })
}

/// The status in headers or trailers; one that is no number is `UNKNOWN`.
pub fn status(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(GRPC_STATUS)?;
    let code = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|code| *code <= 16);
    Some(code.map_or(Code::UNKNOWN, Code))
}

/// The trailers that end a call with `code`.
pub fn trailers(code: Code, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(code.as_str()));
    if !message.is_empty() {
        // Percent-encoded text is visible ASCII, which a header value always takes.
        if let Ok(value) = HeaderValue::try_from(encode_message(message)) {
            trailers.insert(GRPC_MESSAGE, value);
        }
    }
    trailers
}

/// A response that is nothing but a status.
///
/// HTTP 200, the status among the headers ("trailers-only").
pub fn trailers_only<B: Default>(code: Code, message: &str) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = trailers(code, message);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Percent-encodes what a `grpc-message` may not carry as it is.
///
/// All but visible ASCII and space, and `%` itself.
pub fn encode_message(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit.
pub fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount = digits
        .iter()
        .try_fold(0_u64, |amount, digit| digit.is_ascii_digit().then(|| amount * 10 + u64::from(digit - b'0')))?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes `grpc-timeout` in the finest unit that fits.
///
/// Rounded down, so that it never promises more.
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let seconds = u128::from(timeout.as_secs());
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ];
    let (amount, unit) =
        units.into_iter().find(|(amount, _)| *amount <= MOST).unwrap_or(((seconds / 3600).min(MOST), 'H'));
    HeaderValue::try_from(format!("{amount}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let parse = |text: &'static str| parse_timeout(&HeaderValue::from_static(text));
        for (text, nanos) in
            [("0n", 0), ("1S", 1_000_000_000), ("250m", 250_000_000), ("3u", 3_000), ("99999999n", 99_999_999)]
        {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        for text in ["", "S", "1", "-1S", "1s", "100000000S", "1.5S", " 1S", "+1S"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for (timeout, text) in [
            (Duration::from_nanos(5), "5n"),
            (Duration::from_millis(250), "250000u"),
            (Duration::from_secs(150), "150000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999H"),
        ] {
            let written = format_timeout(timeout);
            assert_eq!(written, text);
            assert!(parse_timeout(&written).is_some_and(|read| read <= timeout));
        }
    }

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;x=y", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }

    #[test]
    fn statuses_and_messages() {
        let response = trailers_only::<()>(Code::UNAUTHENTICATED, "50% \u{e9}\n");
        assert_eq!(status(response.headers()), Some(Code::UNAUTHENTICATED));
        assert_eq!(response.headers()[GRPC_MESSAGE], "50%25 %C3%A9%0A");
        let odd = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("17"))]);
        assert_eq!(status(&odd), Some(Code::UNKNOWN));
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
