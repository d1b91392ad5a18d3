//! Sockets of those who connect: from an address of their own, with a certificate or without.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;

/// Who connects where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The victim.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Where NAME.pem and NAME.key are.
    #[arg(long)]
    pub(crate) pki: PathBuf,
    /// The address to connect from.
    #[arg(long)]
    pub(crate) source: IpAddr,
}

impl Target {
    /// A TCP connection.
    pub(crate) async fn tcp(&self) -> std::io::Result<TcpStream> {
        let socket = if self.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.source, 0))?;
        let stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection. In TLS 1.3 the server may still refuse the certificate: then it closes.
    pub(crate) async fn tls(&self, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(config));
        connector.connect(self.name(), self.tcp().await?).await
    }

    /// What the handshake asks for.
    pub(crate) fn name(&self) -> ServerName<'static> {
        ServerName::from(self.target.ip())
    }

    /// TLS with the certificate of `identity`.
    pub(crate) fn config(&self, identity: &str, alpn: &str) -> Result<Arc<ClientConfig>, Error> {
        client(&self.pki, identity, alpn)
    }
}

fn client(pki: &Path, identity: &str, alpn: &str) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let path = |extension: &str| pki.join(format!("{identity}.{extension}"));
    let chain = CertificateDer::pem_file_iter(path("pem")).and_then(Iterator::collect::<Result<Vec<_>, _>>)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(path("key"))?)?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes every server: what is measured is the server.
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
