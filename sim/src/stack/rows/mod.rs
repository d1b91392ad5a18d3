//! The promises that need bytes.

mod cancelled;
mod deadline;
mod determinism;
mod endpoint_dies;
mod herd;
mod streams;
mod tiers;

use super::Fault;
use crate::scorecard::{Control, Row, Seen};

/// Of each run its row, and the test that plays it in short.
macro_rules! table {
    ($($test:ident: $file:ident::$run:ident is $name:literal, $target:literal, without $without:literal;)*) => {
        fn table() -> Vec<Row> {
            vec![$(Row {
                name: $name,
                target: $target,
                mesh: |seed| seen($file::$run(seed, Arm::Mesh, Scale::FULL)),
                controls: const {
                    &[Control {
                        without: $without,
                        run: |seed| seen($file::$run(seed, Arm::Control, Scale::FULL)),
                    }]
                },
            }),*]
        }

        #[cfg(test)]
        mod tests {
            $(
                #[test]
                fn $test() {
                    super::holds(super::$file::$run);
                }
            )*

            #[test]
            fn a_seed_that_is_run_twice() {
                super::holds(super::determinism::twice);
            }
        }
    };
}

table! {
    an_endpoint_that_is_killed: endpoint_dies::killed is "kill-one-of-ten",
        "kill 1 of 10 at 2,000 rps (idempotent): 0 failed requests, out of rotation within 250 ms",
        without "retries and ejection";
    an_endpoint_that_goes_silent: endpoint_dies::silent is "black-hole-one-of-ten",
        "black-hole 1 of 10 at 2,000 rps (idempotent): 0 failed requests, out of rotation within 1 s",
        without "a timeout for each attempt, retries and ejection";
    a_herd_that_comes_back: herd::herd is "reconnect-herd",
        "1,000 clients whose server restarts: peak handshakes (per 100 ms) at most 3x the mean, all back within 15 s",
        without "jitter: all clients draw the same waits";
    a_deadline_that_passes: deadline::deadline is "deadline-five-hops",
        "deadline through 5 hops (500 ms): at most 1 % of work begun after expiry",
        without "the request's context in the tasks that do its work";
    streams_that_run_out: streams::streams is "stream-limit",
        "stream limit 10 with 200 in flight and 20 connections: at least 90 % of unlimited throughput",
        without "more than one connection";
    callers_who_leave: cancelled::cancelled is "cancelled",
        "50,000 requests with each seed, 10^6 with 20, 90 % cancelled: every counter and permit back to 0",
        without "the destructor of one caller in a hundred";
    three_tiers_that_try_again: tiers::amplification is "amplification-three-tiers-stack",
        "retry amplification at the leaf of three tiers, all of whose answers are 503: at most 1.15x",
        without "budgets, and the word that somebody below has retried already";
}

/// Every row, each with its control arm.
pub fn rows() -> Vec<Row> {
    table().into_iter().chain(determinism::rows()).collect()
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

/// Five seeds of a row and of its control arm, shortened.
#[cfg(test)]
fn holds(run: fn(u64, Arm, Scale) -> Result<Seen, Fault>) {
    for seed in 1..6 {
        let mesh = seen(run(seed, Arm::Mesh, Scale::SHORT));
        assert!(mesh.met, "seed {seed}: {}", mesh.text);
        let control = seen(run(seed, Arm::Control, Scale::SHORT));
        assert!(!control.met && control.badness.is_finite(), "control, seed {seed}: {}", control.text);
        println!("seed {seed}: {}; control: {}", mesh.text, control.text);
    }
}
