//! A request as policy sees it: canonical, borrowed, without HTTP types.

use std::fmt;
use std::net::IpAddr;

use crate::identity::SpiffeId;
use crate::token::VerifiedToken;

/// The canonical request. Built once; every decision, log and label uses it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The peer's SPIFFE ID, proved by its certificate.
    pub peer: Option<&'a SpiffeId>,
    /// The verified JWT.
    pub token: Option<&'a VerifiedToken>,
    /// `GET`, `POST`, ...; gRPC is always `POST`.
    pub method: &'a str,
    /// The canonical path, without query and fragment.
    pub path: &'a str,
    /// The canonical authority, lower case, with the port if the request had one.
    pub host: &'a str,
    /// The local port that was connected to.
    pub port: u16,
    /// The matched route (`/orders/{id}`) or gRPC method, where it is known.
    pub route: Option<&'a str>,
    /// The TCP peer.
    pub source_ip: Option<IpAddr>,
    /// The request's headers, after stripping.
    pub headers: &'a dyn Headers,
}

impl fmt::Debug for Request<'_> {
    /// Without header values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("peer", &self.peer)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("route", &self.route)
            .field("source_ip", &self.source_ip)
            .finish_non_exhaustive()
    }
}

impl Request<'_> {
    /// The peer's SPIFFE ID without `spiffe://`, as policies write principals.
    pub fn peer_principal(&self) -> Option<&str> {
        self.peer.and_then(|id| id.as_str().strip_prefix("spiffe://"))
    }

    /// The peer's namespace, if its SPIFFE ID is exactly `TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn peer_namespace(&self) -> Option<&str> {
        self.peer.and_then(|id| id.workload()).map(|workload| workload.namespace)
    }
}

/// The headers of a request, however they are kept.
pub trait Headers {
    /// Calls `each` with every value of the header `name` (lower case), in order.
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

/// A request without headers.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn values(&self, _name: &str, _each: &mut dyn FnMut(&[u8])) {}
}
