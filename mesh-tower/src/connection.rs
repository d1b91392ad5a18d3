//! What is known of one accepted connection, decided once and shared by all of its requests.
//!
//! A header can be forged and an extension can be inserted by anyone, so identity must come from a value that only
//! the accept loop can make. [`Connection`] is that value: without it in a request's extensions every layer of the
//! mesh denies with reason `wiring`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use mesh_core::audit::AuditOrigin;
use mesh_core::config::Config;
use mesh_core::identity::{Peer, SpiffeId};
use mesh_core::policy::{CallerPolicy, PeerView, PolicyEngine};

use crate::places::Places;

/// One accepted connection: who is at the other end, and which protocol it speaks.
///
/// The accept loop puts an `Arc<Connection>` into the extensions of each of its requests. Nothing else can make one,
/// so finding it proves that the mesh's own handshake judged the peer.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    chain: Vec<Arc<[u8]>>,
    local_addr: SocketAddr,
    listener: Arc<str>,
    http: http::Version,
    /// The requests of this peer over all of its connections to this listener.
    requests: Arc<Places>,
    audit: Audited,
    /// What of the policies concerns the peer, as of the last request.
    policy: ArcSwapOption<CallerPolicy>,
}

/// What every audit record of a connection says, made once.
#[derive(Debug, Default)]
pub(crate) struct Audited {
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) serial: Option<Arc<str>>,
    pub(crate) origin: Arc<AuditOrigin>,
}

/// Marks what stands in the place of a request that had no single reading on the wire, or was beyond what a head may be (then
/// its [`Fate`] says that it is unfit): why, by a stable code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// What is wrong with a request however it is read: the transport notes it, the stack refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    BodyTooLarge,
    /// Not compressed as it says.
    BodyEncoding,
    BodyTimeout,
    /// JSON that is nested too deeply.
    JsonDepth,
    TooManyHeaders,
    HeadersTooLarge,
    /// A field behind the body that only a head may have.
    Trailer,
}

/// What became of the transport's part in one request.
#[derive(Debug, Default)]
pub(crate) struct Fate(OnceLock<Unfit>);

impl Fate {
    pub(crate) fn get(&self) -> Option<Unfit> {
        self.0.get().copied()
    }

    /// The first finding stays.
    pub(crate) fn set(&self, unfit: Unfit) {
        let _ = self.0.set(unfit);
    }
}

impl Connection {
    pub(crate) fn new(
        peer: Peer,
        chain: Vec<Arc<[u8]>>,
        local_addr: SocketAddr,
        listener: Arc<str>,
        http: http::Version,
        requests: Arc<Places>,
    ) -> Self {
        let svid = peer.svid.as_deref();
        let audit = Audited {
            peer: svid.map(|svid| svid.id.as_str().into()),
            serial: svid.map(|svid| svid.serial.as_str().into()),
            origin: Arc::default(),
        };
        Self { peer, chain, local_addr, listener, http, requests, audit, policy: ArcSwapOption::empty() }
    }

    /// With what the handshake said beside the identity.
    pub(crate) fn with_origin(mut self, origin: AuditOrigin) -> Self {
        self.audit.origin = Arc::new(origin);
        self
    }

    /// The server name that the TLS client asked for, if any.
    ///
    /// Clients of the mesh send none.
    pub fn sni(&self) -> Option<&str> {
        self.audit.origin.sni.as_deref()
    }

    pub(crate) fn audit(&self) -> &Audited {
        &self.audit
    }

    /// The other end, as its handshake proved it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The peer's certificates as DER, leaf first, to judge them again when trust changes.
    ///
    /// Empty for a plaintext peer.
    pub fn chain(&self) -> &[Arc<[u8]>] {
        &self.chain
    }

    /// Where the connection was accepted.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The name of its listener in `listeners:`.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// HTTP/1.1 or HTTP/2, as ALPN chose.
    pub fn http(&self) -> http::Version {
        self.http
    }

    pub(crate) fn requests_of_peer(&self) -> &Arc<Places> {
        &self.requests
    }

    /// The peer as policy sees it before any request.
    pub(crate) fn peer_view(&self) -> PeerView<'_> {
        let (peer, local) = (self.peer(), self.local_addr);
        let (id, ip) = (peer.svid.as_deref().map(|svid| &svid.id), peer.address.ip().to_canonical());
        PeerView::new(id, Some(ip), local.port()).to(local.ip().to_canonical(), self.sni())
    }

    /// What of `engine` concerns the peer: told apart at the first request under each engine.
    pub(crate) fn policy(&self, engine: &Arc<PolicyEngine>) -> Arc<CallerPolicy> {
        if let Some(known) = self.policy.load_full().filter(|known| known.is_of(engine)) {
            return known;
        }
        let known = Arc::new(engine.for_peer(&self.peer_view()));
        self.policy.store(Some(Arc::clone(&known)));
        known
    }

    /// The peer, if its listener pins it as a gateway that speaks for others.
    pub(crate) fn gateway(&self, config: &Config) -> Option<&SpiffeId> {
        let peer = &self.peer.svid.as_deref()?.id;
        let listener = config.listeners.get(self.listener())?;
        listener.forwarded_identity.as_ref()?.gateways.contains(peer).then_some(peer)
    }

    /// A connection that no socket backs, for tests of single layers.
    #[cfg(all(test, feature = "dev-ca"))]
    pub(crate) fn for_test(peer: Peer) -> Arc<Self> {
        let local_addr = SocketAddr::from(([127, 0, 0, 1], 8443));
        let (listener, requests) = (Arc::from("default"), Arc::default());
        Arc::new(Self::new(peer, Vec::new(), local_addr, listener, http::Version::HTTP_2, requests))
    }
}
