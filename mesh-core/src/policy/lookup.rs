//! Values under patterns of strings, found at a cost that hardly grows with their number.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::pattern::Pattern;

/// What stands under exact strings, prefixes and suffixes.
///
/// An exact string costs one hash. Prefixes that one string has lie in each other: the longest is found by bisection,
/// and each knows the next shorter one. The same, from behind, holds of suffixes.
#[derive(Debug)]
pub(super) struct Lookup<T> {
    exact: Map<T>,
    prefixes: Affixes<T>,
    suffixes: Affixes<T>,
}

/// The keys come from policies: nobody else can make them collide.
type Map<T> = HashMap<Arc<str>, T, RandomState>;

#[derive(Debug)]
struct Affixes<T> {
    /// While they are added.
    added: Map<T>,
    /// Ascending, suffixes read from behind.
    sorted: Vec<Affix<T>>,
}

#[derive(Debug)]
struct Affix<T> {
    text: Arc<str>,
    /// The longest one that it has itself.
    within: Option<usize>,
    value: T,
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self { exact: Map::default(), prefixes: Affixes::default(), suffixes: Affixes::default() }
    }
}

impl<T> Default for Affixes<T> {
    fn default() -> Self {
        Self { added: Map::default(), sorted: Vec::new() }
    }
}

impl<T> Lookup<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.sorted.is_empty() && self.suffixes.sorted.is_empty()
    }

    /// The value under a pattern, made if there is none. `None` for `*`, which cannot be looked up.
    pub(super) fn entry(&mut self, pattern: &Pattern, make: impl FnOnce() -> T) -> Option<&mut T> {
        let (map, text) = match pattern {
            Pattern::Exact(text) => (&mut self.exact, text),
            Pattern::Prefix(text) => (&mut self.prefixes.added, text),
            Pattern::Suffix(text) => (&mut self.suffixes.added, text),
            Pattern::Present => return None,
        };
        Some(map.entry(Arc::clone(text)).or_insert_with(make))
    }

    /// After the last [`entry`](Self::entry): nothing is found before.
    pub(super) fn finish(&mut self) {
        self.prefixes.finish(|text| text.as_bytes().to_vec());
        self.suffixes.finish(|text| text.bytes().rev().collect());
    }

    /// Calls `found` with what stands under each pattern that matches `value`.
    pub(super) fn each<'a>(&'a self, value: &str, mut found: impl FnMut(&'a T)) {
        if !self.exact.is_empty()
            && let Some(exact) = self.exact.get(value)
        {
            found(exact);
        }
        self.prefixes.each(
            |affix| affix.as_bytes() <= value.as_bytes(),
            |affix| value.as_bytes().starts_with(affix.as_bytes()),
            &mut found,
        );
        self.suffixes.each(
            |affix| affix.bytes().rev().le(value.bytes().rev()),
            |affix| value.as_bytes().ends_with(affix.as_bytes()),
            &mut found,
        );
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let affixes = self.prefixes.sorted.iter().chain(&self.suffixes.sorted);
        self.exact.values().chain(affixes.map(|affix| &affix.value))
    }
}

impl<T> Affixes<T> {
    fn finish(&mut self, order: impl Fn(&str) -> Vec<u8>) {
        let mut all: Vec<(Vec<u8>, Arc<str>, T)> =
            std::mem::take(&mut self.added).into_iter().map(|(text, value)| (order(&text), text, value)).collect();
        all.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        // Those that the last one lies in, the shortest first.
        let mut around: Vec<(usize, Vec<u8>)> = Vec::new();
        for (at, (ordered, text, value)) in all.into_iter().enumerate() {
            while around.last().is_some_and(|(_, outer)| !ordered.starts_with(outer)) {
                around.pop();
            }
            self.sorted.push(Affix { text, within: around.last().map(|(outer, _)| *outer), value });
            around.push((at, ordered));
        }
    }

    /// `before` says whether an affix is not behind the value; `fits`, whether the value has it.
    fn each<'a>(&'a self, before: impl Fn(&str) -> bool, fits: impl Fn(&str) -> bool, found: &mut impl FnMut(&'a T)) {
        let mut at = self.sorted.partition_point(|affix| before(&affix.text)).checked_sub(1);
        // The value's own affixes are all around the last one before it.
        while let Some(affix) = at.and_then(|at| self.sorted.get(at)) {
            if fits(&affix.text) {
                found(&affix.value);
            }
            at = affix.within;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_finds_what_looking_at_every_pattern_finds() {
        let rng = Rng::seeded(3);
        let text = || -> String { (0..=rng.below(5)).map(|_| ['a', 'b', '/', 'é'][rng.below(4)]).collect() };
        let mut found = 0;
        for size in [1, 4, 40, 200] {
            for _ in 0..50 {
                let patterns: Vec<Pattern> = (0..size)
                    .map(|_| match rng.below(3) {
                        0 => Pattern::Exact(text().into()),
                        1 => Pattern::Prefix(text().into()),
                        _ => Pattern::Suffix(text().into()),
                    })
                    .collect();
                let mut lookup = Lookup::default();
                for pattern in &patterns {
                    *lookup.entry(pattern, String::new).unwrap() = pattern.to_string();
                }
                lookup.finish();
                assert!(!lookup.is_empty());
                for _ in 0..50 {
                    let value = text();
                    let mut seen = Vec::new();
                    lookup.each(&value, |pattern| seen.push(pattern.clone()));
                    let fits = |pattern: &&Pattern| pattern.matches(value.as_bytes());
                    let mut naive: Vec<String> = patterns.iter().filter(fits).map(ToString::to_string).collect();
                    seen.sort();
                    naive.sort();
                    naive.dedup();
                    assert_eq!(seen, naive, "{value} in {patterns:?}");
                    found += seen.len();
                }
            }
        }
        assert!(found > 1_000, "{found}");
    }
}
