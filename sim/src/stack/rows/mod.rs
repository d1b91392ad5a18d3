//! The promises that need bytes.

mod cancelled;
mod deadline;
mod determinism;
mod endpoint_dies;
mod herd;
mod streams;
mod tiers;

use super::Fault;
use crate::scorecard::{Row, Seen};

/// Every row, each with its control arm.
pub fn rows() -> Vec<Row> {
    [
        endpoint_dies::rows(),
        herd::rows(),
        deadline::rows(),
        streams::rows(),
        cancelled::rows(),
        tiers::rows(),
        determinism::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How much of a run is done: all of it, or as little as a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale {
    short: bool,
}

impl Scale {
    const FULL: Self = Self { short: false };
    #[cfg(test)]
    const SHORT: Self = Self { short: true };

    /// One of two.
    fn pick<T>(self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }
}

/// With what is promised to help, or without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Mesh,
    Control,
}

/// A run that could not be carried out has not shown what it was to show.
fn seen(run: Result<Seen, Fault>) -> Seen {
    run.unwrap_or_else(|fault| Seen { met: false, text: format!("broken off: {fault}"), badness: f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five seeds of a row and of its control arm, shortened.
    fn holds(run: fn(u64, Arm, Scale) -> Result<Seen, Fault>) {
        let first = 1;
        for seed in first..first + 5 {
            let mesh = seen(run(seed, Arm::Mesh, Scale::SHORT));
            assert!(mesh.met, "seed {seed}: {}", mesh.text);
            let control = seen(run(seed, Arm::Control, Scale::SHORT));
            assert!(!control.met && control.badness.is_finite(), "control, seed {seed}: {}", control.text);
            println!("seed {seed}: {}; control: {}", mesh.text, control.text);
        }
    }

    #[test]
    fn an_endpoint_that_is_killed() {
        holds(endpoint_dies::killed);
    }

    #[test]
    fn an_endpoint_that_goes_silent() {
        holds(endpoint_dies::silent);
    }

    #[test]
    fn a_herd_that_comes_back() {
        holds(herd::herd);
    }

    #[test]
    fn streams_that_run_out() {
        holds(streams::streams);
    }

    #[test]
    fn a_deadline_that_passes() {
        holds(deadline::deadline);
    }

    #[test]
    fn callers_who_leave() {
        holds(cancelled::cancelled);
    }

    #[test]
    fn three_tiers_that_try_again() {
        holds(tiers::amplification);
    }

    #[test]
    fn a_seed_that_is_run_twice() {
        holds(determinism::twice);
    }
}
