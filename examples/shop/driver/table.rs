//! The table of *step, expected, seen*.
#![allow(clippy::print_stdout)] // what the program is for

use tokio::time::Instant;

use super::steps::{Observed, Step};
use super::town::Town;
use crate::Error;

const STEP: usize = 30;
const EXPECTED: usize = 34;
const SEEN: usize = 50;

/// Prints each step as soon as it is known.
#[derive(Debug)]
pub(crate) struct Table {
    rows: usize,
    differing: usize,
    start: Instant,
}

impl Table {
    pub(crate) fn begin() -> Self {
        line("", "step", "expected", "seen");
        Self { rows: 0, differing: 0, start: Instant::now() }
    }

    /// One step with all its checks; `ok` or `!!` stands in front.
    pub(crate) fn row(&mut self, step: &Step, observed: Result<Observed, Error>) {
        let observed = observed.unwrap_or_else(|error| {
            let mut observed = Observed::default();
            observed.check("the step can be played", format!("error: {error}"), false);
            observed
        });
        self.rows += 1;
        self.differing += usize::from(!observed.as_expected());
        line("--", &"-".repeat(STEP), &"-".repeat(EXPECTED), &"-".repeat(SEEN));
        let mark = if observed.as_expected() { "ok" } else { "!!" };
        let mut title = wrap(step.title, STEP).into_iter();
        let mut first = true;
        for check in observed.checks() {
            let seen = if check.as_expected { check.seen.clone() } else { format!("DIFFERS: {}", check.seen) };
            let (expected, seen) = (wrap(check.expected, EXPECTED), wrap(&seen, SEEN));
            for at in 0..expected.len().max(seen.len()) {
                let cell = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
                let mark = if std::mem::take(&mut first) { mark } else { "" };
                line(mark, &title.next().unwrap_or_default(), &cell(&expected), &cell(&seen));
            }
        }
        title.for_each(|rest| line("", &rest, "", ""));
    }

    /// The last words; true if nothing differed.
    pub(crate) fn end(self, town: &mut Town) -> bool {
        let seconds = self.start.elapsed().as_secs_f64();
        println!("\n{} steps, {} differ, {seconds:.1} s", self.rows, self.differing);
        if self.differing > 0 {
            town.layout.keep();
            println!("logs, audit and configuration are kept in {}", town.layout.root().display());
        }
        self.differing == 0 && self.rows > 0
    }
}

fn line(mark: &str, step: &str, expected: &str, seen: &str) {
    println!("{}", format!("{mark:<2} {step:<STEP$}  {expected:<EXPECTED$}  {seen}").trim_end());
}

/// Breaks at spaces; a word that is too long keeps a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(last) = lines.last_mut() else { break };
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_spaces_only() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("spiffe://shop.example/ns/shop x", 5), ["spiffe://shop.example/ns/shop", "x"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
