//! The server of modes `bare` and `mtls`: hyper connections over axum and tonic, nothing between.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{Error, app};

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Error {
    let app = App { http: app::http(), grpc: app::grpc().into_axum_router() };
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error.into(),
        };
        let (app, acceptor) = (app.clone(), acceptor.clone());
        tokio::spawn(async move {
            // A connection that ends badly is the client's figure, not the server's.
            let _ = connection(stream, acceptor, app).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, app: App) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        let http2 = speaks_http2(&stream).await?;
        return exchange(stream, http2, app).await;
    };
    let stream = acceptor.accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    exchange(stream, http2, app).await
}

/// Without ALPN the first bytes tell: the HTTP/2 preface begins with `PRI`. (RFC 9113 3.4)
async fn speaks_http2(stream: &TcpStream) -> Result<bool, Error> {
    let mut start = [0; 3];
    let read = stream.peek(&mut start).await?;
    Ok(read == start.len() && &start == b"PRI")
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    app: App,
) -> Result<(), Error> {
    let service = hyper::service::service_fn(move |request| app.clone().call(request));
    let io = TokioIo::new(io);
    if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await?;
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct App {
    http: axum::Router,
    grpc: axum::Router,
}

impl App {
    async fn call(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let router = if grpc { self.grpc } else { self.http };
        router.oneshot(request.map(Body::new)).await
    }
}
