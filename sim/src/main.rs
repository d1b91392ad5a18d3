//! `mesh-sim`: what `cargo xtask sim` and `cargo xtask scorecard` run.
#![allow(clippy::print_stdout)] // a command line tool speaks on stdout

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mesh_sim::model::{self, Scenario};
use mesh_sim::scorecard;

#[derive(Parser)]
#[command(name = "mesh-sim", about = "Rehearses a configuration in virtual time; proves what reliability rests on")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plays a scenario and prints what became of its requests; see docs/simulation.md.
    Sim {
        /// The scenario, in YAML.
        scenario: PathBuf,
        /// In the place of the scenario's own seed.
        #[arg(long)]
        seed: Option<u64>,
        /// One JSON object in the place of the page.
        #[arg(long)]
        json: bool,
    },
    /// Runs every row, and its control arm, which has to fail; succeeds only if all did what they had to.
    Scorecard {
        /// Seeds of each row.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first seed; the others follow it.
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Only these rows; may be repeated.
        #[arg(long, value_name = "ROW")]
        only: Vec<String>,
        /// One JSON object in the place of the table.
        #[arg(long)]
        json: bool,
        /// Names the rows and stops.
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Sim { scenario, seed, json } => match Scenario::load(&scenario) {
            Ok(scenario) => {
                let report = model::run(&scenario, seed.unwrap_or(scenario.seed));
                if json {
                    println!("{:#}", model::to_json(&report));
                } else {
                    print!("{}", model::to_text(&report));
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        },
        Task::Scorecard { seeds, first_seed, only, json, list } => {
            let rows = match scorecard::chosen(rows(), &only) {
                Ok(rows) => rows,
                Err(message) => {
                    eprintln!("error: {message}");
                    return ExitCode::from(2);
                }
            };
            if list {
                rows.iter().for_each(|row| println!("{}", row.name));
                return ExitCode::SUCCESS;
            }
            let all = first_seed..first_seed.saturating_add(seeds);
            let verdicts = scorecard::play(&rows, all, |verdict| {
                if !json {
                    print!("{}", scorecard::to_text(verdict));
                }
            });
            if json {
                println!("{:#}", scorecard::to_json(&verdicts));
            } else {
                println!("{}", scorecard::summary(&verdicts));
            }
            if verdicts.iter().all(scorecard::Verdict::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// Those of both tiers.
fn rows() -> Vec<scorecard::Row> {
    let rows = scorecard::rows();
    #[cfg(feature = "stack")]
    let rows = [rows, mesh_sim::stack::rows()].concat();
    rows
}
