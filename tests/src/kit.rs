//! Peers that are no mesh: they speak TLS, HTTP and HTTP/2 as badly as a test wants.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::identity::dev_ca::SvidPem;
use mesh_tower::test_util::RunningTestMesh;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long anything may take before a test calls it broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Asks `check` again and again until it answers.
pub(crate) async fn until<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, check).await
}

/// The same for what may take longer than [`PATIENCE`].
pub(crate) async fn until_within<T>(patience: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What `future` gives, which must not take longer than [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// A number that whoever runs the tests may choose; it is printed.
pub(crate) fn from_env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    let value = std::env::var(name).ok().map_or_else(default, |value| value.parse().unwrap());
    println!("{name}={value}");
    value
}

/// How often a handler was reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reached(Arc<AtomicUsize>);

impl Reached {
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A TLS connection to `service` with a certificate of `id`, which asks for `alpn`.
pub(crate) async fn connect_as(mesh: &RunningTestMesh, id: &str, service: &str, alpn: &str) -> TlsStream<TcpStream> {
    let svid = mesh.svid_pem(id).unwrap();
    tls(mesh.address(service).unwrap(), Some(&svid), alpn).await.unwrap()
}

/// An HTTP/2 connection to `service` with a certificate of `id`.
pub(crate) async fn h2_as(mesh: &RunningTestMesh, id: &str, service: &str) -> http2::SendRequest<Body> {
    let io = TokioIo::new(connect_as(mesh, id, service, "h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A TLS connection that takes any server for good, with a certificate or none.
pub(crate) async fn tls(
    address: SocketAddr,
    certificate: Option<&SvidPem>,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    handshake(address, presenting(certificate), alpn).await
}

/// The same over a connection that is there, to a server of this `name`.
pub(crate) async fn tls_over(
    stream: TcpStream,
    certificate: Option<&SvidPem>,
    name: ServerName<'static>,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    over(stream, presenting(certificate), name, alpn).await
}

fn presenting(certificate: Option<&SvidPem>) -> ClientConfig {
    let builder = gullible();
    match certificate {
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}

/// The same, with whatever `certificate` presents.
pub(crate) async fn tls_with(
    address: SocketAddr,
    certificate: impl ResolvesClientCert + 'static,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    handshake(address, gullible().with_client_cert_resolver(Arc::new(certificate)), alpn).await
}

fn gullible() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
}

async fn handshake(address: SocketAddr, config: ClientConfig, alpn: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    over(stream, config, ServerName::from(address.ip()), alpn).await
}

async fn over(
    stream: TcpStream,
    mut config: ClientConfig,
    name: ServerName<'static>,
    alpn: &str,
) -> io::Result<TlsStream<TcpStream>> {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Everything that still comes, until the peer closes or goes silent after its answer.
pub(crate) async fn read_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<String> {
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match soon("an answer", stream.read(&mut buffer)).await {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A gRPC request without message, and how it was answered: HTTP status, gRPC status.
pub(crate) async fn grpc_call(
    sender: &mut http2::SendRequest<Body>,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, Option<String>) {
    let mut request = Request::post(format!("https://orders{path}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = soon("an answer", sender.send_request(request.body(Body::empty()).unwrap())).await.unwrap();
    let status = response.status().as_u16();
    (status, grpc_status(response).await)
}

/// The gRPC status of a response: in its headers if there is no message, else in its trailers.
async fn grpc_status(response: Response<hyper::body::Incoming>) -> Option<String> {
    let text = |headers: &HeaderMap| headers.get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
    match text(response.headers()) {
        Some(status) => Some(status),
        None => response.into_body().collect().await.unwrap().trailers().and_then(text),
    }
}

/// Believes every server: an attacker does not care.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
