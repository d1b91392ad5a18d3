//! What fields hold: lists, texts, patterns, ports; and what a mode takes of them.

use std::cell::RefCell;

use super::super::Mode;
use super::super::canonical::Canonicalization;
use super::super::document::{Action, Clause};
use super::super::pattern::Pattern;
use crate::config::yaml::Value;
use crate::config::{ConfigIssue, Errors, Fields, Node, Place};

/// What the reading of one document depends on.
pub(super) struct Reading<'a> {
    pub(super) mode: Mode,
    /// Which paths requests can have.
    pub(super) canonical: Canonicalization,
    /// `metadata.namespace`.
    pub(super) namespace: &'a str,
    pub(super) action: Action,
    pub(super) doubts: RefCell<Vec<ConfigIssue>>,
}

impl<'a> Reading<'a> {
    /// Of a document without rules about requests.
    pub(super) fn without_rules(mode: Mode, namespace: &'a str) -> Self {
        let (canonical, action) = (Canonicalization::Reject, Action::Allow);
        Self { mode, canonical, namespace, action, doubts: RefCell::default() }
    }

    /// Refuses what Istio takes: an error in strict mode, a doubt in compat.
    pub(super) fn doubt(&self, place: &Place, message: impl Into<String>, errors: &mut Errors) -> Option<()> {
        if self.mode == Mode::Strict {
            errors.push(place, message);
            return None;
        }
        self.doubts.borrow_mut().push(ConfigIssue { place: place.clone(), message: message.into() });
        Some(())
    }
}

/// The items of a list that must hold something; an item that is nothing is no item.
pub(super) fn items<T>(node: &Node, errors: &mut Errors, read: impl Fn(&Node, &mut Errors) -> Option<T>) -> Vec<T> {
    let Value::List(items) = &node.value else {
        return node.expected("a list", errors).unwrap_or_default();
    };
    if items.is_empty() {
        errors.push(&node.place, "an empty list is refused: leave the field out, or say what it holds");
    }
    items
        .iter()
        .filter_map(|item| match item.value {
            Value::Null => item.expected("a value", errors),
            _ => read(item, errors),
        })
        .collect()
}

/// Whether a list is empty, which to Istio is no list.
pub(super) fn no_items(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> bool {
    let empty = matches!(&node.value, Value::List(items) if items.is_empty());
    if empty {
        reading.doubt(&node.place, "an empty list is refused: leave the field out, or say what it holds", errors);
    }
    empty
}

/// The positive and the negative list of a field. An empty one is no list to Istio.
pub(super) fn clause<T>(
    fields: &mut Fields<'_>,
    reading: &Reading<'_>,
    [positive, negative]: [&'static str; 2],
    read: impl Fn(&Node, &mut Errors) -> Option<T>,
) -> Clause<T> {
    let mut list = |name| list(fields, reading, name, &read);
    Clause { any_of: list(positive), none_of: list(negative) }
}

/// The items of a field; an empty list is none.
pub(super) fn list<T>(
    fields: &mut Fields<'_>,
    reading: &Reading<'_>,
    name: &'static str,
    read: impl Fn(&Node, &mut Errors) -> Option<T>,
) -> Option<Vec<T>> {
    let node = fields.node(name)?;
    if no_items(node, reading, fields.errors()) {
        return None;
    }
    Some(items(node, fields.errors(), read))
}

/// The text of a list's item, which must be a string as in Istio's schema.
pub(super) fn text<'a>(node: &'a Node, errors: &mut Errors) -> Option<&'a str> {
    node.as_str().or_else(|| node.expected("a string (put it in quotes)", errors))
}

pub(super) fn noted<T>(result: Result<T, impl ToString>, node: &Node, errors: &mut Errors) -> Option<T> {
    result.map_err(|error| errors.push(&node.place, error.to_string())).ok()
}

/// A value, as strict mode reads it; in compat as Istio does, with a doubt.
pub(super) fn read_as<T, E: ToString>(
    node: &Node,
    reading: &Reading<'_>,
    errors: &mut Errors,
    read: impl Fn(Mode, &str) -> Result<T, E>,
) -> Option<T> {
    let text = text(node, errors)?;
    match read(Mode::Strict, text) {
        Ok(value) => Some(value),
        Err(error) if reading.mode == Mode::Strict => noted(Err(error), node, errors),
        Err(doubt) => {
            let value = noted(read(Mode::Compat, text), node, errors)?;
            reading.doubt(&node.place, doubt.to_string(), errors).map(|()| value)
        }
    }
}

pub(super) fn pattern(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Pattern> {
    read_as(node, reading, errors, Pattern::parse_as)
}

/// A pattern that some request can match.
pub(super) fn matchable(
    node: &Node,
    reading: &Reading<'_>,
    errors: &mut Errors,
    check: impl Fn(&Pattern) -> Result<(), String>,
) -> Option<Pattern> {
    let pattern = pattern(node, reading, errors)?;
    match check(&pattern) {
        Ok(()) => Some(pattern),
        Err(doubt) => reading.doubt(&node.place, doubt, errors).map(|()| pattern),
    }
}

pub(super) fn port(node: &Node, errors: &mut Errors) -> Option<u16> {
    let port = match &node.value {
        // Istio's schema wants strings; a bare number can mean only one thing.
        Value::Int(number) => u16::try_from(*number).ok(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    port.or_else(|| node.expected("a port from 0 to 65535", errors))
}
