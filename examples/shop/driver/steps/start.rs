//! The processes start, each with its own identity.

use tokio::time::Instant;

use super::{Observed, Step};
use crate::Error;
use crate::driver::town::{PROCESSES, Town};

pub(crate) const STEP: Step = Step {
    title: "five processes start, each with its own dev-CA identity and mesh.yaml",
    expected: "5 ready",
    run: |town| Box::pin(run(town)),
};

async fn run(town: &mut Town) -> Result<Observed, Error> {
    let start = Instant::now();
    for (name, _) in PROCESSES {
        town.start(name).await?;
    }
    Ok(Observed::expected(format!("5 ready in {:.1} s", start.elapsed().as_secs_f64())))
}
