//! From tree to values: collects every error and leaves no field unread.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::issue::{Errors, Place};
use super::nearest::suggestion;
use super::values::Quantity;
use super::yaml::{Decode, Entry, Node, Value};

impl Node {
    /// Notes that this node should have been something else.
    pub fn expected<T>(&self, expected: &str, errors: &mut Errors) -> Option<T> {
        errors.push(&self.place, format!("expected {expected}, found {}", self.describe()));
        None
    }

    /// What it holds, for an error message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::String(text) if text.chars().count() <= 64 => format!("{text:?}"),
            Value::String(_) => "a long string".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The items of a list, or a note that it is none.
    pub fn list(&self, errors: &mut Errors) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => self.expected("a list", errors),
        }
    }

    /// The entries of a mapping, or a note that it is none.
    ///
    /// Nothing counts as an empty one.
    pub fn entries(&self, errors: &mut Errors) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => self.expected("a mapping", errors),
        }
    }

    /// One of a few words, each with its value.
    pub fn choice<T: Clone>(&self, words: &[(&str, T)], errors: &mut Errors) -> Option<T> {
        let names = || words.iter().map(|(word, _)| *word);
        let Some(text) = self.as_str() else {
            return self.expected(&format!("one of {}", names().collect::<Vec<_>>().join(", ")), errors);
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if found.is_none() {
            errors
                .push(&self.place, format!("unknown value `{text}`{}", suggestion(text, names().collect::<Vec<_>>())));
        }
        found
    }
}

/// Reads the fields of a mapping, and refuses those that nobody asked for.
///
/// One by one; [`finish`](Self::finish) refuses.
///
/// ```
/// use mesh_core::config::{Decode, Errors, Fields, Node};
/// # use std::time::Duration;
/// struct Probe { name: String, every: Duration }
///
/// impl Decode for Probe {
///     fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
///         let mut fields = Fields::of(node, errors)?;
///         let name = fields.required("name");
///         let every = fields.within("every", Duration::from_secs(5), Duration::from_millis(100)..=Duration::from_secs(60));
///         fields.finish();                   // unknown fields, with the nearest known name
///         Some(Self { name: name?, every })
///     }
/// }
///
/// let mut errors = Errors::default();
/// let node = Node::from(&serde_json::json!({ "name": "tcp", "evry": "1s" }));
/// Probe::decode(&node, &mut errors);
/// assert_eq!(errors.issues()[0].to_string(), "<code>: evry: unknown field; did you mean `every`?");
/// ```
#[derive(Debug)]
pub struct Fields<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    errors: &'a mut Errors,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which must be a mapping (null counts as an empty one).
    pub fn of(node: &'a Node, errors: &'a mut Errors) -> Option<Self> {
        let entries = node.entries(errors)?;
        Some(Self { node, entries, errors, asked: Vec::new() })
    }

    /// A field that must be there.
    pub fn required<T: Decode>(&mut self, name: &'static str) -> Option<T> {
        match self.node(name) {
            Some(node) => T::decode(node, self.errors),
            None => {
                self.errors.push(&self.node.place.field(name), "this field is required");
                None
            }
        }
    }

    /// A field that may be missing.
    ///
    /// `None` when it is missing or wrong; wrong has then been noted.
    pub fn optional<T: Decode>(&mut self, name: &'static str) -> Option<T> {
        let node = self.node(name)?;
        T::decode(node, self.errors)
    }

    /// A field that has a default.
    pub fn or<T: Decode>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A quantity that has a default and must lie in `range`.
    ///
    /// Outside it is an error that names the range.
    pub fn within<T: Quantity>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T {
        self.optional_within(name, range).unwrap_or(default)
    }

    /// A quantity that may be missing and otherwise must lie in `range`.
    pub fn optional_within<T: Quantity>(&mut self, name: &'static str, range: RangeInclusive<T>) -> Option<T> {
        let node = self.node(name)?;
        T::decode_within(node, &range, self.errors)
    }

    /// The raw node of a field, marked as read.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    /// Where a field stands, or the mapping itself if it is missing.
    pub fn place(&self, name: &str) -> Place {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        entry.map_or_else(|| self.node.place.field(name), |entry| entry.value.place.clone())
    }

    /// Notes a problem of this mapping's own.
    pub fn error(&mut self, message: impl Into<String>) {
        self.errors.push(&self.node.place, message);
    }

    /// The collector, for reading a field by hand.
    pub fn errors(&mut self) -> &mut Errors {
        self.errors
    }

    /// Refuses every field that was not asked for, and names the nearest that was.
    pub fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let hint = suggestion(&entry.key, self.asked.iter().copied());
            self.errors.push(&entry.place, format!("unknown field{hint}"));
        }
    }
}

impl Decode for Node {
    fn decode(node: &Node, _errors: &mut Errors) -> Option<Self> {
        Some(node.clone())
    }
}

/// Nothing (`null`, `~`) is `None`.
impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        if node.value == Value::Null { Some(None) } else { T::decode(node, errors).map(Some) }
    }
}

/// Items that cannot be read are noted and left out.
impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        Some(node.list(errors)?.iter().filter_map(|item| T::decode(item, errors)).collect())
    }
}

/// Entries that cannot be read are noted and left out.
impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let entries = node.entries(errors)?;
        Some(entries.iter().filter_map(|entry| Some((entry.key.clone(), T::decode(&entry.value, errors)?))).collect())
    }
}
