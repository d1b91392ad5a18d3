//! Request bodies decompressed, to as many bytes as a body may have.
//!
//! A megabyte of gzip is a gigabyte of zeros. tower-http's decoder makes a few kilobytes at a time, as they are asked for;
//! what it makes is counted here, and nothing more is read once it is too much. The bytes as they came are bounded and paced
//! below.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready as ready_or};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{LengthLimitError, Limited};
use pin_project_lite::pin_project;
use tower_http::decompression::{DecompressionBody, RequestDecompression};
use tower_service::Service;

use crate::connection::{Fate, Unfit};
use crate::reject::{Kind, Reject};
use crate::transport::Decompress;

const UNSUPPORTED: Reject = Reject::new(Kind::UnsupportedEncoding, "unsupported_encoding");

/// The request with its body decompressed, if its listener says so.
///
/// # Errors
///
/// An encoding that is not known, or more than one: a stack of them multiplies what each alone can do.
pub(super) fn decompressed(mut request: Request<Body>) -> Result<Request<Body>, Reject> {
    let Some(Decompress { max, fate }) = request.extensions_mut().remove() else { return Ok(request) };
    let Some(encoding) = encoding(request.headers())? else { return Ok(request) };
    request.headers_mut().insert(CONTENT_ENCODING, encoding);
    let input = Arc::new(Input::default());
    let request = request.map(|body| Compressed { body, input: Arc::clone(&input) });
    let mut decoded = None;
    // The layer has nothing to wait for: it calls its service at once, or answers 415 itself, which we do not ask for.
    drop(RequestDecompression::new(Taker(&mut decoded)).call(request));
    let request = decoded.ok_or(UNSUPPORTED)?;
    Ok(request.map(|body| Body::new(Decompressed { body: Some(Limited::new(body, max)), input, fate })))
}

/// The one encoding of the body, as tower-http spells it; `None` without any.
fn encoding(headers: &HeaderMap) -> Result<Option<HeaderValue>, Reject> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        for coding in value.to_str().map_err(|_| UNSUPPORTED)?.split(',').map(str::trim) {
            if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
                continue;
            }
            // RFC 9110 8.4.1: names are case-insensitive, and `x-gzip` is an older one.
            let known = if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                "gzip"
            } else if coding.eq_ignore_ascii_case("deflate") {
                "deflate"
            } else {
                return Err(UNSUPPORTED);
            };
            if found.replace(HeaderValue::from_static(known)).is_some() {
                return Err(UNSUPPORTED);
            }
        }
    }
    Ok(found)
}

/// Takes the request that the layer makes.
struct Taker<'a>(&'a mut Option<Request<DecompressionBody<Compressed>>>);

impl Service<Request<DecompressionBody<Compressed>>> for Taker<'_> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<DecompressionBody<Compressed>>) -> Self::Future {
        *self.0 = Some(request);
        ready(Ok(Response::default()))
    }
}

/// What became of the compressed bytes.
#[derive(Debug, Default)]
struct Input {
    /// Bytes that the decoder has not used.
    left: AtomicUsize,
    /// The body failed by itself, not by what was in it.
    failed: AtomicBool,
}

pin_project! {
    /// The body as it came.
    struct Compressed {
        #[pin]
        body: Body,
        input: Arc<Input>,
    }
}

impl HttpBody for Compressed {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let this = self.project();
        let polled = ready_or!(this.body.poll_frame(cx));
        Poll::Ready(polled.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|bytes| {
                this.input.left.fetch_add(bytes.len(), Ordering::Relaxed);
                Piece { bytes, input: Arc::clone(this.input) }
            })),
            Err(error) => {
                this.input.failed.store(true, Ordering::Relaxed);
                Err(error.into_inner())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Compressed bytes that tell when they are used. The decoder leaves what stands behind its end, and says nothing.
struct Piece {
    bytes: Bytes,
    input: Arc<Input>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.input.left.fetch_sub(bytes, Ordering::Relaxed); // `Compressed` added them
    }
}

/// The body is not what its `content-encoding` says.
#[derive(Debug, thiserror::Error)]
#[error("the request body goes on behind the end of its compressed data")]
struct Surplus;

pin_project! {
    /// The body as the handler gets it; it ends with its first error.
    struct Decompressed {
        #[pin]
        body: Option<Limited<DecompressionBody<Compressed>>>,
        input: Arc<Input>,
        fate: Arc<Fate>,
    }
}

impl HttpBody for Decompressed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let error = match ready_or!(body.poll_frame(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None if this.input.left.load(Ordering::Relaxed) == 0 => {
                this.body.set(None);
                return Poll::Ready(None);
            }
            None => Surplus.into(),
            Some(Err(error)) => error,
        };
        if error.is::<LengthLimitError>() {
            this.fate.set(Unfit::BodyTooLarge);
        } else if !this.input.failed.load(Ordering::Relaxed) {
            this.fate.set(Unfit::BodyEncoding);
        }
        this.body.set(None); // no more is read of it
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// What lives of a bomb is one piece of what came and one of what it became.
    #[tokio::test]
    async fn of_a_bomb_a_few_kilobytes_live_at_once_and_reading_stops() {
        const MAX: usize = 4 << 20;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let mut parts = Vec::new();
        for _ in 0..2 {
            encoder.write_all(&vec![0; 1 << 20]).unwrap();
            encoder.flush().unwrap();
            parts.push(Bytes::from(std::mem::take(encoder.get_mut())));
        }
        let (begin, more) = (parts.swap_remove(0), parts.swap_remove(0));
        let pulled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pulled);
        // A gigabyte, were it read.
        let pieces = std::iter::once(begin).chain(std::iter::repeat_n(more.clone(), 1023)).map(move |piece| {
            count.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(piece))
        });
        let mut request = Request::new(Body::new(StreamBody::new(futures_util::stream::iter(pieces))));
        request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let fate = Arc::new(Fate::default());
        request.extensions_mut().insert(Decompress { max: MAX, fate: Arc::clone(&fate) });
        let mut body = decompressed(request).unwrap().into_body();
        let (mut sum, mut largest) = (0, 0);
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => {
                    let length = frame.into_data().unwrap().len();
                    (sum, largest) = (sum + length, largest.max(length));
                }
                Err(error) => break error,
            }
        };
        assert!(error.into_inner().is::<LengthLimitError>());
        assert_eq!(fate.get(), Some(Unfit::BodyTooLarge));
        assert!(sum <= MAX && sum > MAX - 64 * 1024, "{sum}");
        assert!(largest <= 16 * 1024, "a piece of {largest}");
        let pulled = pulled.load(Ordering::Relaxed);
        assert!(pulled <= 6 * more.len(), "{pulled} bytes were read of it");
        assert!(body.frame().await.is_none(), "it has ended");
    }
}
