//! Reads how many tests ran out of what cargo-nextest and rustdoc print.

use crate::run::Counts;

/// From nextest's `Summary [ 1.0s] 5 tests run: 4 passed (1 slow), 1 failed, 0 skipped`.
///
/// Whatever ran and did not pass (failed, timed out, could not start) counts as failed. Without a summary nothing ran:
/// one failure.
pub(crate) fn nextest(output: &str, success: bool) -> Counts {
    let summary = output.lines().rev().find_map(|line| line.trim_start().strip_prefix("Summary "));
    let Some((before, after)) = summary.and_then(|line| line.split_once(" run: ")) else {
        return none(success, "no summary");
    };
    let run = before.rsplit(']').next().and_then(first_number).unwrap_or_default();
    let passed = part(after, "passed");
    let skipped = part(after, "skipped");
    let note = if skipped == 0 { String::new() } else { format!("{skipped} skipped") };
    settle(passed, run.saturating_sub(passed), note, success)
}

/// From every `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
pub(crate) fn rustdoc(output: &str, success: bool) -> Counts {
    let results: Vec<&str> = output.lines().filter(|line| line.starts_with("test result:")).collect();
    let sum = |word| results.iter().map(|line| part(line, word)).sum::<usize>();
    if results.is_empty() {
        return none(success, "no documentation tests");
    }
    let ignored = sum("ignored");
    let note = if ignored == 0 { String::new() } else { format!("{ignored} ignored") };
    settle(sum("passed"), sum("failed"), note, success)
}

fn none(success: bool, note: &str) -> Counts {
    Counts { passed: 0, failed: usize::from(!success), note: note.to_owned() }
}

/// A command that failed without a failed test (it did not compile, it crashed) is a failure all the same.
fn settle(passed: usize, failed: usize, note: String, success: bool) -> Counts {
    Counts { passed, failed: if success { failed } else { failed.max(1) }, note }
}

/// The number right before `word`.
fn part(text: &str, word: &str) -> usize {
    let mut previous = "";
    for token in text.split([' ', ',', ';', '(', ')']).filter(|token| !token.is_empty()) {
        if token == word {
            return previous.parse().unwrap_or_default();
        }
        previous = token;
    }
    0
}

fn first_number(text: &str) -> Option<usize> {
    text.split_whitespace().find_map(|token| token.split('/').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, note: &str) -> Counts {
        Counts { passed, failed, note: note.to_owned() }
    }

    #[test]
    fn nextest_summaries() {
        let table = [
            ("     Summary [   0.010s] 3 tests run: 3 passed, 0 skipped", true, counts(3, 0, "")),
            ("Summary [ 1.0s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped", false, counts(4, 1, "2 skipped")),
            ("Summary [ 1.0s] 5 tests run: 2 passed, 1 failed, 1 exec failed, 1 timed out", false, counts(2, 3, "")),
            ("Summary [ 1.0s] 5/9 tests run: 4 passed, 1 failed, 0 skipped", false, counts(4, 1, "")),
            ("Summary [ 1.0s] 1 test run: 1 passed, 0 skipped", false, counts(1, 1, "")),
            ("error: could not compile", false, counts(0, 1, "no summary")),
        ];
        for (text, success, expected) in table {
            assert_eq!(nextest(text, success), expected, "{text}");
        }
    }

    #[test]
    fn rustdoc_results_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(rustdoc(text, false), counts(4, 2, "1 ignored"));
        assert_eq!(rustdoc("error: broken", false), counts(0, 1, "no documentation tests"));
    }
}
