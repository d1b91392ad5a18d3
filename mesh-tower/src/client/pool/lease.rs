//! A claim on one connection for one request.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::{http1, http2};
use tokio::sync::oneshot;

use super::claim::Claim;
use super::link::Link;
use super::{Http1, Http2, Shared};
use crate::client::replay::ReplayBody;
use crate::error::{Error, ErrorKind, chain};

/// How long an HTTP/1.1 connection may take to finish its exchange after the body was read.
const SETTLE: Duration = Duration::from_secs(1);

/// One stream of an HTTP/2 connection, or a whole HTTP/1.1 connection. Dropped, it goes back to the pool.
pub(crate) struct Lease {
    send: Option<Send>,
    link: Arc<Link>,
    pool: Arc<Shared>,
    /// The stream ended by itself; dropping the lease before that resets it.
    complete: bool,
    /// Has a request body given up that is under way.
    leave: Option<oneshot::Sender<()>>,
}

enum Send {
    Http1(http1::SendRequest<ReplayBody>),
    Http2(http2::SendRequest<ReplayBody>, Arc<Claim>),
}

impl Lease {
    pub(super) fn http1(Http1 { link, send }: Http1, pool: Arc<Shared>) -> Self {
        Self { send: Some(Send::Http1(send)), link, pool, complete: false, leave: None }
    }

    pub(super) fn http2(Http2 { link, send }: Http2, pool: Arc<Shared>) -> Self {
        let claim = Claim::new(Arc::clone(&link), Arc::clone(&pool));
        Self { send: Some(Send::Http2(send, claim)), link, pool, complete: false, leave: None }
    }

    /// Whether the request goes out as HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.send, Some(Send::Http2(..)))
    }

    /// The stream ended by itself: no frame of it is still to come.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The stream ended by itself, and not well: of the request body too, nothing is awaited.
    pub(crate) fn broken(&mut self) {
        self.complete();
        self.leave();
    }

    fn leave(&mut self) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(()); // the body may have ended
        }
    }

    /// How long the answer's body may be silent.
    pub(crate) fn stream_idle_timeout(&self) -> Option<Duration> {
        let timeout = self.pool.context.settings.load().stream_idle_timeout;
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Sends the request; the headers of the answer come back with the lease.
    pub(super) async fn send(mut self, mut request: Request<ReplayBody>) -> Result<(Response<Incoming>, Self), Error> {
        let result = match &mut self.send {
            Some(Send::Http1(send)) => finish(send.try_send_request(request)).await,
            Some(Send::Http2(send, claim)) => {
                if !request.body().is_end_stream() {
                    let (leave, upload) = claim.upload();
                    request.body_mut().is_upload(upload);
                    self.leave = Some(leave);
                }
                finish(send.try_send_request(request)).await
            }
            None => return Err(Error::new(ErrorKind::Connection, "the lease is used up").never_sent()),
        };
        match result {
            Ok(response) => {
                if self.link.prove() {
                    self.pool.proven();
                }
                Ok((response, self))
            }
            Err((error, returned)) => {
                self.broken();
                Err(self.explain(error, returned).await)
            }
        }
    }

    /// Why the request failed: hyper's own error, or that of the connection behind it.
    async fn explain(&self, error: hyper::Error, returned: bool) -> Error {
        if error.is_user() && !is_dispatch_gone(&error) {
            return Error::new(ErrorKind::Body, "the request could not be sent to its end").caused_by(error);
        }
        let h2 = h2_error(&error);
        let refused = returned || h2.is_some_and(is_refused);
        // A stream that was reset alone leaves the connection as it is.
        let end = if h2.is_some_and(h2::Error::is_reset) { None } else { self.link.ended().await };
        let mut failure = match end {
            Some(end) if end.refused_us => {
                // The server cannot have read what a connection it refused would have carried.
                let message = "the endpoint refused our certificate";
                Error::new(ErrorKind::PeerIdentity, message).never_sent()
            }
            Some(end) => match end.error {
                Some(cause) if !chain(&error).contains(&*cause) => {
                    Error::new(ErrorKind::Connection, format!("the connection broke: {cause}"))
                }
                _ => Error::new(ErrorKind::Connection, "the connection broke"),
            },
            None => Error::new(ErrorKind::Connection, "the request failed on its connection"),
        };
        if refused {
            failure = failure.never_sent();
        }
        failure.caused_by(error)
    }
}

async fn finish(
    sent: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ReplayBody>>>>,
) -> Result<Response<Incoming>, (hyper::Error, bool)> {
    sent.await.map_err(|mut error| {
        let returned = error.take_message().is_some();
        (error.into_error(), returned)
    })
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}

/// The server provably did not begin: REFUSED_STREAM, or a stream above GOAWAY's last one. (RFC 9113 8.7, 6.8)
///
/// h2 reports a remote GOAWAY only to streams above the last one that it names.
fn is_refused(h2: &h2::Error) -> bool {
    let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
    h2.is_remote() && (refused || h2.is_go_away())
}

/// hyper files "the connection's task is gone" under user errors.
fn is_dispatch_gone(error: &hyper::Error) -> bool {
    error.to_string().contains("dispatch")
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(send) = self.send.take() else { return };
        match send {
            // Gives the stream back, unless the request body is still under way.
            Send::Http2(_, _claim) => {
                if !self.complete {
                    self.link.cancelled();
                    self.leave();
                }
            }
            Send::Http1(send) if send.is_ready() => give_back(&self.pool, Arc::clone(&self.link), send),
            Send::Http1(send) if send.is_closed() => self.link.release(),
            Send::Http1(mut send) => {
                // The body was read, or will never be; hyper needs a moment to finish the exchange or to give it up.
                let (pool, link) = (Arc::downgrade(&self.pool), Arc::clone(&self.link));
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        let ready = tokio::time::timeout(SETTLE, send.ready()).await;
                        match (ready, pool.upgrade()) {
                            (Ok(Ok(())), Some(pool)) => give_back(&pool, link, send),
                            _ => link.release(),
                        }
                    });
                }
            }
        }
    }
}

fn give_back(pool: &Arc<Shared>, link: Arc<Link>, send: http1::SendRequest<ReplayBody>) {
    link.release();
    if !link.is_closing() && !pool.closed.load(Relaxed) {
        let unready = {
            let mut lists = pool.lock();
            lists.idle.push(Http1 { link, send });
            lists.reconnecting
        };
        if unready {
            pool.readiness.ready(); // new connections fail, and this one goes on
        }
        pool.wake.notify_one();
    }
}
