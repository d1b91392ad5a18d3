//! Connections of hyper over tokio-rustls, nothing between.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{AT_ONCE, address};
use crate::client::hello;
use crate::{Error, spiffe};

/// Holds connections; each has answered as many requests.
#[derive(Debug)]
pub struct Bare {
    tls: Arc<ClientConfig>,
    headers: HeaderMap,
    held: Vec<SendRequest<Empty<Bytes>>>,
}

impl Bare {
    /// Reads what `cargo xtask bench-setup` wrote to `dir`. `headers` go on every request.
    pub fn new(dir: &Path, headers: HeaderMap) -> Result<Self, Error> {
        Ok(Self { tls: spiffe::client(&spiffe::pem(dir, "client"))?, headers, held: Vec::new() })
    }

    /// Opens connections to `count` addresses more and sends `requests` over each.
    pub async fn open(&mut self, port: u16, count: usize, requests: usize) -> Result<(), Error> {
        let first = self.held.len();
        let mut opening = JoinSet::new();
        for n in first..first + count {
            if opening.len() >= AT_ONCE
                && let Some(opened) = opening.join_next().await
            {
                self.held.push(opened??);
            }
            opening.spawn(connect(Arc::clone(&self.tls), address(port, n), self.headers.clone(), requests));
        }
        while let Some(opened) = opening.join_next().await {
            self.held.push(opened??);
        }
        Ok(())
    }

    /// Connections that are still open.
    pub fn connections(&self) -> usize {
        self.held.iter().filter(|send| !send.is_closed()).count()
    }
}

async fn connect(
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    headers: HeaderMap,
    requests: usize,
) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(tls).connect(ServerName::from(address.ip()), stream).await?;
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for n in 0..requests {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = "https://bench/hello".parse()?;
        *request.headers_mut() = headers.clone();
        // As a traced service does it; no two are alike, and HPACK remembers each.
        let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{n:016x}-00");
        request.headers_mut().insert("traceparent", trace.parse()?);
        hello(send.send_request(request).await?).await?;
    }
    Ok(send)
}
