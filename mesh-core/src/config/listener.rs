//! `listeners:` and `health:` - where the process listens, and what a connection may cost.

use std::net::SocketAddr;
use std::time::Duration;

/// One mutually authenticated port and the limits of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// Where to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Who may connect.
    pub mtls: Mtls,
    /// From accept to the end of the TLS handshake. Default 10 s, range 100 ms to 60 s.
    pub handshake_timeout: Duration,
    /// From the end of the handshake, or of the previous request, to complete request headers of a request that has
    /// begun; for HTTP/2, to the first request. Default 10 s, range 100 ms to 5 min.
    pub header_timeout: Duration,
    /// How long a connection may be without a request. Default 5 min, range 1 s to 24 h.
    pub idle_timeout: Duration,
    /// When a connection is asked to close (GOAWAY, `Connection: close`), less up to 10 % jitter. Default 30 min,
    /// range 1 s to 24 h. A connection never outlives its peer's certificate, whatever is set here.
    pub max_connection_age: Duration,
    /// How long a closing connection, or a stopping server, waits for requests in flight before it cuts them.
    /// Default 30 s, range 0 to 1 h.
    pub drain_timeout: Duration,
    /// Open connections, further ones wait in the kernel's backlog. Default 10,000, range 1 to 1,000,000. Each idle
    /// HTTP/2 connection costs about 32 KiB.
    pub max_connections: usize,
    /// Handshakes at once; further connections wait. Default 256, range 1 to 65,536. Each costs about 0.2 ms of one core.
    pub max_handshakes: usize,
    /// Requests at once on one HTTP/2 connection. Default 100, range 1 to 10,000.
    pub max_concurrent_streams: u32,
    /// Decoded bytes of one request's headers. Default 16 KiB, range 1 KiB to 1 MiB.
    pub max_header_bytes: u32,
    /// Number of one request's headers. Default 100, range 8 to 1,000.
    pub max_headers: usize,
    /// Bytes of one HTTP request body after decompression; gRPC bodies are limited per message by tonic. Default
    /// 4 MiB, range 0 to 1 TiB.
    pub max_body_bytes: u64,
}

impl ListenerConfig {
    /// A strict listener with every default.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            mtls: Mtls::Strict,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_connection_age: Duration::from_secs(30 * 60),
            drain_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_handshakes: 256,
            max_concurrent_streams: 100,
            max_header_bytes: 16 * 1024,
            max_headers: 100,
            max_body_bytes: 4 * 1024 * 1024,
        }
    }
}

/// What a listener demands of those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mtls {
    /// A client certificate that this workload's trust bundles vouch for; nothing else gets through the handshake.
    #[default]
    Strict,
}

/// The plain listener for kubelet and Prometheus, which have no SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Where to bind; port 0 takes a free one. It answers `/livez`, `/readyz` and `/metrics` and nothing else.
    pub address: SocketAddr,
}
