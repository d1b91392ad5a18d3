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
    /// Fails where fewer are caught, in percent of those that were tried; none at all is 0.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_rate: Option<f64>,
    /// Files or directories, from the workspace root.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "expected a number from 0 to 100, for example 90".to_owned())
}

/// Prints what became of each change and, last, the rate. An error where that is below the least one that was asked for.
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
    score.suffices(options.min_rate)
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

    fn noticed(&self) -> usize {
        self.caught + self.hung
    }

    fn tried(&self) -> usize {
        self.noticed() + self.missed.len()
    }

    /// In percent; 0 where nothing was tried.
    fn rate(&self) -> f64 {
        100.0 * self.noticed() as f64 / self.tried().max(1) as f64
    }

    fn suffices(&self, min_rate: Option<f64>) -> Result<(), String> {
        match min_rate.filter(|least| self.rate() < *least) {
            None => Ok(()),
            Some(least) => Err(format!("{:.1} % caught, and --min-rate wants at least {least} %", self.rate())),
        }
    }

    fn summary(&self) -> String {
        let (hung, uncompiled) = (self.hung, self.uncompiled);
        let (noticed, tried, rate) = (self.noticed(), self.tried(), self.rate());
        format!("{noticed} of {tried} caught ({rate:.1} %), {hung} of them by hanging; {uncompiled} do not compile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_against_the_least_one() {
        let missed = |count: usize| vec!["m".to_owned(); count];
        for (caught, hung, missed, least, enough) in [
            (8, 1, missed(1), None, true),
            (8, 1, missed(1), Some(90.0), true),
            (8, 1, missed(1), Some(90.1), false),
            (0, 0, missed(0), Some(0.0), true),
            (0, 0, missed(0), Some(1.0), false),
        ] {
            let score = Score { caught, hung, missed, uncompiled: 7 };
            assert_eq!(score.suffices(least).is_ok(), enough, "{score:?} {least:?}");
        }
        for (text, expected) in
            [("0", Some(0.0)), ("92.5", Some(92.5)), ("100.1", None), ("-1", None), ("NaN", None), ("", None)]
        {
            assert_eq!(percent(text).ok(), expected, "{text}");
        }
    }
}
