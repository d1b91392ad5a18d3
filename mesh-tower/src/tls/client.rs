//! The connecting side.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::Mesh;
use mesh_core::config::HttpVersion;
use mesh_core::identity::SpiffeId;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::identity::{Live, Resolver};
use super::refusal::HandshakeRefused;
use super::verifier::{Accepts, Verifier};
use super::{H2, HTTP11, VerifiedPeer};

/// Connects with the mesh's current identity, to servers that have an expected SPIFFE ID.
#[derive(Debug, Clone)]
pub struct ClientTls {
    live: Arc<Live>,
    resolver: Arc<Resolver>,
    expected: Arc<[SpiffeId]>,
    alpn: Vec<Vec<u8>>,
}

impl ClientTls {
    /// Expects one of `expected`; an empty list accepts nobody.
    pub fn new(mesh: &Mesh, expected: Vec<SpiffeId>, http: HttpVersion) -> Self {
        Self::over(Live::of(mesh), expected, http)
    }

    pub(super) fn over(live: Arc<Live>, expected: Vec<SpiffeId>, http: HttpVersion) -> Self {
        let alpn = match http {
            HttpVersion::Auto => vec![H2.to_vec(), HTTP11.to_vec()],
            HttpVersion::Http1 => vec![HTTP11.to_vec()],
            HttpVersion::Http2 => vec![H2.to_vec()],
        };
        Self { resolver: Arc::new(Resolver(Arc::clone(&live))), live, expected: expected.into(), alpn }
    }

    /// Handshakes over `io`. The caller bounds its time. `address` is never checked: the SPIFFE ID is the name.
    ///
    /// Success means that the server is who it should be, not yet that it accepted us: its
    /// refusal comes with the first read.
    pub async fn handshake<Io>(
        &self,
        io: Io,
        address: SocketAddr,
    ) -> Result<(TlsStream<Io>, VerifiedPeer), HandshakeRefused>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let verifier = Verifier::new(Arc::clone(&self.live), Accepts::Servers(Arc::clone(&self.expected)));
        let config = self.config(&verifier).map_err(HandshakeRefused::tls)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let handshake = connector.connect(ServerName::from(address.ip()), io).await;
        verifier.conclude(handshake, |stream| stream.get_ref().1)
    }

    fn config(&self, verifier: &Arc<Verifier>) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.live.provider), self.live.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // rustls' word for any verifier that is not its own
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(self.resolver.clone());
        config.alpn_protocols = self.alpn.clone();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}
