//! The processes start, each with its own identity.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::{PROCESSES, Town};

pub(crate) const STEP: Step = Step {
    title: "0 each process starts with its own dev-CA identity and its own mesh.yaml",
    run: |town| Box::pin(run(town)),
};

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let start = Instant::now();
    let mut pids = BTreeSet::new();
    for (name, _) in PROCESSES {
        town.start(name).await?;
        pids.insert(town.process(name)?.at.pid);
    }
    let mut observed = Observed::default();
    let seen = format!("{} ready in {:.1} s", pids.len(), start.elapsed().as_secs_f64());
    observed.check("5 processes are ready", seen, pids.len() == PROCESSES.len());
    Ok(observed)
}
