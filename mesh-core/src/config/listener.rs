//! `listeners:` and `health:` - where the process listens, and what a connection may cost.

use std::net::SocketAddr;
use std::time::Duration;

use super::checker::Checker;
use super::forwarded::ForwardedConfig;
use super::issue::Errors;
use super::mtls::Mtls;
use super::tls::TlsConfig;
use super::values::Size;
use super::walk::Fields;
use super::yaml::Decode;
use super::yaml::Node;

/// One mutually authenticated port and the limits of its connections.
///
/// What happens at each limit, and where it is seen. Log lines about peers come once a second for each reason, with the
/// number that was left out; those of refused requests, for each. Metrics have the prefix `mesh_`.
///
/// | setting | default | what happens | metric | log |
/// |---|---|---|---|---|
/// | `max_connections` | 10,000, at most 3/4 of the open files | newcomers wait in the backlog | `server_connections`, `server_limit_waits{limit="max_connections"}` | warn; at the start, too, if files are too few |
/// | `max_half_open` | a tenth, at least 256 | the oldest that has proved nothing is closed | `server_half_open`, `server_handshakes{result="evicted"}` | warn |
/// | `max_connections_per_ip` | half | closed before the handshake | `server_connections_refused{reason="per_ip"}` | warn |
/// | `max_connections_per_peer` | half | closed after the handshake | `server_connections_refused{reason="per_peer"}` | warn |
/// | plaintext connections, `mtls: permissive` | half of `max_connections` | closed at their first bytes | `server_connections_refused{reason="plaintext_limit"}` | warn |
/// | `max_handshakes` | 256 | handshakes wait; addresses take turns | `server_limit_waits{limit="max_handshakes"}` | warn |
/// | `hello_timeout`, `handshake_timeout` | 3 s, 10 s | closed | `server_handshakes{result="hello_timeout"}`, `"timeout"` | info |
/// | `header_timeout` | 10 s | closed | `server_connections_closed{reason="header_timeout"}` | warn |
/// | `body_timeout`, `min_body_rate` | 20 s, 240B | 408, CANCELLED | `server_rejected{reason="body_timeout"}` | info, audit |
/// | `send_timeout`, `min_body_rate` | 60 s, 240B | stream reset | `server_rejected{reason="send_timeout"}` | warn |
/// | the same, a socket that takes nothing | | closed | `server_connections_closed{reason="send_timeout"}` | warn |
/// | `idle_timeout`, `max_connection_age` | 5 min, 30 min | asked to go | `server_connections_closed{reason="idle"}`, `"max_age"` | debug |
/// | `drain_timeout` | 30 s | cut | `server_connections_closed{reason="drain_timeout"}` | debug; warn at the end of a server |
/// | `max_resets_per_second` | 100, ten times at once | closed; newcomers refused for up to a second | `server_connections_closed{reason="reset_budget"}`, `server_connections_refused{reason="reset_budget"}` | warn |
/// | requests cancelled before they were taken up | `max_concurrent_streams`, at least 20 | closed, ENHANCE_YOUR_CALM | `server_connections_closed{reason="flood"}` | warn |
/// | floods of resets that it provokes, small DATA or CONTINUATION frames, four times the header bytes | fixed, h2's | closed, ENHANCE_YOUR_CALM | `server_connections_closed{reason="flood"}` | warn |
/// | `max_concurrent_streams` | 100 | REFUSED_STREAM to a peer that does not wait for our SETTINGS, or breaks them | | |
/// | `max_header_bytes`, `max_headers` | 16KiB, 100 | 431, RESOURCE_EXHAUSTED | `server_rejected{reason="headers_too_large"}`, `"too_many_headers"` | info, audit |
/// | `max_body_bytes` | 4MiB | 413, RESOURCE_EXHAUSTED | `server_rejected{reason="body_too_large"}` | info, audit |
/// | `decompress_requests` | `false` | 415 for what it cannot, 400 for what is broken | `server_rejected{reason="unsupported_encoding"}`, `"body_encoding"` | info, audit |
/// | accept errors for want of files or memory | fixed | tried again every 100 ms | `server_accept_errors{reason="resource"}` | error, once a streak |
///
/// Streams beyond `max_concurrent_streams` are refused by h2, which tells their peer and nobody else. Only a peer that sends
/// many requests before it has read our SETTINGS, or does not keep to them, meets that; none of those requests was begun.
/// Header bytes between twice and four times the limit of an HTTP/2 request are answered with 431 below the mesh, without
/// metric or record. `limits:` has what all listeners share.
///
/// After a reload new connections get the new values and open ones keep theirs, except for `mtls` and `forwarded_identity`,
/// which hold for open ones too. More `max_connections` or `max_handshakes` are there at once; fewer put nobody out: newcomers
/// wait until enough have ended. A reload that changes names or addresses of listeners is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// Where to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Who may connect: `strict` (default), or `permissive` together with `permissive_until: 2027-01-31T00:00:00Z`.
    pub mtls: Mtls,
    /// What may be less than TLS 1.3 with full handshakes.
    pub tls: TlsConfig,
    /// Gateways that may name their clients; absent: none.
    pub forwarded_identity: Option<ForwardedConfig>,
    /// How many trusted proxies stand between the client and this listener, for `remoteIpBlocks` and `remote.ip` of
    /// policies: the client is the entry of `x-forwarded-for` that the outermost of them wrote, the last but
    /// `trusted_hops - 1`. Taken from peers with an SVID only; where it has fewer entries the peer itself is the client, and
    /// an entry that is no address is answered with 400. Default 0: nobody is believed. At most 16. (Envoy,
    /// `xff_num_trusted_hops`)
    pub trusted_hops: u32,
    /// From accept to the end of the TLS handshake. Default 10 s, range 100 ms to 60 s.
    pub handshake_timeout: Duration,
    /// From accept to the end of the ClientHello, the first thing a TLS client says. Default 3 s, range 100 ms to 60 s.
    pub hello_timeout: Duration,
    /// From the end of the handshake, or of the previous request, to complete request headers of a request that has
    /// begun; for HTTP/2, to the first request. Default 10 s, range 100 ms to 5 min.
    pub header_timeout: Duration,
    /// How long a server waits for bytes of a request body, or of a gRPC message that has begun: 408 / CANCELLED. Bytes restore
    /// patience at `min_body_rate`, so a drip ends as a stall does; waiting between gRPC messages is free. Default 20 s,
    /// range 100 ms to 24 h. (Apache, mod_reqtimeout)
    pub body_timeout: Duration,
    /// How long a peer may leave a response that waits for it, the same way: the HTTP/2 stream is reset, or the connection
    /// closed where its socket takes nothing. A response whose handler has nothing to send does not count. Default 60 s,
    /// range 100 ms to 24 h. (nginx, send_timeout)
    pub send_timeout: Duration,
    /// Bytes that restore one second of `body_timeout` and `send_timeout`. Default 240B (Kestrel), range 0B to 1MiB; 0B: any
    /// byte restores all.
    pub min_body_rate: u32,
    /// How long a connection may be without a request. Default 5 min, range 1 s to 24 h.
    pub idle_timeout: Duration,
    /// When a connection is asked to close (GOAWAY, `Connection: close`), less up to 10 % jitter. Default 30 min,
    /// range 1 s to 24 h. A connection never outlives its peer's certificate, whatever is set here.
    pub max_connection_age: Duration,
    /// How long a closing connection, or a stopping server, waits for requests in flight before it cuts them.
    /// Default 30 s, range 0 to 1 h.
    pub drain_timeout: Duration,
    /// From the signal to stop until new connections are refused: not ready any more, serving all the same, so that load
    /// balancers have time to notice. 5 s suits Kubernetes. Default 0, range 0 to 10 min.
    pub shutdown_delay: Duration,
    /// Open connections, further ones wait in the kernel's backlog. Default 10,000, range 1 to 1,000,000. Each idle
    /// HTTP/2 connection costs about 35 KiB. A server whose open files are too few has fewer, and the limits below that are
    /// shares of it are shares of those.
    pub max_connections: usize,
    /// Connections whose handshake is not done. Of more, the oldest is closed: one that has been silent for 100 ms, or in
    /// its handshake for a second; younger ones make newcomers wait. Default a tenth of `max_connections`, at least 256,
    /// range 1 to 1,000,000.
    pub max_half_open: Option<usize>,
    /// Connections from one IPv4 address or IPv6 /64; further ones are closed before their handshake. What comes through a
    /// NAT, a gateway or loopback has one address. Default half of `max_connections`, range 1 to 1,000,000.
    pub max_connections_per_ip: Option<usize>,
    /// Connections of one SPIFFE ID, all of its replicas together; further ones are closed after their handshake. Default
    /// half of `max_connections`, range 1 to 1,000,000.
    pub max_connections_per_peer: Option<usize>,
    /// HTTP/2 requests that one SPIFFE ID may cancel a second, over all of its connections; ten times as many at once, and
    /// one more for each response that it let finish. Beyond: the connection is closed, and the peer gets no new one until
    /// it is out of debt, which takes up to a second. Default 100, range 1 to 1,000,000. (CVE-2023-44487)
    pub max_resets_per_second: u32,
    /// Handshakes at once; further connections wait, and addresses take turns. Of them as many are worked on as there are threads,
    /// requests in between. One that lasts longer than 250 ms, which is its client's doing, is no
    /// longer counted. Default 256, range 1 to 65,536. Each costs about 0.2 ms of one core.
    pub max_handshakes: usize,
    /// Requests at once on one HTTP/2 connection. Default 100, range 1 to 10,000.
    pub max_concurrent_streams: u32,
    /// Decoded bytes of one request's headers. Default 16 KiB, range 1 KiB to 1 MiB.
    pub max_header_bytes: u32,
    /// Number of one request's headers. Default 100, range 8 to 1,000.
    pub max_headers: usize,
    /// Bytes of one HTTP request body: as it comes, and again as `decompress_requests` makes it. Where a router itself
    /// decompresses, axum's extractors read so many bytes of what comes out. gRPC bodies are limited per message by tonic,
    /// and so unlimited here for gRPC routers and for what `serve_service` serves. Default 4 MiB, range 0 to 1 TiB.
    pub max_body_bytes: u64,
    /// Whether HTTP request bodies with `content-encoding: gzip` or `deflate` are decompressed for the handler, which then
    /// sees neither that header nor `content-length`. Any other encoding, or more than one, is answered with 415, a body
    /// that is not what it says with 400. gRPC compresses messages, not bodies, and is left alone. Default `false`: a
    /// handler gets the body as it came, with its `content-encoding`. (RFC 9110 8.4)
    pub decompress_requests: bool,
}

