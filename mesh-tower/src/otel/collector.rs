//! The HTTP client that the OTLP exporter posts with: one short connection for each batch.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// A collector answers with a few bytes; more is not worth reading.
const MAX_RESPONSE: usize = 64 * 1024;

/// Runs on the runtime that made it: the SDK calls from a thread of its own, which has none.
pub(super) struct Collector {
    runtime: Handle,
    timeout: Duration,
}

impl Collector {
    /// # Panics
    /// Outside of a Tokio runtime; a mesh starts inside of one.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { runtime: Handle::current(), timeout }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'async_trait>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'a: 'async_trait,
    {
        let limit = self.timeout;
        // The timer too must begin on the runtime: the thread that calls has no clock.
        let sent = self.runtime.spawn(async move { tokio::time::timeout(limit, post(request)).await });
        Box::pin(async move { sent.await?? })
    }
}

async fn post(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let authority = request.uri().authority().ok_or("the collector's URL has no host")?.clone();
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        request.headers_mut().insert(header::HOST, HeaderValue::try_from(authority.as_str())?);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes();
        drop(sender);
        Ok::<_, HttpError>(Response::from_parts(head, body))
    };
    // The connection ends when the sender is dropped, or with this future.
    let (response, _) = tokio::join!(exchange, connection);
    response
}
