//! What a route takes at all, checked before its handler parses anything.

mod json;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use http_body::{Frame, SizeHint};
use mesh_core::Mesh;
use pin_project_lite::pin_project;
use tower_layer::Layer;

use self::json::JsonDepth;
use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use super::permit::Cut;
use crate::connection::Unfit;
use crate::reject::{Kind, Reject};

/// Refuses requests that a route's handler should not even begin to read.
///
/// | limit | default | refused with | reason |
/// |---|---|---|---|
/// | [`max_body`](Self::max_body), as announced and as it comes | the listener's `max_body_bytes` | 413 | `body_too_large` |
/// | [`content_types`](Self::content_types) of requests with a body | any | 415 | `content_type` |
/// | [`max_json_depth`](Self::max_json_depth) of `application/json` and `*+json` | 32 | 400 | `json_depth` |
/// | [`max_headers`](Self::max_headers): fields, bytes of names and values | the listener's | 431 | `too_many_headers`, `headers_too_large` |
/// | [`max_query`](Self::max_query): parameters, bytes | 128, 8 KiB | 414 | `too_many_parameters`, `query_too_long` |
///
/// Each refusal is counted, logged and recorded like those of the stack, and tells the caller its status alone. The
/// nesting of JSON is counted as the bytes come: nothing is parsed and nothing is kept. What the handler makes of a body
/// that is cut does not matter, unless its answer is on its way already: then that is cut.
///
/// Source: OWASP API4:2023, unrestricted resource consumption.
///
/// ```
/// use axum::{Router, routing::post};
/// use mesh_tower::server::ValidateLayer;
///
/// # fn routes(mesh: &mesh_tower::Mesh) -> Router {
/// Router::new()
///     .route("/orders", post(|| async {}))
///     .route_layer(ValidateLayer::new(mesh).max_body(16 * 1024).content_types(["application/json"]))
/// # }
/// ```
///
/// # Position
/// Around routes, inside of the stack: callers who may not call learn nothing of what a route takes. Anywhere else it
/// denies with reason `wiring`.
#[derive(Debug, Clone)]
pub struct ValidateLayer {
    mesh: Mesh,
    limits: Arc<Limits>,
}

#[derive(Debug, Clone)]
struct Limits {
    body: u64,
    types: Option<Vec<String>>,
    depth: u32,
    headers: (usize, usize),
    query: (usize, usize),
}

/// What [`ValidateLayer`] makes of a service.
pub type Validate<S> = Gated<S, ValidateLayer>;

impl ValidateLayer {
    /// The layer of this mesh with its defaults.
    pub fn new(mesh: &Mesh) -> Self {
        let limits = Limits {
            body: u64::MAX,
            types: None,
            depth: 32,
            headers: (usize::MAX, usize::MAX),
            query: (128, 8 * 1024),
        };
        Self { mesh: mesh.clone(), limits: Arc::new(limits) }
    }

    /// Bytes of a body at most. The listener's `max_body_bytes` holds beside it.
    #[must_use]
    pub fn max_body(self, bytes: u64) -> Self {
        self.with(|limits| limits.body = bytes)
    }

    /// The media types that a body may have, without parameters: `application/json`, or `image/*`.
    ///
    /// A body without `Content-Type` has none of them.
    #[must_use]
    pub fn content_types<T: Into<String>>(self, types: impl IntoIterator<Item = T>) -> Self {
        let types = types.into_iter().map(|name| name.into().to_ascii_lowercase()).collect();
        self.with(|limits| limits.types = Some(types))
    }

    /// How deep arrays and objects may be nested in a JSON body.
    ///
    /// One that says it is JSON.
    #[must_use]
    pub fn max_json_depth(self, depth: u32) -> Self {
        self.with(|limits| limits.depth = depth)
    }

    /// Header fields at most, and bytes of all of their names and values.
    #[must_use]
    pub fn max_headers(self, fields: usize, bytes: usize) -> Self {
        self.with(|limits| limits.headers = (fields, bytes))
    }

    /// Parameters of the query at most, and bytes of all of it.
    #[must_use]
    pub fn max_query(self, parameters: usize, bytes: usize) -> Self {
        self.with(|limits| limits.query = (parameters, bytes))
    }

    fn with(mut self, set: impl FnOnce(&mut Limits)) -> Self {
        set(Arc::make_mut(&mut self.limits));
        self
    }
}

