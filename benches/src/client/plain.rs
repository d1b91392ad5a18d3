//! Callers of modes `bare` and `mtls`: hyper connections, nothing between.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::Caller;
use super::judge::{echoed, hello};
use crate::perf::echo_client::EchoClient;
use crate::{Error, Proto, app};

/// Where to, and how.
#[derive(Debug)]
pub struct PlainTarget {
    uri: Uri,
    headers: HeaderMap,
    tls: Option<Arc<ClientConfig>>,
}

impl PlainTarget {
    /// `uri` with scheme, host and path; `headers` go on every request.
    pub fn new(uri: Uri, headers: HeaderMap, tls: Option<Arc<ClientConfig>>) -> Arc<Self> {
        Arc::new(Self { uri, headers, tls })
    }

    /// `concurrency` callers over `connections`. HTTP/1.1 carries one request at a time: there each has its own.
    pub async fn http(
        self: &Arc<Self>,
        proto: Proto,
        concurrency: usize,
        connections: usize,
    ) -> Result<Vec<HttpCaller>, Error> {
        let http2 = proto == Proto::H2;
        let connections = if http2 { connections } else { concurrency };
        let slots: Vec<_> = (0..connections).map(|_| Slot::default()).collect();
        let mut callers = Vec::new();
        for slot in slots.iter().cycle().take(concurrency) {
            let connection = if http2 { Http::H2(slot.get(self).await?) } else { Http::H1(self.http1().await?) };
            callers.push(HttpCaller { target: self.clone(), slot: slot.clone(), connection });
        }
        Ok(callers)
    }

    /// `concurrency` callers of `perf.Echo/Unary` over `connections`.
    pub async fn grpc(self: &Arc<Self>, concurrency: usize, connections: usize) -> Result<Vec<GrpcCaller>, Error> {
        let slots: Vec<_> = (0..connections).map(|_| Slot::default()).collect();
        let mut callers = Vec::new();
        for slot in slots.iter().cycle().take(concurrency) {
            let client = self.echo(slot).await?;
            callers.push(GrpcCaller { target: self.clone(), slot: slot.clone(), client });
        }
        Ok(callers)
    }

    async fn echo(&self, slot: &Slot<tonic::body::Body>) -> Result<EchoClient<H2Channel>, Error> {
        let connection = slot.get(self).await?;
        Ok(EchoClient::with_origin(H2Channel { connection }, self.origin()?))
    }

    fn origin(&self) -> Result<Uri, Error> {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        Ok(Uri::from_parts(parts)?)
    }

    async fn connect(&self) -> Result<Box<dyn Io>, Error> {
        let authority = self.uri.authority().ok_or("--url needs a host")?;
        let default = if self.tls.is_some() { 443 } else { 80 };
        let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(default))).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(authority.host().to_owned())?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
    }

    async fn http1(&self) -> Result<http1::SendRequest<Empty<Bytes>>, Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn http2<B>(&self) -> Result<http2::SendRequest<B>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Error>,
    {
        let io = TokioIo::new(self.connect().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, http2: bool) -> Result<Request<Empty<Bytes>>, Error> {
        let mut request = Request::new(Empty::new());
        *request.headers_mut() = self.headers.clone();
        if http2 {
            *request.uri_mut() = self.uri.clone();
        } else {
            let authority = self.uri.authority().ok_or("--url needs a host")?;
            request.headers_mut().insert(header::HOST, authority.as_str().parse()?);
            *request.uri_mut() = self.uri.path_and_query().ok_or("--url needs a path")?.as_str().parse()?;
        }
        Ok(request)
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One HTTP/2 connection that several callers share; opened again by the first who finds it closed.
#[derive(Debug)]
struct Slot<B>(Arc<Mutex<Option<http2::SendRequest<B>>>>);

impl<B> Default for Slot<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B> Clone for Slot<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Slot<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Error>,
{
    async fn get(&self, target: &PlainTarget) -> Result<http2::SendRequest<B>, Error> {
        // Held across the handshake on purpose: one caller opens, the others wait for it.
        let mut slot = self.0.lock().await;
        match &*slot {
            Some(open) if !open.is_closed() => Ok(open.clone()),
            _ => Ok(slot.insert(target.http2().await?).clone()),
        }
    }
}

enum Http {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

/// Sends `GET` and reads the whole answer.
#[allow(missing_debug_implementations)] // nothing prints a load generator
pub struct HttpCaller {
    target: Arc<PlainTarget>,
    slot: Slot<Empty<Bytes>>,
    connection: Http,
}

impl Caller for HttpCaller {
    async fn call(&mut self) -> Result<(), Error> {
        let response = match &mut self.connection {
            Http::H1(sender) => {
                if sender.ready().await.is_err() {
                    *sender = self.target.http1().await?;
                }
                sender.send_request(self.target.request(false)?).await?
            }
            Http::H2(sender) => {
                if sender.is_closed() {
                    *sender = self.slot.get(&self.target).await?;
                }
                sender.send_request(self.target.request(true)?).await?
            }
        };
        hello(response).await
    }
}

/// Sends 1 KiB to the echo.
#[allow(missing_debug_implementations)] // nothing prints a load generator
pub struct GrpcCaller {
    target: Arc<PlainTarget>,
    slot: Slot<tonic::body::Body>,
    client: EchoClient<H2Channel>,
}

impl Caller for GrpcCaller {
    async fn call(&mut self) -> Result<(), Error> {
        match self.client.unary(app::echo_request(&self.target.headers)).await {
            Ok(reply) => echoed(&reply),
            Err(status) => {
                self.client = self.target.echo(&self.slot).await?;
                Err(status.into())
            }
        }
    }
}

/// One HTTP/2 connection as generated clients take it.
#[derive(Debug, Clone)]
struct H2Channel {
    connection: http2::SendRequest<tonic::body::Body>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower::Service<Request<tonic::body::Body>> for H2Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.connection.send_request(request))
    }
}
