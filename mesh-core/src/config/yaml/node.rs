//! The tree itself.

use crate::config::issue::{Errors, Place, join};

/// One node of the tree.
///
/// Equality is that of the values: moved text is no change.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    /// What it holds.
    pub value: Value,
}

/// What a [`Node`] holds.
///
/// Plain scalars are typed by YAML 1.2's core schema; quoted ones are strings.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Everything else.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are unique strings.
    Map(Vec<Entry>),
}

/// One entry of a mapping. Equality is that of key and value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands; its path is that of the value.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

/// A value that can be read from a [`Node`].
pub trait Decode: Sized {
    /// Reads the value, or notes why it cannot and returns `None`.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self>;
}

impl From<&serde_json::Value> for Node {
    /// A tree for settings given in code, at the place `<code>`.
    fn from(value: &serde_json::Value) -> Self {
        let mut node = from_json(value);
        relocate(&mut node, String::new());
        node
    }
}

fn from_json(json: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(key, value)| Entry { key: key.clone(), place: Place::code(), value: from_json(value) })
                .collect(),
        ),
    };
    Node { place: Place::code(), value }
}

// Recursion below is at most `MAX_DEPTH` deep: trees are built with that bound.

/// Nodes of a subtree, and the bytes of its strings and paths.
pub(super) fn size(node: &Node) -> (usize, usize) {
    let own = node.place.path.len();
    let add = |(nodes, bytes): (usize, usize), (n, b): (usize, usize)| (nodes + n, bytes + b);
    match &node.value {
        Value::String(text) => (1, own + text.len()),
        Value::List(items) => items.iter().map(size).fold((1, own), add),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).fold((1, own), add),
        _ => (1, own),
    }
}

/// Mappings and sequences inside each other, below and with this one.
pub(super) fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Gives a subtree the field path at which it is used.
pub(super) fn relocate(node: &mut Node, path: String) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                relocate(item, format!("{path}[{index}]"));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                entry.place.path = join(&path, &entry.key);
                relocate(&mut entry.value, entry.place.path.clone());
            }
        }
        _ => {}
    }
    node.place.path = path;
}
