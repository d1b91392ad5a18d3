//! What can go wrong with a call, by name.

use http::StatusCode;

/// What went wrong, for decisions. Stable names in [`as_str`](Self::as_str) for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Discovery had not answered before the deadline.
    Unresolved,
    /// The cluster has no endpoints.
    NoEndpoints,
    /// No connection could be made.
    Connect,
    /// An identity was refused: the endpoint's by us, or ours by the endpoint.
    PeerIdentity,
    /// This workload has no valid SVID to present. Fails closed: nothing was sent, and no other endpoint is tried.
    OwnIdentity,
    /// The deadline, the route's timeout or the attempt's timeout passed.
    Timeout,
    /// Too many requests wait for a connection already; this one was not queued.
    Overloaded,
    /// The cluster holds as much of this process as it may (`limits:`). Nothing was sent, and nothing is repeated.
    LimitReached,
    /// A connection broke while the request was under way.
    Connection,
    /// A request or response body could not be read to its end.
    Body,
    /// A response body is not what the caller asked it to be decoded as.
    Decode,
    /// A response body is longer than the limit it was read with.
    TooLarge,
    /// The answer has an error status, and the caller asked for that to be an error.
    Status(StatusCode),
    /// The request cannot be sent as it is; a mistake in the calling code.
    Request,
    /// No route of the service matches, or the route names a cluster that cannot be built.
    Unroutable,
    /// The token that this cluster's calls must carry is not to be had. Fails closed: nothing was sent.
    Token,
    /// A layer misses another one that must stand around it.
    Wiring,
}

impl ErrorKind {
    /// A stable name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::NoEndpoints => "no_endpoints",
            Self::Connect => "connect",
            Self::PeerIdentity => "peer_identity",
            Self::OwnIdentity => "own_identity",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::LimitReached => "limit_reached",
            Self::Connection => "connection",
            Self::Body => "body",
            Self::Decode => "decode",
            Self::TooLarge => "too_large",
            Self::Status(_) => "status",
            Self::Request => "request",
            Self::Unroutable => "unroutable",
            Self::Token => "token",
            Self::Wiring => "wiring",
        }
    }
}
