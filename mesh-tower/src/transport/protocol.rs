//! How hyper is set up for each protocol, and asked to go.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use mesh_core::config::ListenerConfig;

use super::flow::Streams;

/// A quiet HTTP/2 connection is pinged this often, so that a peer which vanished is found out.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests that a peer may cancel before they were taken up, or as many as it may have at once if those are more: an honest
/// one may give all of them up in one moment. Beyond, its connection is closed. (CVE-2023-44487; h2's default)
const MIN_PENDING_RESETS: usize = 20;
/// Resets that a peer may provoke before its connection is closed. (CVE-2025-8671)
const MAX_LOCAL_RESETS: usize = 256;

pub(super) fn http1_builder(config: &ListenerConfig) -> http1::Builder {
    let head = config.max_header_bytes as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None) // `Lifetime` has it, because hyper's also runs while the connection is idle
        .max_headers(config.max_headers)
        .max_header_size(head)
        .max_buf_size(head.max(64 * 1024));
    builder
}

pub(super) fn http2_builder(config: &ListenerConfig, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        // Twice, so that what is just beyond the limit is refused by the stack, which counts and records. hyper answers 431 to
        // more, and ends the connection at four times as much.
        .max_header_list_size(config.max_header_bytes.saturating_mul(2))
        .max_pending_accept_reset_streams(MIN_PENDING_RESETS.max(config.max_concurrent_streams as usize))
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A hyper connection of either protocol.
pub(super) trait Graceful: Future<Output = hyper::Result<()>> {
    /// How long one that is idle waits for a last request before it is closed.
    ///
    /// HTTP/2 says by GOAWAY what it has not read, and that is sent again. HTTP/1.1 says nothing: a request that crosses
    /// the close on its way is lost, and may not be sent again if it changes anything. So connections in use are ended by
    /// a response that says `Connection: close`, and only those that stayed unused are closed.
    const FAREWELL: Duration;

    /// Sends GOAWAY, or closes after the present response.
    fn shut_down(self: Pin<&mut Self>);
}

impl<Io, S, B> Graceful for http1::Connection<Io, S>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    const FAREWELL: Duration = Duration::from_millis(500);

    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<Io, S, B, E> Graceful for http2::Connection<Io, S, E>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    const FAREWELL: Duration = Duration::ZERO;

    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
