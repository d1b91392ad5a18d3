//! Honest callers: an open loop over a few kept connections, and now and then a new one.
//!
//! Latency is counted from the moment at which a request was due, so that a server which stalls is not spared the
//! requests that would have come meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Error;
use crate::peer::Target;
use crate::victim::HELLO;

/// A caller that waited this long was denied service.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that are kept.
const KEPT: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Requests a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Every so manieth request goes over a connection of its own, opened for it.
    #[arg(long, default_value_t = 50)]
    fresh: u32,
    /// How long, in seconds.
    #[arg(long)]
    secs: f64,
}

type Sender = SendRequest<Empty<Bytes>>;

/// Prints one line: `requests`, `failures`, `first_failure`; `p50`, `p99` and `max` in microseconds over all requests,
/// and `p99_kept` over those on kept connections.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let config = args.target.config("caller", "h2")?;
    let mut kept = Vec::new();
    for _ in 0..KEPT {
        let opened = timeout(PATIENCE, async {
            let mut sender = open(&args.target, &config).await.ok()?;
            hello(&mut sender).await.ok()?; // warm
            Some(sender)
        });
        // Where that fails, each request that would have gone over it opens its own, and says whether it could.
        kept.push(opened.await.ok().flatten());
    }
    let count = (f64::from(args.rate) * args.secs).ceil() as u32;
    let mut due = metronome(args.rate, count);
    let mut calls = JoinSet::new();
    let mut number = 0;
    while let Some(at) = due.recv().await {
        number += 1;
        let fresh = number % args.fresh == args.fresh / 2;
        let (target, config) = (args.target.clone(), Arc::clone(&config));
        let sender = kept.get(number as usize % KEPT).cloned().flatten();
        calls.spawn(async move {
            let call = async {
                match sender.filter(|_| !fresh) {
                    Some(mut sender) => hello(&mut sender).await,
                    None => hello(&mut open(&target, &config).await?).await,
                }
            };
            let outcome = timeout_at(at + PATIENCE, call).await.unwrap_or_else(|_| Err("no answer in time".into()));
            (fresh, at.elapsed(), outcome.map_err(|error| error.to_string()))
        });
    }
    let (mut all, mut on_kept, mut failures, mut first) = (Vec::new(), Vec::new(), 0, None);
    while let Some(done) = calls.join_next().await {
        let (fresh, latency, outcome) = done?;
        if let Err(error) = outcome {
            failures += 1;
            first.get_or_insert(if fresh { format!("on a new connection: {error}") } else { error });
        }
        all.push(latency);
        if !fresh {
            on_kept.push(latency);
        }
    }
    all.sort_unstable();
    on_kept.sort_unstable();
    let report = json!({
        "requests": all.len(), "failures": failures, "first_failure": first,
        "p50": quantile(&all, 0.5), "p99": quantile(&all, 0.99), "max": quantile(&all, 1.0),
        "p99_kept": quantile(&on_kept, 0.99),
    });
    println!("{report}");
    Ok(())
}

/// Says when each request is due. tokio's timers are as coarse as what is measured; a thread's sleep is not.
fn metronome(rate: u32, count: u32) -> mpsc::UnboundedReceiver<Instant> {
    let (send, receive) = mpsc::unbounded_channel(); // bounded by `count`
    std::thread::spawn(move || {
        let start = Instant::now();
        for number in 1..=count {
            let due = start + Duration::from_secs(1) * number / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if send.send(due).is_err() {
                return;
            }
        }
    });
    receive
}

async fn open(target: &Target, config: &Arc<ClientConfig>) -> Result<Sender, Error> {
    let stream = target.tls(config).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn hello(sender: &mut Sender) -> Result<(), Error> {
    let request = Request::get("https://victim/hello").body(Empty::new())?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let length = response.into_body().collect().await?.to_bytes().len();
    if (status, length) == (StatusCode::OK, HELLO) { Ok(()) } else { Err(format!("{status}, {length} bytes").into()) }
}

/// Microseconds; of sorted values. The value that a share `q` of them does not exceed.
fn quantile(sorted: &[Duration], q: f64) -> u64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    u64::try_from(value.as_micros()).unwrap_or(u64::MAX)
}
