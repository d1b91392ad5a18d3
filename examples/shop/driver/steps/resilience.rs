//! One `payments` dies, later another freezes; nobody who orders notices.

use std::time::Duration;

use tokio::time::sleep;

use super::{Observed, Step};
use crate::Error;
use crate::driver::load::Load;
use crate::driver::town::{PROCESSES, Town};
use crate::driver::wait::until;
use crate::role::Role;

pub(crate) const STEP: Step =
    Step { title: "5 under load one payments is killed, then another is frozen", run: |town| Box::pin(run(town)) };

/// How long anything may take before it counts as never.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the others go on without the one that is out.
const ALONE: Duration = Duration::from_millis(1000);
/// Orders that show that the load runs.
const RUNNING: usize = 100;

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    let web = town.caller("web").await?;
    let load = Load::start(&web, &town.tokens.token("gateway")?);
    load.goes_on(RUNNING).await?;

    let killed = busiest(town, &load, None).await?;
    until_all_in(town).await?;
    town.process_mut(killed)?.kill().await?;
    let out = until_out(town).await?;
    observed.check("killed: it is out", format!("{killed} is out after {}", ms(out)), true);
    sleep(ALONE).await;
    town.start(killed).await?;
    let back = until_back(town, killed).await?;
    observed.check("restarted: it is back", format!("{killed} takes charges {} after it is ready", ms(back)), true);
    load.goes_on(RUNNING).await?;

    let frozen = busiest(town, &load, Some(killed)).await?;
    until_all_in(town).await?;
    town.process(frozen)?.freeze().await?;
    let out = until_out(town).await;
    if out.is_ok() {
        sleep(ALONE).await;
    }
    town.process(frozen)?.thaw().await?;
    observed.check("frozen: it is out", format!("{frozen} is out after {}", ms(out?)), true);
    let back = until_back(town, frozen).await?;
    observed.check("thawed: it is back", format!("{frozen} takes charges after {}", ms(back)), true);
    load.goes_on(RUNNING).await?;

    let tally = load.end().await?;
    observed.check("0 failed requests", tally.text(), tally.failed.is_empty());
    let charged = tally.paid.iter().filter(|order| town.layout.charged(**order)).count();
    let seen = format!("{} paid, {charged} in the ledger", tally.paid.len());
    observed.check("every paid order is in the ledger", seen, charged == tally.paid.len());
    Ok(observed)
}

/// The `payments` that takes the most charges now: the one that is missed most.
async fn busiest(town: &Town, load: &Load, except: Option<&str>) -> Result<&'static str, Error> {
    let names: Vec<_> = PROCESSES.iter().filter(|(_, role)| *role == Role::Payments).map(|(name, _)| *name).collect();
    let mut counts = Vec::new();
    for name in &names {
        counts.push(charges(town, name).await?);
    }
    load.goes_on(RUNNING).await?;
    let mut busiest = (f64::MIN, "");
    for (name, before) in names.into_iter().zip(counts) {
        let taken = charges(town, name).await? - before;
        if except != Some(name) && taken > busiest.0 {
            busiest = (taken, name);
        }
    }
    Ok(busiest.1)
}

/// Charges that a process has answered since it started.
async fn charges(town: &Town, name: &str) -> Result<f64, Error> {
    town.process(name)?.metric("mesh_server_request_duration_seconds_count", &["Charge"]).await
}

/// Endpoints of `payments` that `orders` does not send anything to: ejected, or known to be unreachable.
async fn out(town: &Town) -> Result<f64, Error> {
    let count =
        async |state| town.process("orders")?.metric("mesh_client_endpoints", &["cluster=\"payments\"", state]).await;
    Ok(count("state=\"ejected\"").await? + count("state=\"unready\"").await?)
}

async fn until_all_in(town: &Town) -> Result<(), Error> {
    until("all endpoints to be in", LIMIT, async || Ok((out(town).await? == 0.0).then_some(()))).await.map(drop)
}

async fn until_out(town: &Town) -> Result<Duration, Error> {
    let (_, took) = until("an endpoint to be out", LIMIT, async || Ok((out(town).await? > 0.0).then_some(()))).await?;
    Ok(took)
}

/// Waits until nobody is out, and the process has taken a request since.
async fn until_back(town: &Town, name: &str) -> Result<Duration, Error> {
    let mut since = None;
    let back = async || {
        if out(town).await? > 0.0 {
            since = None;
            return Ok(None);
        }
        let taken = charges(town, name).await?;
        Ok((taken > *since.get_or_insert(taken)).then_some(()))
    };
    Ok(until("the endpoint to be back", LIMIT, back).await?.1)
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
