//! The accepting side.

use std::sync::Arc;

use mesh_core::Mesh;
use mesh_core::config::TlsConfig;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::identity::{Live, Resolver};
use super::refusal::HandshakeRefused;
use super::resumption::{Generation, PerGeneration};
use super::verifier::{Accepts, Verifier};
use super::{H2, HTTP11, VerifiedPeer, versions};

/// Sessions that one listener keeps, about 1.5 KiB each; the oldest give way.
const MAX_SESSIONS: usize = 1024;
/// Sessions that a client is given with each full handshake; each is good for one more connection.
const TICKETS: usize = 2;

type Setup = (Arc<Verifier>, Arc<ServerConfig>);

/// Accepts TLS with the mesh's current identity, from clients that its bundles vouch for.
///
/// Make one for each listener: clones share the sessions that may be resumed.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub(super) live: Arc<Live>,
    resolver: Arc<Resolver>,
    pub(super) kept: Arc<PerGeneration<Setup, (TlsConfig, Generation)>>,
}

impl ServerTls {
    /// Over the live identity of `mesh`.
    pub fn new(mesh: &Mesh) -> Self {
        Self::over(Live::of(mesh))
    }

    pub(super) fn over(live: Arc<Live>) -> Self {
        let resolver = Arc::new(Resolver(Arc::clone(&live)));
        Self { resolver, live, kept: Arc::default() }
    }

    /// Finishes a handshake whose ClientHello has been read. The caller bounds its time.
    ///
    /// Fails closed: without a certificate that proves an SVID there is no stream. Dropping the future drops
    /// the byte stream.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefused`]: nobody vouches for the client, our own SVID has ended, or TLS or the stream failed.
    pub async fn handshake<Io>(
        &self,
        hello: StartHandshake<Io>,
        options: TlsConfig,
    ) -> Result<(TlsStream<Io>, VerifiedPeer), HandshakeRefused>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, peer) = self.finish(Box::new(hello), options).await?;
        Ok((*stream, peer))
    }

    /// The same, as a small future: what TLS keeps is behind pointers.
    pub(crate) async fn finish<Io>(
        &self,
        hello: Box<StartHandshake<Io>>,
        options: TlsConfig,
    ) -> Result<(Box<TlsStream<Io>>, VerifiedPeer), HandshakeRefused>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let (verifier, config) = self.setup(options).map_err(HandshakeRefused::tls)?;
        let handshake = async move {
            let accept = {
                let hello = hello; // its box ends here
                Box::pin(hello.into_stream(config))
            };
            accept.await.map(Box::new)
        };
        let (stream, mut peer) = verifier.follow(handshake, |stream| stream.get_ref().1).await?;
        peer.server_name = stream.get_ref().1.server_name().map(Box::from);
        Ok((stream, peer))
    }

    /// One for all handshakes: what rustls calls a configuration comes with a cache of 256 sessions, wanted or not.
    pub(super) fn setup(&self, options: TlsConfig) -> Result<Setup, rustls::Error> {
        // Its sessions are all that depends on it: identity and trust are looked up by each handshake.
        let generation = if options.resumption { self.live.generation() } else { Generation::default() };
        self.kept.get((options, generation), || {
            let verifier = Verifier::of_each(Arc::clone(&self.live), Accepts::AnyClient, options.resumption);
            let config = self.config(&verifier, options)?;
            Ok((verifier, Arc::new(config)))
        })
    }

    fn config(&self, verifier: &Arc<Verifier>, options: TlsConfig) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.live.provider), self.live.time.clone())
            .with_protocol_versions(versions(options))?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = vec![H2.to_vec(), HTTP11.to_vec()];
        config.require_ems = true; // else TLS 1.2 sessions can be joined (RFC 7627 1)
        if options.resumption {
            config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
            config.send_tls13_tickets = TICKETS;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        #[cfg(feature = "keylog")]
        {
            config.key_log = Arc::clone(&self.live.key_log);
        }
        Ok(config)
    }
}
