//! What must hold under failure, each beside a control arm that must not.
//!
//! A promise that no test can break proves nothing: so each row is run a second time without what is meant to help, or
//! with stock tower in its place, and has to miss its target then. Every figure can be replayed from its seed.

mod discovery;
mod play;
mod rows;
mod show;

pub use play::{Arm, Verdict, chosen, play};
pub use show::{summary, to_json, to_text};

/// One promise.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Short, in lower case with hyphens: what `--only` takes.
    pub name: &'static str,
    /// What has to be seen, with units.
    pub target: &'static str,
    /// The mesh as it is shipped, once, with this seed.
    pub mesh: fn(seed: u64) -> Seen,
    /// Each has to miss the target; at least one.
    pub controls: &'static [Control],
}

/// A control arm: the same without what is meant to help.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// What it leaves out, or what stands in its place.
    pub without: &'static str,
    /// Once, with this seed. Where it is known how it fails, and it fails otherwise, what was seen counts as met.
    pub run: fn(seed: u64) -> Seen,
}

/// What one run showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Whether the target was met.
    pub met: bool,
    /// The figures that the target names, as a person reads them.
    pub text: String,
    /// How bad it was, in the target's own unit: of many seeds the worst one is shown.
    pub badness: f64,
}

/// All rows.
pub fn rows() -> Vec<Row> {
    rows::rows().into_iter().chain(discovery::rows()).collect()
}
