//! A caller before its first request.

use std::net::IpAddr;

use crate::identity::SpiffeId;

/// A caller as its connection shows it, before any request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PeerView<'a> {
    /// Its SPIFFE ID, proved by its certificate; `None` for an anonymous peer.
    pub peer: Option<&'a SpiffeId>,
    /// Where it connects from.
    pub source_ip: Option<IpAddr>,
    /// The local address that it connected to.
    pub destination_ip: Option<IpAddr>,
    /// The local port that it connected to.
    pub port: u16,
    /// The server name it asked for in its handshake.
    pub sni: Option<&'a str>,
}

impl<'a> PeerView<'a> {
    /// A caller of `port`; `peer` is `None` for an anonymous one.
    pub const fn new(peer: Option<&'a SpiffeId>, source_ip: Option<IpAddr>, port: u16) -> Self {
        Self { peer, source_ip, destination_ip: None, port, sni: None }
    }

    /// The same caller of this local address, by this server name.
    pub const fn to(self, destination_ip: IpAddr, sni: Option<&'a str>) -> Self {
        Self { destination_ip: Some(destination_ip), sni, ..self }
    }
}

impl<'a> PeerView<'a> {
    /// As policies write principals: without `spiffe://`.
    pub(super) fn principal(&self) -> Option<&'a str> {
        self.peer.and_then(|id| id.as_str().strip_prefix("spiffe://"))
    }

    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.peer.and_then(|id| id.workload()).map(|workload| workload.namespace)
    }
}
