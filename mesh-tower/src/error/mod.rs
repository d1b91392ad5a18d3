//! Why a call through the mesh failed: one type for the operator's log and the caller's status.
//!
//! The log wants everything - endpoint, cause chain, attempts. The caller of *our* service must learn nothing of it.
//! So [`Error`] keeps the whole story in `Display` and `source`, and [`IntoResponse`] turns it into a bare status:
//!
//! | kind | status |
//! |---|---|
//! | `Timeout` | 504 |
//! | `Unresolved`, `NoEndpoints`, `Overloaded`, `LimitReached`, `OwnIdentity` | 503 |
//! | `Connect`, `PeerIdentity`, `Connection`, `Body`, `Decode`, `TooLarge`, `Status` | 502 |
//! | `Request`, `Unroutable`, `Token`, `Wiring` | 500 |

mod kind;

pub use kind::ErrorKind;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use mesh_core::discover::EndpointKey;

use crate::client::Attempts;

/// Any error, as bodies and transports report them.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The most of a cause chain that is kept, in bytes: some of it may be a peer's own words, 16 KiB in a GOAWAY.
const MAX_CHAIN: usize = 1024;

/// An error with all its causes on one line, cut at [`MAX_CHAIN`].
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.len() > MAX_CHAIN {
        let end = (0..=MAX_CHAIN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A call that did not succeed: what, at which service and endpoint, and why.
///
/// `Display` shows the whole cause chain on one line, for logs. In an axum handler `?` answers 502, 503 or 504 without
/// any of it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
    service: Option<Arc<str>>,
    endpoint: Option<EndpointKey>,
    never_sent: bool,
    attempts: Attempts,
}

impl Error {
    /// An error without endpoint, cause or attempts.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
            service: None,
            endpoint: None,
            never_sent: false,
            attempts: Attempts::default(),
        }))
    }

    /// A layer that was used without `needed` around it.
    pub(crate) fn wiring(layer: &'static str, needed: &'static str) -> Self {
        Self::new(ErrorKind::Wiring, format!("{layer} found no mark of {needed}: put {needed} above it"))
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn of_service(mut self, service: &Arc<str>) -> Self {
        self.0.service.get_or_insert_with(|| Arc::clone(service));
        self
    }

    pub(crate) fn at_endpoint(mut self, endpoint: &EndpointKey) -> Self {
        self.0.endpoint.get_or_insert_with(|| endpoint.clone());
        self
    }

    /// Marks that no endpoint can have begun to process the request.
    pub(crate) fn never_sent(mut self) -> Self {
        self.0.never_sent = true;
        self
    }

    /// Marks that an endpoint may have begun to process the request.
    pub(crate) fn maybe_sent(mut self) -> Self {
        self.0.never_sent = false;
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: Attempts) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, in words; nothing of where and why.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The service that was called.
    pub fn service(&self) -> Option<&str> {
        self.0.service.as_deref()
    }

    /// The endpoint that the last attempt went to.
    pub fn endpoint(&self) -> Option<&EndpointKey> {
        self.0.endpoint.as_ref()
    }

    /// Whether it is certain that no endpoint began to process the request.
    pub fn is_never_sent(&self) -> bool {
        self.0.never_sent
    }

    /// Whether callers of ours should not repeat their own request: see [`Attempts::is_in_vain`].
    pub fn is_in_vain(&self) -> bool {
        self.0.attempts.is_in_vain()
    }

    /// Every attempt that was made, oldest first.
    pub fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    pub(crate) fn attempts_mut(&mut self) -> &mut Attempts {
        &mut self.0.attempts
    }

    /// The status that tells a caller of ours as little as possible.
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Unresolved
            | ErrorKind::NoEndpoints
            | ErrorKind::Overloaded
            | ErrorKind::LimitReached
            | ErrorKind::OwnIdentity => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Request | ErrorKind::Unroutable | ErrorKind::Token | ErrorKind::Wiring => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ErrorKind::Connect
            | ErrorKind::PeerIdentity
            | ErrorKind::Connection
            | ErrorKind::Body
            | ErrorKind::Decode
            | ErrorKind::TooLarge
            | ErrorKind::Status(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(service) = &inner.service {
            write!(f, "{service}: ")?;
        }
        write!(f, "{}", inner.message)?;
        if let Some(endpoint) = &inner.endpoint {
            write!(f, " (endpoint {endpoint}")?;
            match inner.attempts.len() {
                0 | 1 => f.write_str(")")?,
                n => write!(f, ", attempt {n})")?,
            }
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own `Display` has already written the rest of the chain.
            cause = if error.is::<Self>() { None } else { error.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("service", &self.0.service)
            .field("endpoint", &self.0.endpoint)
            .field("never_sent", &self.0.never_sent)
            .field("attempts", &self.0.attempts)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl IntoResponse for Error {
    /// The bare status. Where [repeating is in vain](Self::is_in_vain) the caller is told so: retries that multiply from
    /// hop to hop turn a small outage into a large one.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if self.is_in_vain() {
            crate::classify::forbid_retry(response.headers_mut());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_the_chain_and_the_caller_has_the_status_alone() {
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused by 10.0.0.7");
        let error = Error::new(ErrorKind::Connect, "cannot connect")
            .of_service(&"payments".into())
            .at_endpoint(&EndpointKey("10.0.0.7:80".into()))
            .caused_by(cause);
        assert_eq!(error.to_string(), "payments: cannot connect (endpoint 10.0.0.7:80): refused by 10.0.0.7");

        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert!(response.headers().is_empty(), "{:?}", response.headers());
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(0));
    }

    #[test]
    fn statuses_of_kinds() {
        for (kind, status) in [
            (ErrorKind::Timeout, 504),
            (ErrorKind::Unresolved, 503),
            (ErrorKind::NoEndpoints, 503),
            (ErrorKind::Overloaded, 503),
            (ErrorKind::LimitReached, 503),
            (ErrorKind::OwnIdentity, 503),
            (ErrorKind::Connect, 502),
            (ErrorKind::PeerIdentity, 502),
            (ErrorKind::Connection, 502),
            (ErrorKind::Status(StatusCode::NOT_FOUND), 502),
            (ErrorKind::Request, 500),
            (ErrorKind::Token, 500),
        ] {
            assert_eq!(Error::new(kind, "x").status().as_u16(), status, "{kind:?}");
        }
    }
}
