//! Documents over HTTP for the mesh itself: issuers' keys.
//!
//! ```no_run
//! # async fn start() -> Result<(), mesh_core::StartError> {
//! // tokens: [ { issuer: "https://idp.example", audiences: [orders], jwks: { discovery: true } } ]
//! let mesh = mesh_tower::Mesh::builder().config_file("mesh.yaml").with(mesh_tower::fetch::plugin()).start().await?;
//! # Ok(()) }
//! ```
//!
//! A configuration that names a URL must not become a way to ask what only this host can reach, such as a cloud's metadata
//! service. So: `https` with the server's name checked; no redirects, no proxies from the environment, no compression, no
//! cookies, no user information; every address of the host is judged by [`mesh_core::fetch::reach`], and the connection
//! goes to an address that was judged, so that a name that resolves differently a moment later changes nothing. Size and
//! time are bounded. Content is never logged. (CWE-918)

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_core::Plugin;
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::fetch::{Fetch, FetchError, FetchRequest, Fetched, Fetching, Reach, reach};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::tls::MeshTime;

/// What a response's head may be.
const MAX_HEAD: usize = 64 * 1024;
/// Addresses that are tried, one after the other.
const MAX_ADDRESSES: usize = 4;
/// What is read of a file with authorities.
const MAX_CA: u64 = 1 << 20;

/// Makes `jwks: { url: ... }` and `jwks: { discovery: true }` work.
///
/// Register it with `Mesh::builder().with(...)`.
pub fn plugin() -> Plugin {
    Plugin::new("mesh-tower").fetch(Arc::new(HttpFetch::new()))
}

/// The [`Fetch`] over TCP and rustls. A connection for each document; HTTP/1.1.
#[derive(Debug, Clone)]
pub struct HttpFetch {
    clock: Arc<dyn WallClock>,
    names: Arc<dyn Names>,
}

impl Default for HttpFetch {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpFetch {
    /// By the system's clock and resolver.
    pub fn new() -> Self {
        Self { clock: Arc::new(SystemClock), names: Arc::new(SystemNames) }
    }

    /// Judges servers' certificates by this clock.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn WallClock>) -> Self {
        Self { clock, ..self }
    }
}

impl Fetch for HttpFetch {
    fn get(&self, request: FetchRequest) -> Fetching {
        let fetch = self.clone();
        Box::pin(async move {
            let timeout = request.timeout;
            match tokio::time::timeout(timeout, fetch.fetch(&request)).await {
                Ok(result) => result,
                Err(_) => Err(refuse(format!("nothing came within {timeout:?}"))),
            }
        })
    }
}

fn refuse(why: impl Into<String>) -> FetchError {
    FetchError(why.into())
}

/// What a URL says, as far as it is accepted.
struct Target {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Host and port as they were written.
    authority: String,
    path: Uri,
}

impl Target {
    fn parse(url: &str) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| refuse("this is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refuse("expected `https://`")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("the URL has user information"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse("the URL has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|_| refuse("the URL has no path"))?;
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

impl HttpFetch {
    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, FetchError> {
        let target = Target::parse(&request.url)?;
        if !target.tls && !request.allow_http_to_loopback {
            return Err(refuse("expected `https://`"));
        }
        let addresses = self.addresses(&target, request).await?;
        let stream = connect(&addresses).await?;
        if !target.tls {
            return exchange(stream, &target, request.max_bytes).await;
        }
        let config = self.tls(request.ca.as_deref()).await?;
        let name = ServerName::try_from(target.host.clone()).map_err(|_| refuse("the host has no name for TLS"))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| refuse(format!("the TLS handshake failed: {error}")))?;
        exchange(stream, &target, request.max_bytes).await
    }

    /// Where the host is; no address at all if one of them is out of reach: which of them would be tried is chance.
    async fn addresses(&self, target: &Target, request: &FetchRequest) -> Result<Vec<SocketAddr>, FetchError> {
        let found = self.names.resolve(&target.host, target.port).await;
        let found = found.map_err(|error| refuse(format!("the host cannot be resolved: {error}")))?;
        for address in &found {
            let why = match (reach(address.ip()), target.tls) {
                (Reach::Loopback, false) => continue,
                (_, false) => "only loopback is asked without TLS",
                (Reach::Public, true) => continue,
                (Reach::Private | Reach::Loopback, true) if request.allow_private => continue,
                (Reach::Private | Reach::Loopback, true) => "it is private: `allow_private` is not set",
                (Reach::Never, true) => "it is link-local, a metadata service, or no host at all",
            };
            return Err(refuse(format!("the host has the address {}, which is not asked: {why}", address.ip())));
        }
        match found.is_empty() {
            true => Err(refuse("the host has no address")),
            false => Ok(found),
        }
    }

    async fn tls(&self, ca: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
        let mut roots = RootCertStore::empty();
        match ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            // Read each time: it may have been replaced.
            Some(file) => {
                let failed = |why: String| refuse(format!("the authorities in {}: {why}", file.display()));
                for authority in authorities(file.to_owned()).await.map_err(failed)? {
                    roots.add(authority).map_err(|error| failed(error.to_string()))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let time = Arc::new(MeshTime(Arc::clone(&self.clock)));
        let config = ClientConfig::builder_with_details(provider, time).with_protocol_versions(&[&TLS13, &TLS12]);
        let mut config =
            config.map_err(|error| refuse(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

async fn authorities(file: std::path::PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = move || -> Result<Vec<_>, String> {
        let size = std::fs::metadata(&file).map_err(|error| error.to_string())?.len();
        if size > MAX_CA {
            return Err(format!("larger than {MAX_CA} bytes"));
        }
        let found = CertificateDer::pem_file_iter(&file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|error| error.to_string())?;
        if found.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(found) }
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| "cannot be read".to_owned())?
}

/// To the first of the judged addresses that answers.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = None;
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(refuse(last.map_or_else(|| "the host has no address".to_owned(), |error| format!("no connection: {error}"))))
}

async fn exchange<Io>(io: Io, target: &Target, max: usize) -> Result<Fetched, FetchError>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| refuse(format!("the exchange failed: {error}"));
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await.map_err(failed)?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(target.path.clone())
        .header(HOST, &target.authority)
        .header(ACCEPT, "application/json")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| refuse("the URL cannot be asked"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let (head, body) = response.into_parts();
    // hyper's own bound is one on its buffer, which a head may overrun by a read.
    if head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > MAX_HEAD {
        return Err(refuse(format!("the head is longer than {MAX_HEAD} bytes")));
    }
    if head.status.is_redirection() {
        return Err(refuse(format!(
            "the server redirects (status {}): write the URL that it leads to",
            head.status.as_u16()
        )));
    }
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err(refuse("the content is encoded, which was not asked for"));
    }
    let too_long = || refuse(format!("the content is longer than {max} bytes"));
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let body = Limited::new(body, max).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() { too_long() } else { refuse("the content broke off") }
    })?;
    let cache_control: Vec<_> =
        head.headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).collect();
    Ok(Fetched::new(head.status.as_u16(), cache_control.join(","), body.to_bytes()))
}

type Resolving = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names: the system's resolver, or a test's.
trait Names: fmt::Debug + Send + Sync + 'static {
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

#[derive(Debug)]
struct SystemNames;

impl Names for SystemNames {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

#[cfg(test)]
mod tests;
