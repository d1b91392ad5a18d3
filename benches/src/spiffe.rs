//! The TLS that a careful service without the mesh would write: rustls' own path check, then the name in the leaf.
//!
//! TLS 1.3, mutual, no resumption, rustls' default algorithms: what the mesh negotiates too.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::tls::Identity;
use crate::{Error, Pem};

/// The names of the bench's two sides, as `cargo xtask bench-setup` issues them.
pub const SERVER: &str = "spiffe://bench.example/ns/bench/sa/server";
/// See [`SERVER`].
pub const CLIENT: &str = "spiffe://bench.example/ns/bench/sa/client";

/// The files of `name` in a directory that `cargo xtask bench-setup` wrote.
pub fn pem(dir: &Path, name: &str) -> Pem {
    let file = |name: String| Some(dir.join(name));
    Pem { cert: file(format!("{name}.pem")), key: file(format!("{name}.key")), ca: file("ca.pem".to_owned()) }
}

/// Demands a client certificate of the given authorities. Who it is, [`peer`] says afterwards.
pub fn server(pem: &Pem) -> Result<Arc<ServerConfig>, Error> {
    let Identity { chain, key, roots } = Identity::read(pem)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Presents its certificate, and accepts a server of the given authorities that is [`SERVER`].
pub fn client(pem: &Pem) -> Result<Arc<ClientConfig>, Error> {
    let Identity { chain, key, roots } = Identity::read(pem)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Named { roots, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // rustls' word for any verifier that is not its own
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The one URI name in the leaf of a finished handshake.
pub fn peer(tls: &CommonState) -> Option<String> {
    uri(tls.peer_certificates()?.first()?)
}

fn uri(leaf: &CertificateDer<'_>) -> Option<String> {
    let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
    let mut names = leaf.valid_uri_names();
    names.next().filter(|_| names.next().is_none()).map(str::to_owned)
}

/// rustls' own check of the path, and [`SERVER`] for a name.
#[derive(Debug)]
struct Named {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, rest, now, algorithms)?;
        if uri(leaf).as_deref() == Some(SERVER) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
