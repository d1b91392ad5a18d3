//! What an answer says about the endpoint's health, and whether it may be asked for again.
//!
//! HTTP says it in the status, gRPC in `grpc-status`: in the headers of a trailers-only response, else in the trailers
//! after the body. Health and retry are different questions: a 500 speaks against the endpoint, but asking again would
//! most likely only repeat the damage.
//!
//! | answer | endpoint | again |
//! |---|---|---|
//! | 2xx, 3xx, 4xx; `OK` and the codes that blame the caller | healthy | no |
//! | 429; `RESOURCE_EXHAUSTED` | failure, with the wait it asks for | no |
//! | 502, 503, 504; `UNAVAILABLE` | failure, with the wait it asks for | yes |
//! | other 5xx; `UNKNOWN`, `INTERNAL`, `DATA_LOSS`, `DEADLINE_EXCEEDED` | failure | no |
//!
//! A negative or unreadable `grpc-retry-pushback-ms` forbids repeating (gRFC A6), and so does `mesh-no-retry`: the
//! endpoint, or something behind it, has retried in vain or has no budget left to.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_core::health::Outcome;
use mesh_core::retry::{Pushback, StatusClass};

use crate::grpc;

/// Set on an answer that is not worth asking for again: retried in vain, or out of budget. Only ever prevents work, so anybody may send it.
pub(crate) const NO_RETRY: http::HeaderName = http::HeaderName::from_static("mesh-no-retry");

/// Marks an answer as not worth asking for again.
///
/// Sets `mesh-no-retry: 1`, in HTTP headers or gRPC metadata. [`Error`](crate::Error) as a response and mesh-tonic's `status`
/// do so by themselves; for handlers that make an answer of their own from
/// [`Error::is_in_vain`](crate::Error::is_in_vain).
pub fn forbid_retry(headers: &mut HeaderMap) {
    headers.insert(NO_RETRY, http::HeaderValue::from_static("1"));
}

/// The longest wait that an endpoint may ask for. (Linkerd, Envoy)
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What one answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// For the endpoint's health.
    pub outcome: Outcome,
    /// Whether another attempt may do better, if repeating is safe at all.
    pub retryable: bool,
    /// What the endpoint asks for before that.
    pub pushback: Pushback,
}

impl Class {
    const SUCCESS: Self = Self { outcome: Outcome::Success, retryable: false, pushback: Pushback::None };

    fn failure(retryable: bool, headers: &HeaderMap) -> Self {
        let pushback = if headers.contains_key(NO_RETRY) { Pushback::Never } else { pushback(headers) };
        let retry_after = match pushback {
            Pushback::After(wait) => Some(wait),
            Pushback::None | Pushback::Never => None,
        };
        Self { outcome: Outcome::Failure { retry_after }, retryable, pushback }
    }
}

/// Judges response headers.
///
/// `None`: a gRPC answer whose status is still to come in its trailers.
pub fn headers(grpc: bool, status: StatusCode, headers: &HeaderMap) -> Option<Class> {
    if grpc && status == StatusCode::OK {
        return headers.contains_key(grpc::GRPC_STATUS).then(|| trailers(headers));
    }
    Some(match StatusClass::of(status.as_u16()) {
        StatusClass::Unavailable => Class::failure(true, headers),
        StatusClass::Failure => Class::failure(false, headers),
        StatusClass::Fine => Class::SUCCESS,
    })
}

/// Judges gRPC trailers, or the headers of a trailers-only answer.
///
/// A missing or unreadable status counts as `UNKNOWN`.
pub fn trailers(trailers: &HeaderMap) -> Class {
    match grpc::status(trailers).unwrap_or(grpc::Code::UNKNOWN).0 {
        14 => Class::failure(true, trailers),
        2 | 4 | 8 | 13 | 15 => Class::failure(false, trailers),
        // 12, UNIMPLEMENTED, also is the caller's: it called a method that this server never had.
        _ => Class::SUCCESS,
    }
}

/// A gRPC answer that ended without trailers: the stream broke off.
pub(crate) fn no_trailers() -> Class {
    Class { outcome: Outcome::Failure { retry_after: None }, retryable: false, pushback: Pushback::None }
}

/// Reads `grpc-retry-pushback-ms` (gRFC A6), else `retry-after` in seconds (RFC 9110 10.2.3; its date form is ignored,
/// because it would need both clocks to agree).
fn pushback(headers: &HeaderMap) -> Pushback {
    if let Some(pushback) = headers.get("grpc-retry-pushback-ms") {
        return match pushback.to_str().ok().and_then(|v| v.parse::<u64>().ok()) {
            Some(ms) => Pushback::After(Duration::from_millis(ms).min(MAX_RETRY_AFTER)),
            None => Pushback::Never,
        };
    }
    match headers.get(http::header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok()) {
        Some(seconds) => Pushback::After(Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
        None => Pushback::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn failure(retryable: bool, wait: Option<u64>) -> Class {
        let retry_after = wait.map(Duration::from_secs);
        let pushback = retry_after.map_or(Pushback::None, Pushback::After);
        Class { outcome: Outcome::Failure { retry_after }, retryable, pushback }
    }

    fn never() -> Class {
        Class { pushback: Pushback::Never, ..failure(true, None) }
    }

    #[test]
    fn http_statuses() {
        for (status, pairs, class) in [
            (200, &[][..], Class::SUCCESS),
            (404, &[], Class::SUCCESS),
            (429, &[("retry-after", "7")], failure(false, Some(7))),
            (500, &[], failure(false, None)),
            (501, &[], failure(false, None)),
            (502, &[], failure(true, None)),
            (503, &[("retry-after", "100000")], failure(true, Some(300))),
            (503, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], failure(true, None)),
            (503, &[("mesh-no-retry", "1")], never()),
            (504, &[], failure(true, None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(headers(false, status, &map(pairs)), Some(class), "{status} {pairs:?}");
        }
    }

    #[test]
    fn grpc_statuses() {
        assert_eq!(headers(true, StatusCode::OK, &map(&[])), None, "the status comes in the trailers");
        // A proxy's answer to a gRPC call is judged as HTTP.
        assert_eq!(headers(true, StatusCode::SERVICE_UNAVAILABLE, &map(&[])), Some(failure(true, None)));
        for (pairs, class) in [
            (&[("grpc-status", "0")][..], Class::SUCCESS),
            (&[("grpc-status", "5")], Class::SUCCESS),
            (&[("grpc-status", "7")], Class::SUCCESS),
            (&[("grpc-status", "8")], failure(false, None)),
            (&[("grpc-status", "13")], failure(false, None)),
            (&[("grpc-status", "14")], failure(true, None)),
            (&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "3000")], failure(true, Some(3))),
            (&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")], never()),
            (&[("grpc-status", "x")], failure(false, None)),
        ] {
            assert_eq!(headers(true, StatusCode::OK, &map(pairs)), Some(class), "{pairs:?}");
        }
    }
}