impl ListenerConfig {
    /// A strict listener with every default.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            mtls: Mtls::Strict,
            tls: TlsConfig::default(),
            forwarded_identity: None,
            trusted_hops: 0,
            handshake_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(3),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            send_timeout: Duration::from_secs(60),
            min_body_rate: 240,
            idle_timeout: Duration::from_secs(300),
            max_connection_age: Duration::from_secs(30 * 60),
            drain_timeout: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
            max_connections: 10_000,
            max_half_open: None,
            max_connections_per_ip: None,
            max_connections_per_peer: None,
            max_resets_per_second: 100,
            max_handshakes: 256,
            max_concurrent_streams: 100,
            max_header_bytes: 16 * 1024,
            max_headers: 100,
            max_body_bytes: 4 * 1024 * 1024,
            decompress_requests: false,
        }
    }

    /// [`max_half_open`](Self::max_half_open), or its default; `max_connections` at most.
    pub fn half_open_limit(&self) -> usize {
        self.max_half_open.unwrap_or((self.max_connections / 10).max(256)).min(self.max_connections)
    }

    /// [`max_connections_per_ip`](Self::max_connections_per_ip), or its default; `max_connections` at most.
    pub fn per_ip_limit(&self) -> usize {
        self.max_connections_per_ip.unwrap_or(self.max_connections.div_ceil(2)).min(self.max_connections)
    }

    /// [`max_connections_per_peer`](Self::max_connections_per_peer), or its default; `max_connections` at most.
    pub fn per_peer_limit(&self) -> usize {
        self.max_connections_per_peer.unwrap_or(self.max_connections.div_ceil(2)).min(self.max_connections)
    }
}

