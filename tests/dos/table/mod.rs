//! Plays every attack and prints a row for each.

mod process;
mod round;
mod row;
mod victim;

use std::fmt;

use crate::Error;
use crate::plan::{ATTACKS, Attack, Settings};
use round::{Force, Round, play, warm_up};
use row::Row;
use victim::{Victim, write_pki};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only attacks whose names hold this; may be repeated.
    #[arg(long)]
    attack: Vec<String>,
    /// Rounds of each attack.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of each half of a round.
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Rates and connections times this, for slow machines and builds.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Latencies are shown and not judged.
    #[arg(long)]
    no_latency: bool,
    /// Prints what every round came to.
    #[arg(long)]
    verbose: bool,
}

/// Whether every attack was borne.
pub(crate) async fn run(args: Args) -> Result<bool, Error> {
    let chosen = |attack: &&Attack| args.attack.is_empty() || args.attack.iter().any(|part| attack.name.contains(part));
    let attacks: Vec<_> = ATTACKS.iter().filter(chosen).collect();
    if attacks.is_empty() {
        let names: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        return Err(format!("no attack is called {:?}; there are: {}", args.attack, names.join(", ")).into());
    }
    println!("{}", Row::HEAD);
    let mut summary = Vec::new();
    for attack in attacks {
        // The others tell their part all the same.
        summary.push(outcome(attack, &args).await.unwrap_or_else(|error| {
            println!("| {} | {error} |", attack.name);
            Outcome { name: attack.name, latencies: "- | - | -".to_owned(), faults: vec![error.to_string()] }
        }));
    }
    println!("\n{}", Outcome::HEAD);
    summary.iter().for_each(|outcome| println!("{outcome}"));
    let borne = summary.iter().filter(|outcome| outcome.faults.is_empty()).count();
    println!("\n{borne} of {} attacks were borne.", summary.len());
    Ok(borne == summary.len())
}

/// One line of the summary.
struct Outcome {
    name: &'static str,
    latencies: String,
    faults: Vec<String>,
}

impl Outcome {
    const HEAD: &str = "| attack | calm ms p99 | attacked ms p99 | ratio | verdict |\n|---|---|---|---|---|";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.faults.is_empty() { "borne" } else { "NOT BORNE: " };
        write!(f, "| {} | {} | {verdict}{} |", self.name, self.latencies, self.faults.join("; "))
    }
}

/// Plays one attack, and its control, and prints their rows.
async fn outcome(attack: &'static Attack, args: &Args) -> Result<Outcome, Error> {
    let row = suffer(attack, attack.settings, args.rounds, args).await?;
    println!("{row}");
    let mut faults = row.faults();
    if let Some(lifted) = attack.lifted {
        let lifted = suffer(attack, lifted, 1, args).await?;
        let damage = lifted.damage(&row);
        println!("{}", lifted.without_limit(damage.as_deref()));
        if damage.is_none() {
            faults.push("no damage without the limit".to_owned());
        }
    }
    Ok(Outcome { name: attack.name, latencies: row.p99s(), faults })
}

async fn suffer(attack: &'static Attack, settings: Settings, rounds: u16, args: &Args) -> Result<Row, Error> {
    let dir = tempfile::tempdir()?;
    write_pki(dir.path())?;
    // Files are counted, whatever the machine.
    let scale = if attack.files.is_some() { 1.0 } else { args.scale };
    let scaled = |n: u32| (f64::from(n) * scale).ceil() as u32;
    let force = Force {
        kind: attack.kind,
        rate: scaled(attack.rate),
        connections: scaled(attack.connections),
        secs: args.secs,
    };
    let mut victim = Victim::start(dir.path(), settings, attack.files).await.map_err(|error| {
        let log = std::fs::read_to_string(dir.path().join("victim.log")).unwrap_or_default();
        format!("{error}\n{log}")
    })?;
    let mut row = Row::new(attack, force, !args.no_latency);
    warm_up(dir.path(), &victim, force).await?;
    for number in 1..=rounds {
        let round = play(dir.path(), &mut victim, force).await.map_err(|error| format!("round {number}: {error}"))?;
        if args.verbose {
            eprintln!("{} {number}: {round:#?}", attack.name);
        }
        row.add(round);
    }
    Ok(row)
}

/// The middle of what there is, the lower one of two; NaN of nothing.
fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<_> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
