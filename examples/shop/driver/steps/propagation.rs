//! Trace and deadline reach the last service, though no handler passes them on.

use std::time::Duration;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::Town;

pub(crate) const STEP: Step =
    Step { title: "9 one trace and one deadline go all the way", run: |town| Box::pin(run(town)) };

/// Shorter than every timeout of the routes on the way.
const DEADLINE: Duration = Duration::from_millis(1500);

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let web = town.caller("web").await?;
    let token = town.tokens.token("gateway")?;
    web.receipt(&token, Duration::from_secs(8)).await?; // connected, so that the deadline is not spent on that
    let receipt = web.receipt(&token, DEADLINE).await?;
    let way = &receipt.way;
    let trace = way.first().map(|seen| seen.trace_id.clone()).unwrap_or_default();
    let one = way.len() == 3 && !trace.is_empty() && way.iter().all(|seen| seen.trace_id == trace);
    observed.check("one trace id in three handlers", trace.clone(), one);

    let mut audited = Vec::new();
    let payments: &[&str] = &["payments-1", "payments-2", "payments-3"];
    for (service, processes) in [("gateway", &["gateway"][..]), ("orders", &["orders"][..]), ("payments", payments)] {
        if town.audited(processes, |record| record["trace_id"] == trace.as_str()).await.is_ok() {
            audited.push(service);
        }
    }
    observed.check("and in three audit files", audited.join(", "), audited.len() == 3);

    let left: Vec<u128> = way.iter().map(|seen| u128::from(seen.deadline_ms)).collect();
    let shrinks = left.iter().all(|ms| *ms > 0) && left.is_sorted_by(|before, after| before >= after);
    let within = left.first().is_some_and(|ms| *ms <= DEADLINE.as_millis());
    let seen: Vec<_> = way.iter().map(|seen| format!("{} {} ms", seen.service, seen.deadline_ms)).collect();
    observed.check("of 1500 ms, each has no more than the one before", seen.join(", "), shrinks && within);
    Ok(observed)
}
