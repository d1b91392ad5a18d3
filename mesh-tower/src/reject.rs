//! The one place that turns a refusal into a response.
//!
//! Why a request was refused is for our operators: log, metric and audit have it. The caller learns the status and
//! nothing else, or each refusal would map out the policy for whoever probes it.

use std::time::Duration;

use axum::body::Body;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use mesh_core::audit::AuditOutcome;

use crate::connection::Unfit;
use crate::grpc::{self, Code};

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was no request that has one reading.
    Malformed,
    /// It had no single end, or was no HTTP: nobody knows what was asked, nor whether a body may answer it.
    Unreadable,
    /// It declares a longer body than the listener takes.
    TooLarge,
    /// Its body comes too slowly.
    TooSlow,
    /// It has too many headers, or too long ones.
    HeadersTooLarge,
    /// Its body is encoded in a way that is not undone here.
    UnsupportedEncoding,
    /// Its body has a type that the route does not take.
    UnsupportedType,
    /// Its query is too long.
    UriTooLong,
    /// Nobody vouches for the caller, or its token is bad.
    Unauthenticated,
    /// The caller may not.
    Forbidden,
    /// The caller's quota is spent.
    RateLimited,
    /// The process has enough to do.
    Overloaded,
    /// The caller has stopped waiting.
    Expired,
    /// The stack is put together wrongly, or a handler broke.
    Internal,
}

/// A refusal: what the caller is told, and the stable code of why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) kind: Kind,
    pub(crate) reason: &'static str,
    /// When asking again may help.
    pub(crate) retry_after: Option<Duration>,
}

impl Reject {
    /// A layer stands where it must not, or another one is missing.
    pub(crate) const WIRING: Self = Self::new(Kind::Internal, "wiring");

    /// The caller left before anything was decided.
    pub(crate) const CANCELLED: Self = Self::new(Kind::TooSlow, "cancelled");

    pub(crate) const fn new(kind: Kind, reason: &'static str) -> Self {
        Self { kind, reason, retry_after: None }
    }

    /// What the transport found.
    pub(crate) const fn unfit(unfit: Unfit) -> Self {
        match unfit {
            Unfit::BodyTooLarge => Self::new(Kind::TooLarge, "body_too_large"),
            Unfit::BodyEncoding => Self::new(Kind::Malformed, "body_encoding"),
            Unfit::JsonDepth => Self::new(Kind::Malformed, "json_depth"),
            Unfit::Trailer => Self::new(Kind::Malformed, "trailer"),
            Unfit::BodyTimeout => Self::new(Kind::TooSlow, "body_timeout"),
            Unfit::TooManyHeaders => Self::new(Kind::HeadersTooLarge, "too_many_headers"),
            Unfit::HeadersTooLarge => Self::new(Kind::HeadersTooLarge, "headers_too_large"),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Malformed | Kind::Unreadable => StatusCode::BAD_REQUEST,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::UnsupportedEncoding | Kind::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::UriTooLong => StatusCode::URI_TOO_LONG,
            Kind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Kind::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Kind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Expired => StatusCode::GATEWAY_TIMEOUT,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self.kind {
            Kind::Malformed | Kind::Unreadable | Kind::UnsupportedEncoding | Kind::UnsupportedType => {
                Code::UNIMPLEMENTED
            }
            Kind::TooLarge | Kind::HeadersTooLarge | Kind::UriTooLong => Code::RESOURCE_EXHAUSTED,
            Kind::TooSlow => Code::CANCELLED,
            Kind::Unauthenticated => Code::UNAUTHENTICATED,
            Kind::Forbidden => Code::PERMISSION_DENIED,
            Kind::RateLimited => Code::RESOURCE_EXHAUSTED,
            Kind::Overloaded => Code::UNAVAILABLE,
            Kind::Expired => Code::DEADLINE_EXCEEDED,
            Kind::Internal => Code::INTERNAL,
        }
    }

    /// How the audit trail calls it: identity and policy deny, everything else rejects.
    pub(crate) fn outcome(&self) -> AuditOutcome {
        match self.kind {
            Kind::Unauthenticated | Kind::Forbidden => AuditOutcome::Deny,
            _ if self.reason == Self::WIRING.reason => AuditOutcome::Deny,
            _ => AuditOutcome::Reject,
        }
    }

    fn text(&self) -> &'static str {
        match self.kind {
            Kind::Malformed => "bad request",
            Kind::Unreadable => "",
            Kind::TooLarge => "body too large",
            Kind::UnsupportedEncoding => "unsupported content encoding",
            Kind::UnsupportedType => "unsupported media type",
            Kind::UriTooLong => "query too long",
            Kind::TooSlow => "request timeout",
            Kind::HeadersTooLarge => "headers too large",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Forbidden => "forbidden",
            Kind::RateLimited => "too many requests",
            Kind::Overloaded => "overloaded",
            Kind::Expired => "deadline exceeded",
            Kind::Internal => "internal error",
        }
    }

    /// The response: HTTP status and a short text, or for gRPC a status without body.
    pub(crate) fn into_response(self, grpc: bool) -> Response<Body> {
        let mut response = if grpc {
            grpc::trailers_only(self.code(), self.text())
        } else {
            let mut response = Response::new(Body::from(self.text()));
            *response.status_mut() = self.status();
            let headers = response.headers_mut();
            if !self.text().is_empty() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            }
            if self.kind == Kind::UnsupportedEncoding {
                // RFC 9110 15.5.16: or the caller takes it for a complaint about the type.
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
            }
            if self.kind == Kind::Unauthenticated {
                // RFC 9110 15.5.2 demands a challenge; RFC 6750 3 would add details, which we keep.
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        };
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (kind, status, code) in [
            (Kind::Malformed, 400, 12),
            (Kind::Unreadable, 400, 12),
            (Kind::TooLarge, 413, 8),
            (Kind::UnsupportedEncoding, 415, 12),
            (Kind::UnsupportedType, 415, 12),
            (Kind::UriTooLong, 414, 8),
            (Kind::TooSlow, 408, 1),
            (Kind::HeadersTooLarge, 431, 8),
            (Kind::Unauthenticated, 401, 16),
            (Kind::Forbidden, 403, 7),
            (Kind::RateLimited, 429, 8),
            (Kind::Overloaded, 503, 14),
            (Kind::Expired, 504, 4),
            (Kind::Internal, 500, 13),
        ] {
            let reject =
                Reject { retry_after: Some(Duration::from_millis(1500)), ..Reject::new(kind, "secret_reason") };
            let http = reject.into_response(false);
            assert_eq!(http.status().as_u16(), status);
            assert_eq!(http.headers()["retry-after"], "2");
            assert_eq!(http.headers().contains_key("www-authenticate"), kind == Kind::Unauthenticated);
            let grpc = reject.into_response(true);
            assert_eq!(grpc.status(), StatusCode::OK);
            assert_eq!(grpc::status(grpc.headers()), Some(Code(code)));
            for response in [http, grpc] {
                assert!(!format!("{response:?}").contains("secret"));
            }
        }
    }
}
