//! `mesh-sim`: what `cargo xtask sim` and `cargo xtask scorecard` run.

fn main() {}