/// The plain listener for kubelet and Prometheus, which have no SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Where to bind; port 0 takes a free one. It answers `/livez`, `/readyz` and `/metrics` and nothing else.
    pub address: SocketAddr,
}

impl Decode for ListenerConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let address = fields.required("address");
        // The address stands in until the fields were read, so that all their problems are seen at once.
        let default = Self::new(address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
        let header_bytes: Option<Size> = fields.optional("max_header_bytes");
        let body_rate: Option<Size> = fields.optional("min_body_rate");
        let body_bytes: Option<Size> = fields.optional("max_body_bytes");
        let listener = Self {
            address: default.address,
            mtls: Mtls::of(&mut fields),
            tls: fields.or("tls", default.tls),
            forwarded_identity: fields.optional("forwarded_identity"),
            trusted_hops: fields.or("trusted_hops", default.trusted_hops),
            handshake_timeout: fields.or("handshake_timeout", default.handshake_timeout),
            hello_timeout: fields.or("hello_timeout", default.hello_timeout),
            header_timeout: fields.or("header_timeout", default.header_timeout),
            body_timeout: fields.or("body_timeout", default.body_timeout),
            send_timeout: fields.or("send_timeout", default.send_timeout),
            min_body_rate: body_rate.map_or(default.min_body_rate, |size| u32::try_from(size.0).unwrap_or(u32::MAX)),
            shutdown_delay: fields.or("shutdown_delay", default.shutdown_delay),
            idle_timeout: fields.or("idle_timeout", default.idle_timeout),
            max_connection_age: fields.or("max_connection_age", default.max_connection_age),
            drain_timeout: fields.or("drain_timeout", default.drain_timeout),
            max_connections: fields.or("max_connections", default.max_connections),
            max_half_open: fields.optional("max_half_open"),
            max_connections_per_ip: fields.optional("max_connections_per_ip"),
            max_connections_per_peer: fields.optional("max_connections_per_peer"),
            max_resets_per_second: fields.or("max_resets_per_second", default.max_resets_per_second),
            max_handshakes: fields.or("max_handshakes", default.max_handshakes),
            max_concurrent_streams: fields.or("max_concurrent_streams", default.max_concurrent_streams),
            // Beyond `u32` is beyond the range, which is checked later.
            max_header_bytes: header_bytes
                .map_or(default.max_header_bytes, |size| u32::try_from(size.0).unwrap_or(u32::MAX)),
            max_headers: fields.or("max_headers", default.max_headers),
            max_body_bytes: body_bytes.map_or(default.max_body_bytes, |size| size.0),
            decompress_requests: fields.or("decompress_requests", default.decompress_requests),
        };
        fields.finish();
        address.map(|_| listener)
    }
}

