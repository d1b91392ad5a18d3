//! The accepting side.

use std::sync::Arc;

use mesh_core::Mesh;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::identity::{Live, Resolver};
use super::refusal::HandshakeRefused;
use super::verifier::{Accepts, Verifier};
use super::{H2, HTTP11, VerifiedPeer};

/// Accepts TLS with the mesh's current identity, from clients that its bundles vouch for.
#[derive(Debug, Clone)]
pub struct ServerTls {
    live: Arc<Live>,
    resolver: Arc<Resolver>,
}

impl ServerTls {
    /// Over the live identity of `mesh`.
    pub fn new(mesh: &Mesh) -> Self {
        Self::over(Live::of(mesh))
    }

    pub(super) fn over(live: Arc<Live>) -> Self {
        Self { resolver: Arc::new(Resolver(Arc::clone(&live))), live }
    }

    /// Finishes a handshake whose ClientHello has been read. The caller bounds its time.
    ///
    /// Fails closed: without a certificate that proves an SVID there is no stream.
    pub async fn handshake<Io>(
        &self,
        hello: StartHandshake<Io>,
    ) -> Result<(TlsStream<Io>, VerifiedPeer), HandshakeRefused>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let verifier = Verifier::new(Arc::clone(&self.live), Accepts::AnyClient);
        let config = self.config(&verifier).map_err(HandshakeRefused::tls)?;
        let handshake = hello.into_stream(Arc::new(config)).await;
        verifier.conclude(handshake, |stream| stream.get_ref().1)
    }

    fn config(&self, verifier: &Arc<Verifier>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.live.provider), self.live.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![H2.to_vec(), HTTP11.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}
