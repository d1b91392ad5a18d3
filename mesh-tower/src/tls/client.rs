//! The connecting side.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use mesh_core::Mesh;
use mesh_core::config::{HttpVersion, TlsConfig};
use mesh_core::identity::SpiffeId;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::identity::{Live, Resolver};
use super::refusal::HandshakeRefused;
use super::resumption::PerGeneration;
use super::verifier::{Accepts, Verifier};
use super::{H2, HTTP11, VerifiedPeer, versions};

/// Servers whose sessions one cluster keeps; the oldest give way. rustls keeps at most 8 sessions of each.
const MAX_SERVERS: usize = 256;

/// Connects with the mesh's current identity, to servers that have an expected SPIFFE ID.
///
/// Make one for each cluster: clones share the sessions that may be resumed.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(super) live: Arc<Live>,
    resolver: Arc<Resolver>,
    expected: Arc<[SpiffeId]>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
    resumes: bool,
    /// All but the verifier of one handshake. Building it anew makes rustls allocate a session cache each time.
    template: Arc<OnceLock<ClientConfig>>,
    pub(super) resumable: Arc<PerGeneration<Setup>>,
}

/// What a handshake is made with.
type Setup = (Arc<Verifier>, Arc<ClientConfig>);

impl ClientTls {
    /// Expects one of `expected`; an empty list accepts nobody. TLS 1.3 without resumption.
    pub fn new(mesh: &Mesh, expected: Vec<SpiffeId>, http: HttpVersion) -> Self {
        Self::over(Live::of(mesh), expected, http)
    }

    pub(super) fn over(live: Arc<Live>, expected: Vec<SpiffeId>, http: HttpVersion) -> Self {
        let alpn = match http {
            HttpVersion::Auto => vec![H2.to_vec(), HTTP11.to_vec()],
            HttpVersion::Http1 => vec![HTTP11.to_vec()],
            HttpVersion::Http2 => vec![H2.to_vec()],
        };
        let resolver = Arc::new(Resolver(Arc::clone(&live)));
        let (versions, expected) = (versions(TlsConfig::default()), expected.into());
        let (template, resumable) = (Arc::default(), Arc::default());
        Self { live, resolver, expected, alpn, versions, resumes: false, template, resumable }
    }

    /// Allows what `options` allow.
    #[must_use]
    pub fn options(self, options: TlsConfig) -> Self {
        Self { versions: versions(options), resumes: options.resumption, template: Arc::default(), ..self }
    }

    /// Offers these versions alone.
    #[cfg(test)]
    pub(super) fn only(&self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        Self { versions, template: Arc::default(), ..self.clone() }
    }

    /// Handshakes over `io`.
    ///
    /// The caller bounds its time. `address` is never checked: the SPIFFE ID is the name.
    ///
    /// Success means that the server is who it should be, not yet that it accepted us: its refusal comes with the first
    /// read. Fails closed. Dropping the future drops `io`.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefused`]: the server is not one of those expected, our own SVID has ended, or TLS or `io` failed.
    pub async fn handshake<Io>(
        &self,
        io: Io,
        address: SocketAddr,
    ) -> Result<(TlsStream<Io>, VerifiedPeer), HandshakeRefused>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        // Before a byte is sent: a client without a certificate learns only from its first read that it needed one.
        self.live.presentable()?;
        let (verifier, config) = self.setup().map_err(HandshakeRefused::tls)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        // Boxed, for whoever holds this future: it is small but for this.
        let handshake = Box::pin(connector.connect(ServerName::from(address.ip()), io)).await;
        verifier.conclude(handshake, |stream| stream.get_ref().1)
    }

    fn setup(&self) -> Result<Setup, rustls::Error> {
        let (live, accepts) = (Arc::clone(&self.live), Accepts::Servers(Arc::clone(&self.expected)));
        if !self.resumes {
            let verifier = Verifier::of_one(Arc::clone(&live), accepts);
            let mut config = match self.template.get() {
                Some(template) => template.clone(),
                None => {
                    let unasked = Verifier::of_one(live, Accepts::Servers(Arc::default()));
                    let template = self.config(&unasked, Resumption::disabled())?;
                    self.template.get_or_init(|| template).clone()
                }
            };
            config.dangerous().set_certificate_verifier(verifier.clone());
            return Ok((verifier, Arc::new(config)));
        }
        // rustls resumes only what was made with the very same verifier and resolver.
        self.resumable.get(self.live.generation(), || {
            let verifier = Verifier::of_many(live, accepts);
            let sessions = Resumption::in_memory_sessions(MAX_SERVERS);
            let config = self.config(&verifier, sessions.tls12_resumption(Tls12Resumption::SessionIdOnly))?;
            Ok((verifier, Arc::new(config)))
        })
    }

    fn config(&self, verifier: &Arc<Verifier>, resumption: Resumption) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.live.provider), self.live.time.clone())
            .with_protocol_versions(self.versions)?
            .dangerous() // rustls' word for any verifier that is not its own
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(self.resolver.clone());
        config.alpn_protocols = self.alpn.clone();
        config.require_ems = true; // else TLS 1.2 sessions can be joined (RFC 7627 1)
        config.resumption = resumption;
        config.enable_sni = false;
        #[cfg(feature = "keylog")]
        {
            config.key_log = Arc::clone(&self.live.key_log);
        }
        Ok(config)
    }
}
