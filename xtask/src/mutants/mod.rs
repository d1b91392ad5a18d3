//! Would the tests notice? Changes the code in small ways, a sample of them, and counts how many changes some test catches.
//!
//! What can be changed is `cargo mutants`' list: functions that return something else, operators that are others, match
//! arms and guards that are gone. A build for each change would take an hour of a small machine, so all of the sample go
//! into one build, each behind a switch ([`rewrite`]). One run of every test then tells which tests reach which change, and
//! each change is tried against those, cheapest first, until one fails ([`trial`]).
//!
//! Counted are the tests of the changed package alone, those of packages above it not. A change that ends in a hang or
//! takes more than its share of memory was noticed. One that does not compile counts on neither side.

mod build;
mod list;
mod rewrite;
mod trial;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use build::Tree;
use list::Mutant;
use trial::Outcome;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which sample: the same seed, the same changes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many changes.
    #[arg(long, default_value_t = 160)]
    sample: usize,
    /// Only those that the last run missed.
    #[arg(long)]
    again: bool,
    /// Files or directories, from the workspace root.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

/// Prints what became of each change and, last, the rate.
pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let mut tree = Tree::new(root);
    let all = list::mutants(root, &options.paths)?;
    let total = all.len();
    let mut sample = list::sample(all, options.seed, options.sample);
    let last = tree.path("missed.txt");
    if options.again {
        let missed = fs::read_to_string(&last).map_err(|e| format!("cannot read {}: {e}", last.display()))?;
        sample.retain(|mutant| missed.lines().any(|name| name == mutant.name));
    }
    println!("{} of {total} changes, seed {}", sample.len(), options.seed);
    let (suite, left_out) = tree.build(&sample)?;
    let reach = suite.reach()?;
    println!("{} tests; {} changes are tried in builds of their own", reach.tests(), left_out.doubtful.len());
    let mut score = Score::default();
    for (number, mutant) in sample.iter().enumerate().filter(|(number, _)| !left_out.contains(*number)) {
        score.add(mutant, suite.try_one(number, &reach)?);
    }
    let of = |numbers: &BTreeSet<usize>| numbers.iter().filter_map(|number| sample.get(*number)).collect::<Vec<_>>();
    of(&left_out.wrong).into_iter().for_each(|mutant| score.does_not_compile(mutant));
    for mutant in of(&left_out.doubtful) {
        match tree.build_alone(&sample, mutant)? {
            Some(suite) => score.add(mutant, suite.try_one(0, &reach.everything(0))?),
            None => score.does_not_compile(mutant),
        }
    }
    fs::write(&last, score.missed.join("\n")).map_err(|e| format!("cannot write {}: {e}", last.display()))?;
    println!("\nmissed:\n{}\n\nseed {}: {}", score.missed.join("\n"), options.seed, score.summary());
    Ok(())
}

#[derive(Debug, Default)]
struct Score {
    caught: usize,
    hung: usize,
    missed: Vec<String>,
    uncompiled: usize,
}

impl Score {
    fn add(&mut self, mutant: &Mutant, outcome: Outcome) {
        println!("{outcome}  {}", mutant.name);
        match outcome {
            Outcome::Caught(_) => self.caught += 1,
            Outcome::Hung => self.hung += 1,
            Outcome::Missed | Outcome::Unreached => self.missed.push(mutant.name.clone()),
        }
    }

    fn does_not_compile(&mut self, mutant: &Mutant) {
        println!("does not compile  {}", mutant.name);
        self.uncompiled += 1;
    }

    fn summary(&self) -> String {
        let (hung, uncompiled) = (self.hung, self.uncompiled);
        let noticed = self.caught + hung;
        let tried = noticed + self.missed.len();
        let rate = 100.0 * noticed as f64 / tried.max(1) as f64;
        format!("{noticed} of {tried} caught ({rate:.1} %), {hung} of them by hanging; {uncompiled} do not compile")
    }
}
