//! A request as policy sees it: canonical, borrowed, without HTTP types.

use std::fmt;
use std::net::IpAddr;

use super::PeerView;
use crate::identity::SpiffeId;
use crate::token::VerifiedToken;

/// The canonical request. Built once; every decision, log and label uses it.
///
/// What is not known is `None`, or empty: no positive list holds it, every negative one does.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The peer's SPIFFE ID, proved by its certificate.
    pub peer: Option<&'a SpiffeId>,
    /// The verified JWT.
    pub token: Option<&'a VerifiedToken>,
    /// What it came as.
    pub protocol: Protocol,
    /// `GET`, `POST`, ...; gRPC is always `POST`.
    pub method: &'a str,
    /// The canonical path, without query and fragment.
    pub path: &'a str,
    /// What an eager reader makes of the path, where both count ([`Canonicalization::Dual`]): an ALLOW rule must match
    /// both, any other action matches by either.
    ///
    /// [`Canonicalization::Dual`]: super::canonical::Canonicalization::Dual
    pub resolved_path: Option<&'a str>,
    /// The canonical authority, lower case, with the port if the request had one.
    pub host: &'a str,
    /// The local port that was connected to.
    pub port: u16,
    /// The matched route (`/orders/{id}`) or gRPC method, where it is known.
    ///
    /// While it is not, no ALLOW rule that names a route matches, and every other one does.
    pub route: Option<&'a str>,
    /// The TCP peer.
    pub source_ip: Option<IpAddr>,
    /// The client: the TCP peer, or whom trusted proxies in front of us name.
    pub remote_ip: Option<IpAddr>,
    /// The local address that was connected to.
    pub destination_ip: Option<IpAddr>,
    /// The server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// The request's headers, after stripping.
    pub headers: &'a dyn Headers,
}

/// What a request came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2.
    #[default]
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// A raw connection: no method, path, host, header, token or route.
    ///
    /// ALLOW rules that name one never match; other rules are judged without it, which makes them wider. (Istio)
    Tcp,
}

impl Request<'static> {
    /// A request of which nothing is known, for `Request { method, path, ..Request::UNKNOWN }`.
    pub const UNKNOWN: Self = Self {
        peer: None,
        token: None,
        protocol: Protocol::Http,
        method: "",
        path: "",
        resolved_path: None,
        host: "",
        port: 0,
        route: None,
        source_ip: None,
        remote_ip: None,
        destination_ip: None,
        sni: None,
        headers: &NoHeaders,
    };
}

impl fmt::Debug for Request<'_> {
    /// Without header values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("resolved_path", &self.resolved_path)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("route", &self.route)
            .field("source_ip", &self.source_ip)
            .field("remote_ip", &self.remote_ip)
            .field("destination_ip", &self.destination_ip)
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// Its path, or both readings of it.
    pub fn paths(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::once(self.path).chain(self.resolved_path)
    }

    /// What its connection alone shows.
    pub fn peer_view(&self) -> PeerView<'a> {
        PeerView {
            peer: self.peer,
            source_ip: self.source_ip,
            destination_ip: self.destination_ip,
            port: self.port,
            sni: self.sni,
        }
    }

    /// The peer's SPIFFE ID without `spiffe://`, as policies write principals.
    pub fn peer_principal(&self) -> Option<&'a str> {
        self.peer_view().principal()
    }

    /// The peer's namespace, if its SPIFFE ID is exactly `TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn peer_namespace(&self) -> Option<&'a str> {
        self.peer_view().namespace()
    }
}

/// The headers of a request, however they are kept.
pub trait Headers: Sync {
    /// Calls `each` with every value of the header `name` (lower case), in order.
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

/// A request without headers.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn values(&self, _name: &str, _each: &mut dyn FnMut(&[u8])) {}
}
