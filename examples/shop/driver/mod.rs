//! The driver: builds the town, plays the steps, prints the table.

mod caller;
mod layout;
mod load;
mod outsider;
mod process;
mod steps;
mod table;
mod tokens;
mod town;
mod wait;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::Error;
use table::Table;
use town::Town;

/// How long a step may take; the longest needs about ten seconds.
const STEP: Duration = Duration::from_secs(60);

/// True if every step came out as expected. All processes have ended by then, also after ctrl-c.
pub(crate) async fn run() -> Result<bool, Error> {
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let mut town = Town::build()?;
    let mut table = Table::begin();
    let played = tokio::select! {
        () = play(&mut town, &mut table) => true,
        () = any(&mut signals) => false,
    };
    town.stop().await;
    if played { Ok(table.end(&mut town)) } else { Err("interrupted".into()) }
}

async fn play(town: &mut Town, table: &mut Table) {
    for step in steps::ALL {
        let observed = timeout(STEP, (step.run)(town)).await;
        table.row(step, observed.unwrap_or_else(|_| Err(format!("not done after {STEP:?}").into())));
    }
}

async fn any(signals: &mut [Signal; 2]) {
    let [interrupt, terminate] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
