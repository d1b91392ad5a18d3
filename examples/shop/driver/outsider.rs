//! Somebody with a TLS library and no mesh: believes every server, and shows any certificate or none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::clock::SystemClock;
use mesh_core::identity::dev_ca::{DevCa, SvidPem};
use mesh_core::identity::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;

const PATIENCE: Duration = Duration::from_secs(10);

/// A certificate that says `id`, signed by an authority of its own that calls itself like the shop's.
pub(crate) fn forged(id: &str) -> Result<SvidPem, Error> {
    let authority = DevCa::in_memory(&TrustDomain::parse("shop.example")?, Arc::new(SystemClock))?;
    Ok(authority.issue_pem(&SpiffeId::parse(id)?, Duration::from_secs(600))?)
}

/// Tries to get an answer: the answer, or why the connection ended.
pub(crate) async fn knock(address: SocketAddr, certificate: Option<&SvidPem>) -> Result<Result<String, String>, Error> {
    let connector = TlsConnector::from(Arc::new(config(certificate)?));
    let talk = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = connector.connect(ServerName::from(address.ip()), stream).await?;
        stream.write_all(b"POST /orders HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await?;
        // With TLS 1.3 a client hears only here what the server thinks of its certificate.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await?;
    Ok(answer.map_err(|error| error.to_string()))
}

fn config(certificate: Option<&SvidPem>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let Some(pem) = certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).collect::<Result<_, _>>()?;
    Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem.key.as_bytes())?)?)
}

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
