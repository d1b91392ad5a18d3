//! The attacker: a peer of the same trust domain with a certificate of its own, or a stranger without any.
//!
//! Whatever is closed is opened again, a tenth of a second later: an attacker does not give up.

mod flood;
mod hold;
mod kind;
mod requests;
mod tally;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use kind::Kind;
use tokio::time::Instant;

use crate::Error;
use crate::peer::Target;
use kind::Means;
use tally::Tally;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do.
    #[arg(long)]
    kind: Kind,
    #[command(flatten)]
    target: Target,
    /// Units a second over all connections: frames, requests, header blocks; of attacks that hold connections, those
    /// opened in a second.
    #[arg(long)]
    rate: u32,
    /// Connections at once.
    #[arg(long)]
    connections: u32,
    /// How long, in seconds.
    #[arg(long)]
    secs: f64,
}

/// What every connection of one attack shares.
#[derive(Debug)]
struct Front {
    target: Target,
    tally: Tally,
    rate: u32,
    connections: u32,
    end: Instant,
}

/// Attacks and prints what was seen: one line `attacking` at the start, and at the end one of JSON: `units`,
/// `opened`, `refused` (no connection, or no handshake), `closed` (by the victim), `resets` and `answers` (frames),
/// `goaway` by code.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let means = args.kind.means(&args.target)?;
    println!("attacking");
    let front = Arc::new(Front {
        target: args.target,
        tally: Tally::default(),
        rate: args.rate.max(1),
        connections: args.connections.max(1),
        end: Instant::now() + Duration::from_secs_f64(args.secs),
    });
    match means {
        Means::Hold(hold) => hold::run(&front, hold).await,
        Means::Flood(flood) => flood::run(&front, flood).await?,
        Means::Requests(requests) => requests::run(&front, requests).await?,
    }
    println!("{}", front.tally.report());
    Ok(())
}
