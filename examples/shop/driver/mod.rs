//! The driver: builds the town, plays the steps, prints the table.

mod layout;
mod process;
mod steps;
mod table;
mod tokens;
mod town;

use crate::Error;
use table::Table;
use town::Town;

/// True if every step came out as expected.
pub(crate) async fn run() -> Result<bool, Error> {
    let mut town = Town::build()?;
    let mut table = Table::begin();
    for step in steps::ALL {
        let observed = (step.run)(&mut town).await;
        table.row(step, observed);
    }
    town.stop().await;
    Ok(table.end(&mut town))
}
