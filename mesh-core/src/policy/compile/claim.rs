//! Claims of a verified token.

use serde_json::{Map, Value};

use super::super::pattern::PatternSet;

pub(super) fn at<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, key| value.get(key))
}

/// A claim is a string or a list of strings; whatever else it is matches nothing.
///
/// `scope` and `permission` hold several values with spaces between them, as in Istio.
pub(super) fn matches(claims: &Map<String, Value>, path: &[String], values: &PatternSet) -> bool {
    let splits = matches!(path, [only] if only == "scope" || only == "permission");
    match at(claims, path) {
        Some(Value::String(text)) if splits => text.split(' ').any(|part| values.matches(part)),
        Some(Value::String(text)) => values.matches(text),
        Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str()).any(|item| values.matches(item)),
        _ => false,
    }
}
