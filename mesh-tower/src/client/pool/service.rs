//! The innermost service: one attempt over one pooled connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body::Body as _;
use tower_service::Service;

use super::{Lease, Pool};
use crate::client::Body;
use crate::client::call::Call;
use crate::client::replay::ReplayBody;
use crate::error::{Error, ErrorKind};

/// Sends a request over a connection of the endpoint that [`Balance`](crate::client::balance::Balance) chose.
///
/// Always ready. Cancel safe: dropping the future resets the stream and frees it.
///
/// # Position
///
/// The innermost: below `balance`, which chooses the endpoint, and below every layer that writes a header, because it
/// gives the request the form that the connection's HTTP version demands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Transport(());

impl Service<Request<ReplayBody>> for Transport {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<ReplayBody>) -> Self::Future {
        let chosen = request.extensions_mut().get_mut::<Call>().and_then(|call| call.chosen.take());
        // The one box of an attempt: hyper's futures have no names.
        Box::pin(async move {
            let Some(chosen) = chosen else { return Err(Error::wiring("Transport", "BalanceLayer")) };
            send(Pool::acquire(&chosen.endpoint, &chosen.progress).await?, request).await
        })
    }
}

/// Sends a request over what was claimed for it.
pub(crate) async fn send(lease: Lease, mut request: Request<ReplayBody>) -> Result<Response<Body>, Error> {
    shape(&mut request, lease.is_http2())?;
    let (response, lease) = lease.send(request).await?;
    Ok(response.map(|body| Body::incoming(body, lease)))
}

/// HTTP/2 wants an absolute URI and no connection headers (RFC 9113 8.2.2, 8.3.1), HTTP/1.1 the path and `host`
/// (RFC 9112 3.2).
fn shape(request: &mut Request<ReplayBody>, http2: bool) -> Result<(), Error> {
    let uri = std::mem::take(request.uri_mut());
    let invalid = |error: http::Error| Error::new(ErrorKind::Request, "the URI cannot be sent").caused_by(error);
    let mut parts = uri.into_parts();
    let path = parts.path_and_query.take().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let authority = parts.authority.take();
    request.extensions_mut().clear();
    let length = request.body().size_hint().exact();
    let headers = request.headers_mut();
    drop_wrong_length(headers, length);
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    let host = |authority: &Authority| HeaderValue::from_str(authority.as_str());
    if http2 {
        headers.remove(HOST);
        let mut uri = Uri::builder().scheme(Scheme::HTTPS).path_and_query(path);
        if let Some(authority) = authority {
            uri = uri.authority(authority);
        }
        *request.uri_mut() = uri.build().map_err(invalid)?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        if let Some(authority) = &authority {
            headers.insert(HOST, host(authority).map_err(|error| invalid(error.into()))?);
        }
        *request.uri_mut() = path.into();
        *request.version_mut() = Version::HTTP_11;
    }
    Ok(())
}

/// Leaves no `content-length` but the body's own; hyper writes one where it is needed.
///
/// Whoever passes headers on with another body would promise bytes that never come, and an HTTP/1.1 server would take the
/// next request on the connection for them. hyper believes the header where the body is empty.
fn drop_wrong_length(headers: &mut HeaderMap, length: Option<u64>) {
    let Some(length) = length else { return };
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let right = said.next().is_none_or(|first| *first == HeaderValue::from(length)) && said.next().is_none();
    if !right {
        headers.remove(CONTENT_LENGTH);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
