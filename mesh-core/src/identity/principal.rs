//! The other end of a connection, and the caller it turned out to be.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{SpiffeId, VerifiedSvid};
use crate::token::VerifiedToken;

/// The other end of a connection, maybe anonymous. Decided once per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// What its certificate proved; `None` for a plaintext peer.
    pub svid: Option<Arc<VerifiedSvid>>,
}

/// An authenticated caller: by certificate, by token, or by both.
///
/// Plain data that proves nothing: anyone can make one. What a served handler is given is
/// `mesh_tower::Principal`, which only the mesh's own stack can make.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Principal {
    /// What the certificate of its connection proved: its own, or that of the gateway that names it.
    pub svid: Option<Arc<VerifiedSvid>>,
    /// Whom a pinned gateway, which `svid` is then, names as its client.
    pub forwarded: Option<SpiffeId>,
    /// What its token proved.
    pub token: Option<Arc<VerifiedToken>>,
}

impl Principal {
    /// A caller of whom this was proved, or said by its gateway.
    ///
    /// Of an anonymous one, nothing.
    pub fn new(
        svid: Option<Arc<VerifiedSvid>>,
        forwarded: Option<SpiffeId>,
        token: Option<Arc<VerifiedToken>>,
    ) -> Self {
        Self { svid, forwarded, token }
    }

    /// Whether nothing was proved: neither a certificate nor a token.
    pub fn is_anonymous(&self) -> bool {
        self.svid.is_none() && self.token.is_none()
    }

    /// The caller's SPIFFE ID, which policy judges.
    ///
    /// That in its certificate, or the one that a pinned gateway names.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        let own = self.svid.as_deref().map(|svid| &svid.id)?;
        Some(self.forwarded.as_ref().unwrap_or(own))
    }

    /// The gateway that names the caller, if one does.
    ///
    /// Its certificate is that of the connection.
    pub fn via(&self) -> Option<&SpiffeId> {
        self.svid.as_deref().map(|svid| &svid.id).filter(|_| self.forwarded.is_some())
    }
}

impl fmt::Display for Principal {
    /// The SPIFFE ID; without a certificate `ISSUER/SUBJECT` of the token; else `anonymous`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.spiffe_id(), &self.token) {
            (Some(id), _) => id.fmt(f),
            (None, Some(token)) => write!(f, "{}/{}", token.issuer, token.subject.as_deref().unwrap_or("")),
            (None, None) => f.write_str("anonymous"),
        }
    }
}
