//! The TLS of mode `mtls`: what a service without the mesh would write. No resumption, as in the mesh.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::{Error, Pem};

pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Identity {
    pub(crate) fn read(pem: &Pem) -> Result<Self, Error> {
        let (Some(cert), Some(key), Some(ca)) = (&pem.cert, &pem.key, &pem.ca) else {
            return Err("mode mtls needs --cert, --key and --ca".into());
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(ca)? {
            roots.add(authority).map_err(|e| format!("{}: {e}", ca.display()))?;
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
        Ok(Self { chain: certificates(cert)?, key, roots: Arc::new(roots) })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|e| format!("{}: {e}", path.display()).into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Demands a client certificate of the given authorities.
pub fn server(pem: &Pem) -> Result<Arc<ServerConfig>, Error> {
    let identity = Identity::read(pem)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Presents its certificate and holds the server's against the authorities and the host name.
pub fn client(pem: &Pem, alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let identity = Identity::read(pem)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(identity.roots)
        .with_client_auth_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