impl<S> Layer<S> for ValidateLayer {
    type Service = Validate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for ValidateLayer {
    const NAME: &'static str = "validate";

    fn mesh(&self) -> Option<&Mesh> {
        Some(&self.mesh)
    }

    fn pass(&self, exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Reject> {
        if !exchange.permitted() {
            return Err(Reject::WIRING);
        }
        let limits = &self.limits;
        limits.headers(request.headers())?;
        limits.query(request.uri().query().unwrap_or_default())?;
        if request.body().is_end_stream() {
            return Ok(());
        }
        let media_type = media_type(request.headers());
        if !limits.takes(media_type.as_deref()) {
            return Err(Reject::new(Kind::UnsupportedType, "content_type"));
        }
        if request.body().size_hint().lower() > limits.body {
            return Err(Reject::unfit(Unfit::BodyTooLarge));
        }
        let json = media_type.is_some_and(|name| is_json(&name)).then(|| JsonDepth::new(limits.depth));
        if json.is_some() || limits.body < u64::MAX {
            let inner = std::mem::take(request.body_mut());
            *request.body_mut() =
                Body::new(Validated { inner, left: limits.body, json, exchange: Arc::clone(exchange) });
        }
        Ok(())
    }
}

impl Limits {
    fn headers(&self, headers: &HeaderMap) -> Result<(), Reject> {
        let (fields, bytes) = self.headers;
        if headers.len() > fields {
            return Err(Reject::unfit(Unfit::TooManyHeaders));
        }
        let size = |(name, value): (&http::HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let fits = headers.iter().map(size).sum::<usize>() <= bytes;
        if fits { Ok(()) } else { Err(Reject::unfit(Unfit::HeadersTooLarge)) }
    }

    fn query(&self, query: &str) -> Result<(), Reject> {
        let (parameters, bytes) = self.query;
        if query.len() > bytes {
            return Err(Reject::new(Kind::UriTooLong, "query_too_long"));
        }
        let fits = query.split('&').filter(|pair| !pair.is_empty()).count() <= parameters;
        if fits { Ok(()) } else { Err(Reject::new(Kind::UriTooLong, "too_many_parameters")) }
    }

    fn takes(&self, media_type: Option<&str>) -> bool {
        let Some(types) = &self.types else { return true };
        media_type.is_some_and(|given| {
            types.iter().any(|wanted| match wanted.strip_suffix("/*") {
                Some(class) => given.split_once('/').is_some_and(|(given, _)| given == class),
                None => given == wanted,
            })
        })
    }
}

/// `type/subtype` in lower case, without parameters. (RFC 9110 8.3.1)
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type == "text/json" || media_type.ends_with("+json")
}

pin_project! {
    /// A body that ends where it becomes too long or too deep.
    struct Validated {
        #[pin]
        inner: Body,
        left: u64,
        json: Option<JsonDepth>,
        exchange: Arc<Exchange>,
    }
}

impl HttpBody for Validated {
    type Data = Bytes;
    // As it came, so that axum finds what it looks for among the causes.
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let polled = this.inner.poll_frame(cx).map_err(axum::Error::into_inner);
        let Poll::Ready(Some(Ok(frame))) = &polled else { return polled };
        let Some(data) = frame.data_ref() else { return polled };
        let left = this.left.checked_sub(data.len() as u64);
        let shallow = this.json.as_mut().is_none_or(|json| json.takes(data));
        *this.left = left.unwrap_or_default();
        let unfit = match (left, shallow) {
            (None, _) => Unfit::BodyTooLarge,
            (_, false) => Unfit::JsonDepth,
            _ => return polled,
        };
        this.exchange.set_unfit(unfit);
        Poll::Ready(Some(Err(Cut(Reject::unfit(unfit).reason).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        let takes = |wanted: &'static str, given: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(given))]);
            let limits =
                Limits { body: 0, types: Some(vec![wanted.to_owned()]), depth: 0, headers: (0, 0), query: (0, 0) };
            limits.takes(media_type(&headers).as_deref())
        };
        for (wanted, given, expected) in [
            ("application/json", "application/json", true),
            ("application/json", "Application/JSON ; charset=utf-8", true),
            ("application/json", "application/json-patch+json", false),
            ("application/json", "text/plain, application/json", false),
            ("application/json", "", false),
            ("image/*", "image/png", true),
            ("image/*", "image", false),
            ("image/*", "imagery/png", false),
        ] {
            assert_eq!(takes(wanted, given), expected, "{given} of {wanted}");
        }
        assert!(is_json("application/problem+json") && !is_json("application/jsonx"));
    }
}
