//! Headers, which may come several times.

use super::super::Mode;
use super::super::document::Action;
use super::super::pattern::{Pattern, PatternSet};
use super::super::request::Request;
use super::Use;

/// One list of values of `request.headers[NAME]`.
#[derive(Debug)]
pub(in super::super) struct HeaderRule {
    name: Box<str>,
    pub(super) values: PatternSet,
    /// Whether `*` is met by a header that is there and empty.
    empty: bool,
    mode: Mode,
}

impl HeaderRule {
    pub(super) fn new(name: &str, values: PatternSet, mode: Mode, use_of: Use) -> Self {
        // Whether that is a value nobody says: it is enough to be kept out, and not to be let in.
        let counts = mode == Mode::Compat || use_of == Use::KeepsOut;
        let empty = counts && values.patterns().any(|pattern| pattern == Pattern::Present);
        Self { name: name.into(), values, empty, mode }
    }

    /// Strict: ALLOW wants every value in order, for the others one that is not is enough. Compat: any value decides,
    /// as in Envoy since CVE-2026-26308 (before, it looked at the values joined by commas).
    ///
    /// An absent header satisfies the negative list only.
    pub(super) fn holds(&self, request: &Request<'_>, negated: bool, action: Action) -> bool {
        let (mut any, mut all, mut present) = (false, true, false);
        request.headers.values(&self.name, &mut |value| {
            let matched = self.values.matches_bytes(value) || (self.empty && value.is_empty());
            present = true;
            any |= matched;
            all &= matched;
        });
        match (self.mode, negated, action) {
            (Mode::Compat, ..) => any != negated,
            (Mode::Strict, false, Action::Allow) => present && all,
            (Mode::Strict, false, _) => any,
            (Mode::Strict, true, Action::Allow) => !any,
            (Mode::Strict, true, _) => !present || !all,
        }
    }

    pub(super) fn found(&self, request: &Request<'_>) -> Option<String> {
        let mut all: Option<Vec<String>> = None;
        request.headers.values(&self.name, &mut |value| {
            all.get_or_insert_default().push(String::from_utf8_lossy(value).into_owned());
        });
        all.map(|values| values.join(", "))
    }
}
