//! The answer to a call, with the few things that callers do with it.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::{Attempts, Body};
use crate::error::{Error, ErrorKind};

/// Bytes of a body that [`Response::bytes`] and its kin read.
///
/// 4 MiB, unless [`Response::limit`] says otherwise.
pub const DEFAULT_BODY_LIMIT: usize = 4 * 1024 * 1024;

/// The answer to a call.
///
/// Headers that are here, and a body that is still to be read.
#[derive(Debug)]
pub struct Response {
    inner: http::Response<Body>,
    limit: usize,
    service: std::sync::Arc<str>,
}

impl Response {
    pub(super) fn new(inner: http::Response<Body>, service: std::sync::Arc<str>) -> Self {
        Self { inner, limit: DEFAULT_BODY_LIMIT, service }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Every attempt that was made for this answer, oldest first.
    pub fn attempts(&self) -> Option<&Attempts> {
        self.inner.extensions().get()
    }

    /// Reads at most this many bytes of body.
    ///
    /// A longer one is an error, never cut.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The answer itself if its status is neither 4xx nor 5xx.
    ///
    /// Else an error of kind [`Status`](ErrorKind::Status).
    pub fn error_for_status(self) -> Result<Self, Error> {
        let status = self.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(self.error(ErrorKind::Status(status), format!("answered with {status}")));
        }
        Ok(self)
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        let limit = self.limit;
        let declared = http_body::Body::size_hint(self.inner.body()).lower();
        if declared > limit as u64 {
            return Err(self.error(ErrorKind::TooLarge, format!("the body has {declared} bytes, the limit is {limit}")));
        }
        let (parts, mut body) = self.inner.into_parts();
        let this = Self { inner: http::Response::from_parts(parts, Body::default()), ..self };
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| error.of_service(&this.service))?.into_data() else { continue };
            if first.len() + all.len() + data.len() > limit {
                return Err(this.error(ErrorKind::TooLarge, format!("the body has more than {limit} bytes")));
            }
            // Most answers are one chunk, which needs no copy.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if !first.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// The whole body as UTF-8 text.
    pub async fn text(self) -> Result<String, Error> {
        let service = std::sync::Arc::clone(&self.service);
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|error| {
            Error::new(ErrorKind::Decode, "the body is not UTF-8").caused_by(error.utf8_error()).of_service(&service)
        })
    }

    /// The whole body as JSON.
    ///
    /// An error status is an error here too: its body is hardly a `T`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let this = self.error_for_status()?;
        let service = std::sync::Arc::clone(&this.service);
        let bytes = this.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("the body is not the JSON of {}", std::any::type_name::<T>());
            Error::new(ErrorKind::Decode, message).caused_by(error).of_service(&service)
        })
    }

    /// The plain HTTP response, for streaming.
    pub fn into_inner(self) -> http::Response<Body> {
        self.inner
    }

    fn error(&self, kind: ErrorKind, message: String) -> Error {
        let error = Error::new(kind, message).of_service(&self.service);
        match self.attempts() {
            Some(attempts) => {
                let last = attempts.last().and_then(|report| report.endpoint.clone());
                let error = error.with_attempts(attempts.clone());
                match last {
                    Some(endpoint) => error.at_endpoint(&endpoint),
                    None => error,
                }
            }
            None => error,
        }
    }
}
