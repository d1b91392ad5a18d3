//! How a policy writes a set of strings: exact, `abc*`, `*abc`, or `*` for "anything but nothing".
//!
//! Nothing here becomes a regular expression: a pattern that does was how `*x` once matched what it should not
//! (CVE-2020-16844), and how a dot in a name became "any character" (CVE-2026-39350).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Mode;

/// One string pattern of a policy, by Istio's rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The whole value.
    Exact(Arc<str>),
    /// `abc*`: the value begins with this.
    Prefix(Arc<str>),
    /// `*abc`: the value ends with this.
    Suffix(Arc<str>),
    /// `*`: the value is there and not empty.
    Present,
}

impl Pattern {
    /// Reads a pattern; a `*` may stand only at one end.
    ///
    /// Istio takes a `*` elsewhere for a literal star. Whoever writes `*abc*` means something else, so it is refused.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (pattern, fixed) = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            _ if text.is_empty() => return Err(PatternError::Empty),
            _ if text == "*" => return Ok(Self::Present),
            (Some(prefix), _) => (Self::Prefix(prefix.into()), prefix),
            (None, Some(suffix)) => (Self::Suffix(suffix.into()), suffix),
            (None, None) => (Self::Exact(text.into()), text),
        };
        if fixed.contains('*') { Err(PatternError::Star(text.to_owned())) } else { Ok(pattern) }
    }

    /// Reads a pattern as `mode` does.
    ///
    /// [`Compat`](Mode::Compat) takes a `*` elsewhere for a literal star, as Istio does.
    pub fn parse_as(mode: Mode, text: &str) -> Result<Self, PatternError> {
        if mode == Mode::Strict {
            return Self::parse(text);
        }
        Ok(match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text.is_empty() => return Err(PatternError::Empty),
            (Some(""), _) => Self::Present,
            (Some(suffix), _) => Self::Suffix(suffix.into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => Self::Exact(text.into()),
        })
    }

    /// Whether `value` is in the set. An empty value is in none.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => value.ends_with(suffix.as_bytes()),
            Self::Present => !value.is_empty(),
        }
    }

    /// As [`matches`](Self::matches), where ASCII letters differ by nothing: hosts.
    pub fn matches_ignoring_case(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Self::Prefix(prefix) => {
                value.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::Suffix(suffix) => value
                .len()
                .checked_sub(suffix.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes())),
            Self::Present => !value.is_empty(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Present => f.write_str("*"),
        }
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing was given.
    #[error("an empty value matches nothing; write a value or `*` (anything but empty)")]
    Empty,
    /// A star neither at the start nor at the end, or two of them.
    #[error("`{0}`: `*` is understood once, at the start or at the end; write one value for each form instead")]
    Star(String),
}

/// Many patterns, matched at a cost that does not grow with the exact ones.
#[derive(Debug, Default)]
pub(super) struct PatternSet {
    /// Exact values, once there are too many of them to look at one by one. Policies alone choose them: nobody else can
    /// make them collide.
    exact: HashSet<Arc<str>, RandomState>,
    others: Box<[Pattern]>,
}

impl PatternSet {
    /// Comparing so many short strings costs less than hashing one.
    const LINEAR: usize = 8;

    pub(super) fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let all: Vec<Pattern> = patterns.into_iter().collect();
        if all.len() <= Self::LINEAR {
            return Self { exact: HashSet::default(), others: all.into() };
        }
        let mut exact = HashSet::default();
        let others = all
            .into_iter()
            .filter_map(|pattern| match pattern {
                Pattern::Exact(text) => {
                    exact.insert(text);
                    None
                }
                other => Some(other),
            })
            .collect();
        Self { exact, others }
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        self.others.iter().any(|pattern| pattern.matches(value.as_bytes())) || self.exact.contains(value)
    }

    pub(super) fn matches_bytes(&self, value: &[u8]) -> bool {
        self.others.iter().any(|pattern| pattern.matches(value))
            || (!self.exact.is_empty() && std::str::from_utf8(value).is_ok_and(|text| self.exact.contains(text)))
    }

    /// Every pattern, in no order.
    pub(super) fn patterns(&self) -> impl Iterator<Item = Pattern> {
        self.others.iter().cloned().chain(self.exact.iter().cloned().map(Pattern::Exact))
    }
}

impl fmt::Display for PatternSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = self.others.iter().map(ToString::to_string).collect();
        all.extend(self.exact.iter().map(ToString::to_string));
        all.sort_unstable();
        write_list(f, &all)
    }
}

/// At most a line of a list; a policy may name ten thousand callers.
pub(super) fn write_list(f: &mut fmt::Formatter<'_>, all: &[String]) -> fmt::Result {
    const SHOWN: usize = 5;
    let shown: Vec<String> = all.iter().take(SHOWN).map(|item| format!("`{item}`")).collect();
    f.write_str(&shown.join(", "))?;
    match all.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_match_as_istio_says() {
        for (pattern, value, expected) in [
            ("abc", "abc", true),
            ("abc", "ABC", false),
            ("abc", "abcd", false),
            ("abc*", "abc", true),
            ("abc*", "abcd", true),
            ("abc*", "xabc", false),
            ("*abc", "xabc", true),
            ("*abc", "abc", true),
            ("*abc", "abcx", false),
            ("*", "x", true),
            ("*", "", false),
            // Metacharacters are letters like any other.
            ("a.c", "abc", false),
            ("a.c", "a.c", true),
            ("*.b", "xab", false),
            ("a[b]+*", "a[b]+c", true),
            ("a[b]+*", "abb", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(value.as_bytes()), expected, "{pattern} against {value}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn a_star_elsewhere_and_emptiness_are_refused() {
        for wrong in ["", "**", "*a*", "a*b", "a**", "**a"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn compat_takes_a_star_elsewhere_for_a_letter() {
        for (pattern, value, expected) in [
            ("*a*", "xa*", true),
            ("*a*", "xax", false),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
            ("**", "x*", true),
            ("a**", "a*x", true),
            ("*", "x", true),
            ("*", "", false),
        ] {
            let parsed = Pattern::parse_as(Mode::Compat, pattern).unwrap();
            assert_eq!(parsed.matches(value.as_bytes()), expected, "{pattern} against {value}");
        }
        assert_eq!(Pattern::parse_as(Mode::Compat, ""), Err(PatternError::Empty));
        assert!(Pattern::parse_as(Mode::Strict, "a*b").is_err());
    }

    #[test]
    fn hosts_ignore_case_at_every_boundary() {
        for (pattern, value, expected) in [
            ("A.example", "a.EXAMPLE", true),
            ("a.*", "A.b", true),
            ("*.B", "x.b", true),
            ("*.b", "b", false),
            ("longer*", "lo", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches_ignoring_case(value.as_bytes()), expected, "{pattern}");
        }
    }

    #[test]
    fn a_large_set_answers_as_a_small_one() {
        let names = |n: usize| (0..n).map(|i| Pattern::parse(&format!("v{i}")).unwrap());
        let (small, large) =
            (PatternSet::new(names(8)), PatternSet::new(names(9).chain([Pattern::Prefix("w".into())])));
        for (set, n) in [(&small, 8), (&large, 9)] {
            for i in 0..n {
                let value = format!("v{i}");
                assert!(set.matches(&value) && set.matches_bytes(value.as_bytes()));
            }
            assert!(!set.matches("v99") && !set.matches(""));
        }
        assert!(large.matches("wx"));
        assert_eq!((small.patterns().count(), large.patterns().count()), (8, 10));
        assert_eq!(large.to_string(), "`v0`, `v1`, `v2`, `v3`, `v4` and 5 more");
    }
}
