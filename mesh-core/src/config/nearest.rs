//! The name that a misspelt one was meant to be.

/// The candidate nearest to `name`, if it is near enough to be what was meant.
///
/// Near: at most one edit for every three characters, transposed neighbours counting as one edit.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let longest = name.chars().count();
    if longest > 64 {
        return None; // quadratic, and nobody's typing error
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count() <= 64)
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| *edits <= longest.max(candidate.chars().count()).div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or the whole list where nothing is near.
pub fn suggestion<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str> + Clone) -> String {
    match nearest(name, candidates.clone()) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => {
            let known: Vec<_> = candidates.into_iter().take(32).collect();
            if known.is_empty() { String::new() } else { format!("; known: {}", known.join(", ")) }
        }
    }
}

/// Optimal string alignment: insertions, deletions, substitutions and transpositions of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut edits = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let transposed = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if transposed {
                edits = edits.min(at(&before_last, j - 1) + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised_and_other_words_are_not() {
        let known = ["timeout", "retry", "cluster", "per_try_timeout", "dns"];
        for (typed, meant) in [
            ("timeuot", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("clusters", Some("cluster")),
            ("retries", Some("retry")),
            ("dsn", Some("dns")),
            ("per_try_timout", Some("per_try_timeout")),
            ("headers", None),
            ("", None),
            (&"x".repeat(100), None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