impl ListenerConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        const SECOND: Duration = Duration::from_secs(1);
        const TENTH: Duration = Duration::from_millis(100);
        const HOUR: Duration = Duration::from_secs(3600);
        if let Some(forwarded) = &self.forwarded_identity {
            at.below("forwarded_identity", |at| forwarded.check(at));
        }
        at.range("trusted_hops", self.trusted_hops, 0..=16);
        at.range("handshake_timeout", self.handshake_timeout, TENTH..=60 * SECOND);
        at.range("hello_timeout", self.hello_timeout, TENTH..=60 * SECOND);
        at.range("header_timeout", self.header_timeout, TENTH..=300 * SECOND);
        at.range("body_timeout", self.body_timeout, TENTH..=24 * HOUR);
        at.range("send_timeout", self.send_timeout, TENTH..=24 * HOUR);
        at.range("min_body_rate", Size(self.min_body_rate.into()), Size(0)..=Size(1 << 20));
        at.range("shutdown_delay", self.shutdown_delay, Duration::ZERO..=600 * SECOND);
        at.range("idle_timeout", self.idle_timeout, SECOND..=24 * HOUR);
        at.range("max_connection_age", self.max_connection_age, SECOND..=24 * HOUR);
        at.range("drain_timeout", self.drain_timeout, Duration::ZERO..=HOUR);
        at.range("max_connections", self.max_connections, 1..=1_000_000);
        for (field, limit) in [
            ("max_half_open", self.max_half_open),
            ("max_connections_per_ip", self.max_connections_per_ip),
            ("max_connections_per_peer", self.max_connections_per_peer),
        ] {
            if let Some(limit) = limit {
                at.range(field, limit, 1..=1_000_000);
            }
        }
        at.range("max_resets_per_second", self.max_resets_per_second, 1..=1_000_000);
        at.range("max_handshakes", self.max_handshakes, 1..=65_536);
        at.range("max_concurrent_streams", self.max_concurrent_streams, 1..=10_000);
        at.range("max_header_bytes", Size(self.max_header_bytes.into()), Size(1 << 10)..=Size(1 << 20));
        at.range("max_headers", self.max_headers, 8..=1_000);
        at.range("max_body_bytes", Size(self.max_body_bytes), Size(0)..=Size(1 << 40));
    }
}

impl Decode for HealthConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let address = fields.required("address");
        fields.finish();
        Some(Self { address: address? })
    }
}
