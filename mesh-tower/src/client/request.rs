//! Builds one call.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use serde::Serialize;
use tower_service::Service;

use super::call::{CallTimeout, Idempotent, NoRetry};
use super::request_body::RequestBody;
use super::{Client, Explanation, Response};
use crate::error::{BoxError, Error, ErrorKind};

/// Names one attempt at an operation, so that a service can tell a repetition.
/// (IETF draft-ietf-httpapi-idempotency-key-header)
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One call in the making.
///
/// A mistake in a header or body is reported by [`send`](Self::send).
#[derive(Debug)]
#[must_use = "nothing is sent until `send`"]
pub struct RequestBuilder {
    client: Client,
    request: Result<Request<RequestBody>, Error>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, path: &str) -> Self {
        let request = Request::builder().method(method).uri(path).body(RequestBody::default());
        let request = request.map_err(|error| {
            let message = format!("`{path}` is not a path; write it like `/orders/7?full=1`");
            Error::new(ErrorKind::Request, message).caused_by(error).of_service(&client.service)
        });
        Self { client, request }
    }

    fn with(mut self, change: impl FnOnce(&mut Request<RequestBody>) -> Result<(), Error>) -> Self {
        self.request = self.request.and_then(|mut request| {
            change(&mut request).map_err(|error| error.of_service(&self.client.service))?;
            Ok(request)
        });
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        self.with(|request| {
            let wrong = |what: &str, error: http::Error| {
                Error::new(ErrorKind::Request, format!("not a header {what}")).caused_by(error)
            };
            let name = name.try_into().map_err(|error| wrong("name", error.into()))?;
            let value = value.try_into().map_err(|error| wrong("value", error.into()))?;
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// Sends `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.with(|request| {
            let json = serde_json::to_vec(value)
                .map_err(|error| Error::new(ErrorKind::Request, "the body cannot be JSON").caused_by(error))?;
            request.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            *request.body_mut() = RequestBody::new(Full::new(Bytes::from(json)));
            Ok(())
        })
    }

    /// Sends these bytes.
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        self.stream(Full::new(bytes.into()))
    }

    /// Sends any body, as it comes.
    ///
    /// It can be repeated while it is shorter than the route's `max_replay_bytes`.
    pub fn stream<B>(self, body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.with(|request| {
            *request.body_mut() = RequestBody::new(body);
            Ok(())
        })
    }

    /// Waits at most this long for the whole answer, body included.
    ///
    /// Default: the route's timeout, to the headers.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|request| {
            request.extensions_mut().insert(CallTimeout(timeout));
            Ok(())
        })
    }

    /// Declares that sending this twice does no harm, because the service remembers `key` (header `idempotency-key`).
    pub fn idempotency_key(self, key: impl std::fmt::Display) -> Self {
        let key = key.to_string();
        let mut this = self.header(IDEMPOTENCY_KEY, key);
        if let Ok(request) = &mut this.request {
            request.extensions_mut().insert(Idempotent);
        }
        this
    }

    /// Sends this at most once.
    pub fn no_retry(self) -> Self {
        self.with(|request| {
            request.extensions_mut().insert(NoRetry);
            Ok(())
        })
    }

    /// Sends `authorization: Bearer TOKEN`, instead of the token of the cluster's configuration.
    pub fn bearer_token(self, token: &str) -> Self {
        self.with(|request| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                // Without the cause: it might show the token.
                .map_err(|_| Error::new(ErrorKind::Request, "the token has characters that a header cannot carry"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(())
        })
    }

    /// What would become of the call now, without sending it; see [`Client::explain`].
    ///
    /// # Errors
    ///
    /// The mistake that [`send`](Self::send) would report.
    pub fn explain(self) -> Result<Explanation, Error> {
        Ok(self.client.explain(&self.request?))
    }

    /// Sends the call and waits for the response headers.
    ///
    /// Cancel safe: dropping the future gives the call up and frees all that it held. An error status is a
    /// [`Response`], not an error.
    pub async fn send(self) -> Result<Response, Error> {
        let Self { mut client, request } = self;
        let response = client.call(request?).await?;
        Ok(Response::new(response, client.service))
    }
}
