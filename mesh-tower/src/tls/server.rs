//! The accepting side.

use std::io;
use std::sync::Arc;

use mesh_core::Mesh;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::identity::{Live, Resolver};
use super::refusal::{PeerRefused, handshake_reason};
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
        match (handshake, verifier.verdict()) {
            (_, Some(Err(refused))) => Err(HandshakeRefused::Peer(refused.clone())),
            (Err(error), _) => Err(HandshakeRefused::Io(error)),
            (Ok(stream), Some(Ok(svid))) => {
                let (_, tls) = stream.get_ref();
                let peer = VerifiedPeer::new(Arc::clone(svid), tls);
                Ok((stream, peer))
            }
            (Ok(_), None) => Err(HandshakeRefused::unjudged()),
        }
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

/// Why an accepted connection got no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeRefused {
    /// We refused the client.
    #[error(transparent)]
    Peer(#[from] PeerRefused),
    /// TLS or the transport failed.
    #[error("TLS handshake: {0}")]
    Io(#[from] io::Error),
}

impl HandshakeRefused {
    pub(super) fn tls(error: rustls::Error) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The verifier is mandatory and resumption is off; a handshake that passed it by all the same is refused.
    pub(super) fn unjudged() -> Self {
        Self::Peer(mesh_core::identity::SvidError::NoCertificate.into())
    }

    /// A stable code for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Peer(refused) => refused.reason(),
            Self::Io(error) => handshake_reason(error),
        }
    }
}
